"""Signatures by Standard Webhooks over id, time and body: HMAC-SHA256 (v1) and Ed25519 (v1a)."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from shared.model.signing_secrets import PREFIXES, SecretKind

_SEED_BYTES = 32


def signed_headers(
    secrets: Sequence[str], *, webhook_id: str, timestamp_s: int, body: bytes
) -> dict[str, str]:
    """The three headers by which a receiver verifies that a request is ours and recent.

    There is one signature for each secret, separated by blanks: a receiver takes the request if one of them
    is right. A retry keeps its `webhook_id`, with a new time and signatures. Raises ValueError.
    """
    signed = b"%s.%d.%s" % (webhook_id.encode(), timestamp_s, body)
    headers = {"webhook-id": webhook_id, "webhook-timestamp": str(timestamp_s)}
    if secrets:
        headers["webhook-signature"] = " ".join(_signature(secret, signed) for secret in secrets)
    return headers


def _signature(secret: str, signed: bytes) -> str:
    if secret.startswith(PREFIXES[SecretKind.ED25519]):
        return f"v1a,{_base64(_private_key(secret).sign(signed))}"
    key = _bytes_of(secret, PREFIXES[SecretKind.HMAC])
    return f"v1,{_base64(hmac.digest(key, signed, hashlib.sha256))}"


def _private_key(secret: str) -> Ed25519PrivateKey:
    # Some tools write the public half behind the seed.
    seed = _bytes_of(secret, PREFIXES[SecretKind.ED25519])[:_SEED_BYTES]
    return Ed25519PrivateKey.from_private_bytes(seed)


def _bytes_of(secret: str, prefix: str) -> bytes:
    try:
        return base64.b64decode(secret.removeprefix(prefix), validate=True)
    except binascii.Error:
        raise ValueError("not a signing secret") from None


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()
