"""Which client certificates a webhook may have, and what is stored and shown of one."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

from services.gateway.client_certificates import checked
from shared.model.errors import Invalid

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
NOW_MS = round(NOW.timestamp() * 1000)
DAY = timedelta(days=1)
PLAIN = NoEncryption()


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, both PEM."""

    certificate: str
    key: str


def pair(
    key: object = None,
    *,
    name: str = "client.example",
    begins: timedelta = -DAY,
    ends: timedelta = DAY,
    form: PrivateFormat = PrivateFormat.PKCS8,
    encryption: KeySerializationEncryption = PLAIN,
) -> Pair:
    private = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    is_own_hash = isinstance(private, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(private.public_key())  # type: ignore[attr-defined]
        .serial_number(7)
        .not_valid_before(NOW + begins)
        .not_valid_after(NOW + ends)
        .sign(private, None if is_own_hash else SHA256())  # type: ignore[arg-type]
    )
    pem = private.private_bytes(Encoding.PEM, form, encryption)  # type: ignore[attr-defined]
    return Pair(certificate.public_bytes(Encoding.PEM).decode(), pem.decode())


@pytest.mark.parametrize(
    "key",
    [
        lambda: ec.generate_private_key(ec.SECP256R1()),
        lambda: ec.generate_private_key(ec.SECP384R1()),
        lambda: ed25519.Ed25519PrivateKey.generate(),
        lambda: rsa.generate_private_key(65537, 2048),
    ],
    ids=["P-256", "P-384", "Ed25519", "RSA"],
)
def test_a_pair_that_fits_is_taken(key: Callable[[], object]) -> None:
    given = pair(key())

    certificate, facts = checked(given.certificate, given.key, now_ms=NOW_MS)

    assert (certificate.chain, certificate.key) == (given.certificate, given.key)
    assert facts.subject == "CN=client.example"
    assert len(facts.fingerprint) == 64
    assert facts.not_after_ms == NOW_MS + 86_400_000


def test_nothing_but_certificates_and_key_is_stored() -> None:
    first, second = pair(form=PrivateFormat.TraditionalOpenSSL), pair(name="authority.example")
    chain = f"Bag Attributes\n{first.certificate}note\n{second.certificate}"

    certificate, facts = checked(chain, f"a comment\n{first.key}", now_ms=NOW_MS)

    assert certificate.chain == first.certificate + second.certificate
    assert certificate.key.startswith("-----BEGIN PRIVATE KEY-----\n")
    assert "comment" not in certificate.key
    assert facts.subject == "CN=client.example"


GOOD = pair()
OTHER = pair()
CURVE = "must be RSA of 2048 to 4096 bits, or of the curve P-256, P-384, P-521 or Ed25519"
REFUSED: dict[str, tuple[str, str, str, str]] = {
    "no certificate": ("x", GOOD.key, "certificate", "must be certificates in PEM, that of the client first"),
    "a key as certificate": (
        *(GOOD.key, GOOD.key, "certificate"),
        "must be certificates in PEM, that of the client first",
    ),
    "a broken certificate": (
        *(GOOD.certificate.replace("M", "N"), GOOD.key, "certificate"),
        "must be certificates in PEM, that of the client first",
    ),
    "too many": (GOOD.certificate * 11, GOOD.key, "certificate", "must have at most 10 certificates"),
    "no key": (GOOD.certificate, "x", "private_key", "must be a private key in PEM"),
    "another key": (GOOD.certificate, OTHER.key, "private_key", "is not the key of the first certificate"),
    "the authority first": (
        *(OTHER.certificate + GOOD.certificate, GOOD.key, "private_key"),
        "is not the key of the first certificate",
    ),
}
ODD: dict[str, tuple[Callable[[], Pair], str, str]] = {
    "expired": (
        lambda: pair(begins=-2 * DAY, ends=-DAY),
        "certificate",
        "has expired at 2026-11-27T12:00:00Z",
    ),
    "ends now": (lambda: pair(ends=timedelta()), "certificate", "has expired at 2026-11-28T12:00:00Z"),
    "not yet valid": (
        lambda: pair(begins=DAY, ends=2 * DAY),
        "certificate",
        "is not valid before 2026-11-29T12:00:00Z",
    ),
    "an expired authority": (
        lambda: Pair(GOOD.certificate + pair(begins=-2 * DAY, ends=-DAY).certificate, GOOD.key),
        "certificate",
        "has expired at 2026-11-27T12:00:00Z (number 2 of the chain)",
    ),
    "a password": (
        lambda: pair(encryption=BestAvailableEncryption(b"Zq7xWvKj")),
        "private_key",
        "has a password: store it without one",
    ),
    "a short RSA key": (lambda: pair(rsa.generate_private_key(65537, 1024)), "private_key", CURVE),
    "DSA": (lambda: pair(dsa.generate_private_key(2048)), "private_key", CURVE),
    "another curve": (lambda: pair(ec.generate_private_key(ec.SECP256K1())), "private_key", CURVE),
    "Ed448": (lambda: pair(ed448.Ed448PrivateKey.generate()), "private_key", CURVE),
}


def refusal(certificate: str, key: str) -> tuple[str, str]:
    with pytest.raises(Invalid) as caught:
        checked(certificate, key, now_ms=NOW_MS)
    [(field, message)] = caught.value.fields
    return field, message


@pytest.mark.parametrize("name", REFUSED)
def test_a_pair_that_does_not_fit_is_refused(name: str) -> None:
    certificate, key, field, words = REFUSED[name]
    found, message = refusal(certificate, key)

    assert found == field
    assert words in message


@pytest.mark.parametrize("name", ODD)
def test_a_pair_that_could_not_be_used_is_refused(name: str) -> None:
    make, field, words = ODD[name]
    odd = make()
    found, message = refusal(odd.certificate, odd.key)

    assert found == field
    assert words in message
    assert odd.key.splitlines()[1] not in message
