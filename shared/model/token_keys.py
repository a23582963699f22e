"""Keys that verify tokens: each belongs to one account and one algorithm, which its id fixes.

A token names the id of its key. The id has the account's, so that one look-up in one slot of Redis finds the
key: `tk_` + id of the account (32 hex) + 16 random hex characters.
"""

import re
import secrets
from dataclasses import dataclass, field
from enum import StrEnum

MOST_KEYS = 10
"""Keys that an account makes or registers; the one that the server makes for it comes on top."""

_KID = re.compile(r"tk_([0-9a-f]{32})[0-9a-f]{16}")


class Algorithm(StrEnum):
    HS256 = "HS256"
    RS256 = "RS256"
    ES256 = "ES256"
    EDDSA = "EdDSA"


class Origin(StrEnum):
    """Who signs with the key: the account's own back end, or this server for `POST /v1/tokens`."""

    ACCOUNT = "account"
    SERVER = "server"


@dataclass(frozen=True, slots=True)
class TokenKey:
    """`material` is the secret of HS256, which the repr leaves out, or a public key in PEM."""

    kid: str
    algorithm: Algorithm
    material: str = field(repr=False)
    created_at_ms: int
    origin: Origin = Origin.ACCOUNT

    @property
    def account_id(self) -> str:
        return account_in(self.kid) or ""


def new_kid(account_id: str) -> str:
    return f"tk_{account_id}{secrets.token_hex(8)}"


def account_in(kid: str) -> str | None:
    """The account in the id of a key; None for a text of another form."""
    match = _KID.fullmatch(kid)
    return match[1] if match else None


def new_key_secret() -> str:
    """256 random bits as a text; its bytes are the key of the HMAC."""
    return f"tks_{secrets.token_hex(32)}"
