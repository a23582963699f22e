"""An API key is what a caller proves itself by; its secret is shown once and kept only as a hash.

The secret carries the key's id, so that one look-up in one slot of Redis finds the record:
`ak_` + id (32 hex) + 48 random characters.
"""

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from enum import StrEnum

_SECRET = re.compile(r"ak_([0-9a-f]{32})[0-9a-f]{48}")
_ID = re.compile(r"[0-9a-f]{32}")


class Scope(StrEnum):
    """What an API key may do."""

    PUBLISH = "publish"
    RECEIVE = "receive"


@dataclass(frozen=True, slots=True)
class Account:
    """The tenant: events are matched within one."""

    id: str
    name: str
    parent: str | None = None


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What a caller proves itself by. `secret_hash` is the SHA-256 of a secret of 192 random bits."""

    id: str
    account_id: str
    name: str
    scopes: frozenset[Scope]
    created_at_ms: int
    secret_hash: str

    def proves(self, secret: str) -> bool:
        """Is this the key's secret? Takes the same time whatever is wrong with it."""
        return hmac.compare_digest(self.secret_hash, hash_of(secret))


def new_id() -> str:
    """32 hex characters, 128 random bits."""
    return secrets.token_hex(16)


def new_secret(api_key_id: str) -> str:
    return f"ak_{api_key_id}{secrets.token_hex(24)}"


def hash_of(secret: str) -> str:
    # A plain digest is enough: the secret is random, there is no dictionary to try.
    return hashlib.sha256(secret.encode()).hexdigest()


def id_in(secret: str) -> str | None:
    """The API key id that a secret carries; None when it is not of our form."""
    match = _SECRET.fullmatch(secret)
    return match[1] if match else None


def is_id(text: str) -> bool:
    return _ID.fullmatch(text) is not None
