"""Tokens: short-lived, signed, and used in place of an API key's secret.

A token names its API key, which is read at each use, so a token allows what its key allows then. It also has
the mark of the secret that it was minted with, and ends with that secret. The signing key is in Redis: every
replica accepts the tokens of every other.
"""

import hashlib
import secrets
from typing import Any

import jwt

from shared.model.api_keys import ApiKey, Principal, hash_of, is_id
from shared.store.api_keys import ApiKeys

LIFETIME_S = 3600
_ALGORITHM = "HS256"
# Ours have a third of it. A longer one is refused unread.
_MAX_LENGTH = 1024
_MARK_LENGTH = 16


class Principals:
    """Authenticates by an API key's secret, or by a token that stands for it."""

    def __init__(self, api_keys: ApiKeys) -> None:
        self._api_keys = api_keys

    async def token_for(self, principal: Principal, *, now_ms: int) -> str:
        """A token that stands for the principal's secret, for an hour."""
        return sign(principal, key=await self._signing_key(), expires_at_s=now_ms // 1000 + LIFETIME_S)

    async def authenticate(self, given: str, *, now_ms: int) -> Principal | None:
        """The principal of a secret or token that is valid now; None for anything else."""
        key, secret_hash = await self._api_keys.authenticate(given, now_ms=now_ms), hash_of(given)
        if key is None:
            key, secret_hash = await self._minted_with(given, now_ms=now_ms)
        if key is None:
            return None
        account = await self._api_keys.account(key.account_id)
        return Principal(
            key.id,
            key.account_id,
            key.scopes,
            master=account is not None and account.master,
            secret_hash=secret_hash,
            until_ms=key.valid_until_ms(secret_hash),
        )

    async def may_listen(self, principal: Principal, account_id: str) -> bool:
        """Whether the account is the principal's own or below it; for a master, whether it exists."""
        if principal.master:
            return await self._api_keys.account(account_id) is not None
        return await self._api_keys.is_within(account_id, of=principal.account_id)

    async def _minted_with(self, token: str, *, now_ms: int) -> tuple[ApiKey | None, str]:
        """The API key of a token that is valid now, and the hash of the secret that minted it."""
        if not is_token_like(token):
            return None, ""
        claims = read(token, key=await self._signing_key())
        if claims is None or not now_ms < claims["exp"] * 1000:
            return None, ""
        key = await self._api_keys.find(claims["api_key_id"])
        if key is None:
            return None, ""
        for secret_hash in (key.secret_hash, key.old_secret_hash or ""):
            if mark_of(secret_hash) == claims["secret"] and now_ms < key.valid_until_ms(secret_hash):
                return key, secret_hash
        return None, ""

    async def _signing_key(self) -> str:
        # Not cached: Redis may have lost it, and another replica may have created a new one.
        return await self._api_keys.token_key(offered=secrets.token_hex(32))


def is_token_like(given: str) -> bool:
    """Whether the text has the form of a token."""
    return len(given) <= _MAX_LENGTH and given.isascii() and given.count(".") == 2


def mark_of(secret_hash: str) -> str:
    """Tells an API key's secrets apart in its tokens, which are not encrypted. It authenticates nothing."""
    return hashlib.sha256(secret_hash.encode()).hexdigest()[:_MARK_LENGTH]


def sign(principal: Principal, *, key: str, expires_at_s: int) -> str:
    claims = {
        "account_id": principal.account_id,
        "api_key_id": principal.api_key_id,
        "secret": mark_of(principal.secret_hash),
        "exp": expires_at_s,
    }
    return jwt.encode(claims, key, algorithm=_ALGORITHM)


def read(token: str, *, key: str) -> dict[str, Any] | None:
    """The claims of a token that was signed with this key, expired or not; None for anything else."""
    try:
        # The caller checks the expiry.
        claims = jwt.decode(token, key, algorithms=[_ALGORITHM], options={"verify_exp": False})
    except (jwt.InvalidTokenError, ValueError, RecursionError):
        return None
    api_key_id, expires_at_s = claims.get("api_key_id"), claims.get("exp")
    is_whole = isinstance(api_key_id, str) and is_id(api_key_id) and isinstance(expires_at_s, int)
    return claims if is_whole and isinstance(claims.get("secret"), str) else None
