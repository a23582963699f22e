"""Signing secrets: by them a webhook's receiver verifies that a request is ours.

A webhook has one that does not end, the newest, and for a while those before it.
"""

import base64
import secrets
from dataclasses import dataclass, field
from enum import StrEnum

MOST_SECRETS = 5
"""As many as sign each request at most."""
DEFAULT_OVERLAP_S = 86_400
LONGEST_OVERLAP_S = 7 * 86_400

ID_PREFIX = "sec_"
_ID_BYTES = 16
_SECRET_BYTES = 32


class SecretKind(StrEnum):
    HMAC = "hmac"
    ED25519 = "ed25519"


PREFIXES = {SecretKind.HMAC: "whsec_", SecretKind.ED25519: "whsk_"}
"""What the text of a secret begins with."""


@dataclass(frozen=True, slots=True)
class SigningSecret:
    """`ends_at_ms` is None for the newest. The repr leaves out the secret itself."""

    id: str
    created_at_ms: int
    ends_at_ms: int | None
    text: str = field(repr=False)

    @property
    def kind(self) -> SecretKind:
        return next(kind for kind, prefix in PREFIXES.items() if self.text.startswith(prefix))


def new_secret(kind: SecretKind = SecretKind.HMAC) -> str:
    """A secret of 256 random bits in the form of Standard Webhooks."""
    return PREFIXES[kind] + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def new_secret_id() -> str:
    return ID_PREFIX + secrets.token_hex(_ID_BYTES)
