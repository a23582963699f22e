"""Signing secrets: by them a webhook's receiver verifies that a request is ours.

A webhook has one that does not end, the newest, and for a while those before it.
"""

from dataclasses import dataclass, field
from enum import StrEnum

MOST_SECRETS = 5
"""As many as sign each request at most."""
DEFAULT_OVERLAP_S = 86_400
LONGEST_OVERLAP_S = 7 * 86_400


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
