"""Bodies of /v1/channels/{channel}/client-certificate (docs/protocols/webhooks.md)."""

from typing import Annotated

from msgspec import Meta

from shared.model.client_certificates import CertificateFacts
from shared.wire.models import Closed, Moment
from shared.wire.times import moment_text

CHAIN_LIMIT = 16 * 1024
KEY_LIMIT = 8 * 1024


class ClientCertificateGiven(Closed):
    """The certificate first, then those of the authorities between it and a root."""

    certificate: Annotated[str, Meta(max_length=CHAIN_LIMIT, description="PEM: the chain.")]
    private_key: Annotated[str, Meta(max_length=KEY_LIMIT, description="PEM, without a password.")]


class ClientCertificateBody(Closed):
    """What is shown of it: never the private key."""

    subject: Annotated[str, Meta(examples=["CN=notifications.example"])]
    fingerprint: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z", description="SHA-256 of the certificate.")]
    not_after: Moment


def client_certificate_body(facts: CertificateFacts) -> ClientCertificateBody:
    return ClientCertificateBody(facts.subject, facts.fingerprint, moment_text(facts.not_after_ms))
