"""Client certificates of native webhooks: put, shown without their keys, and removed.

docs/protocols/webhooks.md
"""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from starlette.requests import Request

from services.gateway.audit import record
from services.gateway.channel_access import NAMED_CHANNEL, OneChannel, no_such_channel, present
from services.gateway.channel_views import OF_ACCOUNT
from services.gateway.context import context_of
from services.gateway.operations import Operation
from shared.clock import now_ms
from shared.model.account_channels import AccountChannel, shown_id
from shared.model.audit import Action
from shared.model.channels import Kind
from shared.model.client_certificates import CertificateFacts, ClientCertificate
from shared.model.errors import Invalid
from shared.outbound.certificates import CertificateUnusable, check_usable
from shared.runtime.http.responses import Problem
from shared.wire.client_certificates import (
    ClientCertificateBody,
    ClientCertificateGiven,
    client_certificate_body,
)

_LONGEST_CHAIN = 10
_LONGEST_SUBJECT = 1024
# A signature with a longer key would hold up everything else of a dispatcher.
_RSA_BITS = range(2048, 4097)
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_PATH = "/v1/channels/{channel}/client-certificate"
_UNREADABLE = (ValueError, TypeError, UnsupportedAlgorithm)


@Operation(f"PUT {_PATH}", NAMED_CHANNEL, errors=(409,), parameters=[OF_ACCOUNT])
async def put_client_certificate(
    request: Request, one: OneChannel, posted: ClientCertificateGiven
) -> ClientCertificateBody:
    """Puts the client certificate of a webhook, in place of an earlier one: the next attempt shows it."""
    channel = await _native_webhook(request, one)
    # Reading keys may take some time of a processor.
    given, facts = await asyncio.to_thread(checked, posted.certificate, posted.private_key, now_ms=now_ms())
    was_put = await context_of(request).stores.client_certificates.put(
        one.id, generation=channel.generation, chain=given.chain, key=given.key, facts=facts
    )
    if not was_put:
        raise no_such_channel()
    await _record(request, Action.CLIENT_CERTIFICATE_PUT, one, channel)
    return client_certificate_body(facts)


@Operation(f"GET {_PATH}", NAMED_CHANNEL, parameters=[OF_ACCOUNT])
async def get_client_certificate(request: Request, one: OneChannel) -> ClientCertificateBody:
    """Gets subject, fingerprint and end of a webhook's client certificate. The private key is never shown."""
    facts = await context_of(request).stores.client_certificates.facts(one.id)
    if facts is None:
        raise _no_certificate()
    return client_certificate_body(facts)


@Operation(f"DELETE {_PATH}", NAMED_CHANNEL, parameters=[OF_ACCOUNT])
async def delete_client_certificate(request: Request, one: OneChannel) -> None:
    """Removes the client certificate of a webhook: the next attempt shows the installation's, if any."""
    channel = await present(request, one)
    if not await context_of(request).stores.client_certificates.drop(one.id):
        raise _no_certificate()
    await _record(request, Action.CLIENT_CERTIFICATE_DELETED, one, channel)


def checked(chain: str, key: str, *, now_ms: int) -> tuple[ClientCertificate, CertificateFacts]:
    """Certificate and key in the form that is stored: nothing else that the texts held. Raises Invalid."""
    certificates = _certificates(chain)
    _check_times(certificates, now_ms)
    private_key = _private_key(key)
    first = certificates[0]
    try:
        is_its_key = _public(first.public_key()) == _public(private_key.public_key())
        facts = CertificateFacts(
            subject=first.subject.rfc4514_string()[:_LONGEST_SUBJECT],
            fingerprint=first.fingerprint(SHA256()).hex(),
            not_after_ms=round(first.not_valid_after_utc.timestamp() * 1000),
        )
    except _UNREADABLE:
        raise Invalid("has a first certificate that cannot be read", field="certificate") from None
    if not is_its_key:
        raise Invalid("is not the key of the first certificate", field="private_key")
    given = ClientCertificate(
        version="",
        chain="".join(each.public_bytes(Encoding.PEM).decode() for each in certificates),
        key=private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
    )
    try:
        check_usable(given)
    except CertificateUnusable:
        raise Invalid("cannot be used for TLS with this key", field="certificate") from None
    return given, facts


def _certificates(chain: str) -> Sequence[x509.Certificate]:
    """Raises Invalid."""
    try:
        found = x509.load_pem_x509_certificates(chain.encode())
    except _UNREADABLE:
        raise Invalid("must be certificates in PEM, that of the client first", field="certificate") from None
    if len(found) > _LONGEST_CHAIN:
        raise Invalid(f"must have at most {_LONGEST_CHAIN} certificates", field="certificate")
    return found


def _check_times(certificates: Sequence[x509.Certificate], now_ms: int) -> None:
    """Raises Invalid."""
    now = datetime.fromtimestamp(now_ms / 1000, UTC)
    for number, each in enumerate(certificates, start=1):
        which = "" if number == 1 else f" (number {number} of the chain)"
        if each.not_valid_after_utc <= now:
            raise Invalid(f"has expired at {each.not_valid_after_utc:%FT%TZ}{which}", field="certificate")
        if each.not_valid_before_utc > now:
            begins = f"{each.not_valid_before_utc:%FT%TZ}"
            raise Invalid(f"is not valid before {begins}{which}", field="certificate")


def _private_key(key: str) -> PrivateKeyTypes:
    """Raises Invalid, which quotes nothing of the key."""
    try:
        # OpenSSL checks below whether the key fits; that of RSA's primes could take seconds.
        found = load_pem_private_key(key.encode(), password=None, unsafe_skip_rsa_key_validation=True)
    except TypeError:
        raise Invalid("has a password: store it without one", field="private_key") from None
    except _UNREADABLE:
        raise Invalid("must be a private key in PEM", field="private_key") from None
    match found:
        case rsa.RSAPrivateKey(key_size=bits) if bits in _RSA_BITS:
            return found
        case ec.EllipticCurvePrivateKey(curve=curve) if isinstance(curve, _CURVES):
            return found
        case ed25519.Ed25519PrivateKey():
            return found
    message = "must be RSA of 2048 to 4096 bits, or of the curve P-256, P-384, P-521 or Ed25519"
    raise Invalid(message, field="private_key")


def _public(key: object) -> bytes:
    public_bytes: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined]
    return public_bytes


async def _native_webhook(request: Request, one: OneChannel) -> AccountChannel:
    """Raises Problem."""
    channel = await present(request, one)
    if not channel.record.is_native:
        raise Problem(
            409, "the channel belongs to an API key: only webhooks of the account have certificates"
        )
    if channel.kind is not Kind.WEBHOOK:
        raise Problem(409, f"the channel is a {channel.kind}: only a webhook makes requests")
    return channel


def _no_certificate() -> Problem:
    return Problem(404, "the channel has no client certificate")


async def _record(request: Request, action: Action, one: OneChannel, channel: AccountChannel) -> None:
    await record(
        request,
        action,
        of=channel.record.account_id,
        target=shown_id(one.id),
        name=channel.record.name,
        by=one.caller.id,
    )
