"""Tokens: short-lived, signed, and used in place of an API key's secret.

A token names its API key, which is read at each use, so a token allows what its key allows then. The signing
key is in Redis: every replica accepts the tokens of every other.
"""

import secrets
from typing import Any

import jwt

from shared.model.api_keys import ApiKey, Principal, is_id
from shared.store.api_keys import ApiKeys

LIFETIME_S = 3600
_ALGORITHM = "HS256"
# Ours have a third of it. A longer one is refused unread.
_MAX_LENGTH = 1024


class Principals:
    """Authenticates by an API key's secret, or by a token that stands for it."""

    def __init__(self, api_keys: ApiKeys) -> None:
        self._api_keys = api_keys

    async def token_for(self, principal: Principal, *, now_ms: int) -> str:
        """A token that stands for the principal's API key, for an hour."""
        return sign(principal, key=await self._signing_key(), expires_at_s=now_ms // 1000 + LIFETIME_S)

    async def authenticate(self, given: str, *, now_ms: int) -> Principal | None:
        """The principal of a secret or token that is valid now; None for anything else."""
        key = await self._api_keys.authenticate(given, now_ms=now_ms)
        if key is None:
            key = await self._key_of_token(given, now_ms=now_ms)
        if key is None:
            return None
        account = await self._api_keys.account(key.account_id)
        is_master = account is not None and account.master
        return Principal(key.id, key.account_id, key.scopes, master=is_master)

    async def may_listen(self, principal: Principal, account_id: str) -> bool:
        """Whether the account is the principal's own or below it; for a master, whether it exists."""
        if principal.master:
            return await self._api_keys.account(account_id) is not None
        return await self._api_keys.is_within(account_id, of=principal.account_id)

    async def _key_of_token(self, token: str, *, now_ms: int) -> ApiKey | None:
        if not is_token_like(token):
            return None
        claims = read(token, key=await self._signing_key())
        if claims is None or not now_ms < claims["exp"] * 1000:
            return None
        key = await self._api_keys.find(claims["api_key_id"])
        is_valid = key is not None and (key.expires_at_ms is None or now_ms < key.expires_at_ms)
        return key if is_valid else None

    async def _signing_key(self) -> str:
        # Not cached: Redis may have lost it, and another replica may have created a new one.
        return await self._api_keys.token_key(offered=secrets.token_hex(32))


def is_token_like(given: str) -> bool:
    """Whether the text has the form of a token."""
    return len(given) <= _MAX_LENGTH and given.isascii() and given.count(".") == 2


def sign(principal: Principal, *, key: str, expires_at_s: int) -> str:
    claims = {
        "account_id": principal.account_id,
        "api_key_id": principal.api_key_id,
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
    return claims if is_whole else None
