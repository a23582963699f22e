"""Signatures by Standard Webhooks over id, time and body: HMAC-SHA256 (v1) and Ed25519 (v1a)."""

import base64
import hmac
from collections.abc import Sequence
from functools import lru_cache, partial

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from shared.model.errors import Invalid
from shared.model.signing_secrets import PREFIXES, SecretKind

_SEED_BYTES = 32
_HMAC_BYTES = (24, 64)
# The secrets of the webhooks that were called last.
_KEYED = 4096
_PUBLIC_PREFIX = "whpk_"
_wrong = partial(Invalid, field="secret")


def signed_headers(
    signing_secrets: Sequence[str], *, webhook_id: str, timestamp_s: int, body: bytes
) -> dict[str, str]:
    """The three headers by which a receiver verifies that a request is ours and recent.

    There is one signature for each secret, separated by blanks: a receiver takes the request if one of them
    is right. A retry keeps its `webhook_id`, with a new time and signatures. Raises ValueError.
    """
    signed = b"%s.%d.%s" % (webhook_id.encode(), timestamp_s, body)
    headers = {"webhook-id": webhook_id, "webhook-timestamp": str(timestamp_s)}
    if signing_secrets:
        signatures = [_signature(secret, signed) for secret in signing_secrets]
        headers["webhook-signature"] = " ".join(signatures)
    return headers


def imported_secret(text: str, kind: SecretKind | None) -> str:
    """The secret in the form in which we keep it. Raises Invalid, which never quotes it."""
    found = next((each for each, prefix in PREFIXES.items() if text.startswith(prefix)), None)
    if found is None:
        raise _wrong("must begin with whsec_ (HMAC) or whsk_ (Ed25519)")
    if kind not in (None, found):
        raise _wrong(f"is of the kind {found}, not {kind}")
    # Some tools leave out the padding.
    padding = "=" * (-len(text.removeprefix(PREFIXES[found])) % 4)
    try:
        key = _bytes_of(text + padding, PREFIXES[found])
    except ValueError:
        raise _wrong(f"must be base64 behind {PREFIXES[found]}") from None
    if found is SecretKind.HMAC:
        if not _HMAC_BYTES[0] <= len(key) <= _HMAC_BYTES[1]:
            least, most = _HMAC_BYTES
            raise _wrong(f"has {len(key)} bytes, {least} to {most} are taken")
        return PREFIXES[found] + _base64(key)
    seed, public = key[:_SEED_BYTES], key[_SEED_BYTES:]
    # Some tools write the public half behind the seed.
    if len(seed) < _SEED_BYTES or public not in (b"", _public_bytes(seed)):
        raise _wrong("must be the 32 bytes of an Ed25519 private key, or those and its public key")
    return PREFIXES[found] + _base64(seed)


def public_key(secret: str) -> str:
    """What the receiver verifies by: `whpk_…` of an Ed25519 secret."""
    return _PUBLIC_PREFIX + _base64(_public_bytes(_bytes_of(secret, PREFIXES[SecretKind.ED25519])))


def _public_bytes(seed: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def _signature(secret: str, signed: bytes) -> str:
    if secret.startswith(PREFIXES[SecretKind.ED25519]):
        seed = _bytes_of(secret, PREFIXES[SecretKind.ED25519])
        return f"v1a,{_base64(Ed25519PrivateKey.from_private_bytes(seed).sign(signed))}"
    keyed = _keyed(secret).copy()
    keyed.update(signed)
    return f"v1,{_base64(keyed.digest())}"


@lru_cache(maxsize=_KEYED)
def _keyed(secret: str) -> hmac.HMAC:
    """An HMAC that has read its key, to be copied. OpenSSL takes longer for that than for a usual body."""
    return hmac.new(_bytes_of(secret, PREFIXES[SecretKind.HMAC]), digestmod="sha256")


def _bytes_of(secret: str, prefix: str) -> bytes:
    try:
        return base64.b64decode(secret.removeprefix(prefix), validate=True)
    except ValueError:
        raise ValueError("not a signing secret") from None


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()
