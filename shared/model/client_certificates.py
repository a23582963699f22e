"""A client certificate: what a webhook's requests show to a receiver that asks for one."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """Chain and private key as PEM. `version` is new with each change, so it stands for both."""

    version: str
    chain: str = field(repr=False)
    key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """What is shown of one. `fingerprint` is the SHA-256 of the certificate, in hexadecimal digits."""

    subject: str
    fingerprint: str
    not_after_ms: int
