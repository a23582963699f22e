"""A caller authenticates with the secret of an API key, which is returned once and stored as a hash.

The secret contains the key's id, so that one look-up in one slot of Redis finds the record:
`ak_` + id (32 hex) + 48 random characters.
"""

import hashlib
import hmac
import math
import re
import secrets
from dataclasses import dataclass, field
from enum import StrEnum

_SECRET = re.compile(r"ak_([0-9a-f]{32})[0-9a-f]{48}")
_ID = re.compile(r"[0-9a-f]{32}")
# The hash of no known secret: comparing with it takes as long as with a real one.
_NO_HASH = "0" * 64


class Scope(StrEnum):
    """What an API key allows."""

    PUBLISH = "publish"
    RECEIVE = "receive"
    CHANNELS = "channels"
    TOKENS = "tokens"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Account:
    """The tenant: events are matched within one. Sessions of a master account may bind to events of all."""

    id: str
    name: str
    parent: str | None = None
    master: bool = False


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An API key. Hashes are the SHA-256 of secrets of 192 random bits.

    After a rotation the old secret stays valid until `old_valid_until_ms`.
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
        """Whether this is a valid secret of the key; takes the same time for every wrong one."""
        return now_ms < self.valid_until_ms(hash_of(secret))

    def valid_until_ms(self, secret_hash: str) -> float:
        """When the secret with this hash expires, or the key: infinity for never, 0 for a foreign secret."""
        is_new = hmac.compare_digest(self.secret_hash, secret_hash)
        is_old = hmac.compare_digest(self.old_secret_hash or _NO_HASH, secret_hash)
        ends_ms = math.inf if is_new else (self.old_valid_until_ms or 0) if is_old else 0
        return min(ends_ms, math.inf if self.expires_at_ms is None else self.expires_at_ms)

    def old_secret_until_ms(self, *, now_ms: float) -> int | None:
        """Until when the old secret is valid; None without one."""
        until_ms = self.old_valid_until_ms
        return until_ms if until_ms is not None and until_ms > now_ms else None


@dataclass(frozen=True, slots=True)
class Principal:
    """An authenticated caller: an API key and its account.

    `secret_hash` is that of the secret that it authenticated with, or with which its token was minted, and
    `until_ms` when that secret ends, as it was known then.
    """

    api_key_id: str
    account_id: str
    scopes: frozenset[Scope]
    master: bool = False
    secret_hash: str = field(default="", repr=False)
    until_ms: float = math.inf


def new_id() -> str:
    """32 hex characters, 128 random bits."""
    return secrets.token_hex(16)


def new_secret(api_key_id: str) -> str:
    return f"ak_{api_key_id}{secrets.token_hex(24)}"


def hash_of(secret: str) -> str:
    # A plain digest is enough: no dictionary contains a random secret.
    return hashlib.sha256(secret.encode()).hexdigest()


def id_in(secret: str) -> str | None:
    """The API key id in a secret; None when it is not of our form."""
    match = _SECRET.fullmatch(secret)
    return match[1] if match else None


def is_id(text: str) -> bool:
    return _ID.fullmatch(text) is not None
