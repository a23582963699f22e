"""An API key is what a caller proves itself by; its secret is shown once and kept only as a hash.

The secret carries the key's id, so that one look-up in one slot of Redis finds the record:
`ak_` + id (32 hex) + 48 random characters.
"""

import hashlib
import hmac
import math
import re
import secrets
from dataclasses import dataclass
from enum import StrEnum

_SECRET = re.compile(r"ak_([0-9a-f]{32})[0-9a-f]{48}")
_ID = re.compile(r"[0-9a-f]{32}")
# No secret is known that would have it: to compare with where there is no hash, in the same time.
_NOBODYS_HASH = "0" * 64


class Scope(StrEnum):
    """What an API key may do."""

    PUBLISH = "publish"
    RECEIVE = "receive"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Account:
    """The tenant: events are matched within one. Sessions of a master account may ask for those of all."""

    id: str
    name: str
    parent: str | None = None
    master: bool = False


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What a caller proves itself by. Hashes are the SHA-256 of secrets of 192 random bits.

    After a rotation the secret before it is valid too, until `old_valid_until_ms`.
    """

    id: str
    account_id: str
    name: str
    scopes: frozenset[Scope]
    created_at_ms: int
    secret_hash: str
    expires_at_ms: int | None = None
    old_secret_hash: str | None = None
    old_valid_until_ms: int | None = None

    def accepts(self, secret: str, *, now_ms: float) -> bool:
        """Is this a secret of the key, now? Takes the same time whatever is wrong with it."""
        return now_ms < self.valid_until_ms(hash_of(secret))

    def valid_until_ms(self, secret_hash: str) -> float:
        """When the secret with this hash ends, or the key; infinity for never, 0 for none of its own."""
        is_new = hmac.compare_digest(self.secret_hash, secret_hash)
        is_old = hmac.compare_digest(self.old_secret_hash or _NOBODYS_HASH, secret_hash)
        ends_ms = math.inf if is_new else (self.old_valid_until_ms or 0) if is_old else 0
        return min(ends_ms, math.inf if self.expires_at_ms is None else self.expires_at_ms)

    def old_secret_until_ms(self, *, now_ms: float) -> int | None:
        """Until when the secret before the newest is valid; None when it is not."""
        until_ms = self.old_valid_until_ms
        return until_ms if until_ms is not None and until_ms > now_ms else None


@dataclass(frozen=True, slots=True)
class Principal:
    """Who has proven itself: an API key, and the account that it speaks for."""

    api_key_id: str
    account_id: str
    scopes: frozenset[Scope]
    master: bool = False


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
