"""Tokens: short-lived, signed statements of who somebody is, for who would not show a secret each time.

A token is worth what its API key is: it says which one, and that one is looked up at each use. Any replica
reads what another has signed, as the key that signs is in Redis.
"""

import secrets
from typing import Any

import jwt

from shared.model.api_keys import ApiKey, Principal, is_id
from shared.store.api_keys import ApiKeys

LIFETIME_S = 3600
_ALGORITHM = "HS256"
# Ours are a third of it. What is longer is not read at all, whoever made it.
_MAX_LENGTH = 1024


class Principals:
    """Who is who: by an API key's secret, or by a token that stands for it."""

    def __init__(self, api_keys: ApiKeys) -> None:
        self._api_keys = api_keys

    async def token_for(self, principal: Principal, *, now_ms: int) -> str:
        """A token that stands for the principal's API key, for an hour."""
        return signed(principal, key=await self._key(), expires_at_s=now_ms // 1000 + LIFETIME_S)

    async def authenticate(self, given: str, *, now_ms: int) -> Principal | None:
        """ChannelRef secret or token this is, valid now; None for anything else."""
        key = await self._api_keys.authenticate(given, now_ms=now_ms)
        if key is None:
            key = await self._named_by(given, now_ms=now_ms)
        if key is None:
            return None
        account = await self._api_keys.account(key.account_id)
        is_master = account is not None and account.master
        return Principal(key.id, key.account_id, key.scopes, master=is_master)

    async def may_listen(self, principal: Principal, account_id: str) -> bool:
        """May it hear this account's events? Its own, and of those below; a master, of any that exists."""
        if principal.master:
            return await self._api_keys.account(account_id) is not None
        return await self._api_keys.is_within(account_id, of=principal.account_id)

    async def _named_by(self, token: str, *, now_ms: int) -> ApiKey | None:
        if not looks_like_one(token):
            return None
        claims = read(token, key=await self._key())
        if claims is None or not now_ms < claims["exp"] * 1000:
            return None
        key = await self._api_keys.find(claims["api_key_id"])
        is_valid = key is not None and (key.expires_at_ms is None or now_ms < key.expires_at_ms)
        return key if is_valid else None

    async def _key(self) -> str:
        # Not remembered: Redis may have lost it, and another replica have made a new one.
        return await self._api_keys.token_key(offered=secrets.token_hex(32))


def looks_like_one(given: str) -> bool:
    """Is it worth reading?"""
    return len(given) <= _MAX_LENGTH and given.isascii() and given.count(".") == 2


def signed(principal: Principal, *, key: str, expires_at_s: int) -> str:
    claims = {
        "account_id": principal.account_id,
        "api_key_id": principal.api_key_id,
        "exp": expires_at_s,
    }
    return jwt.encode(claims, key, algorithm=_ALGORITHM)


def read(token: str, *, key: str) -> dict[str, Any] | None:
    """The claims of a token that was signed with this key, expired or not; None for anything else."""
    try:
        # The time is the caller's to judge.
        claims = jwt.decode(token, key, algorithms=[_ALGORITHM], options={"verify_exp": False})
    except (jwt.InvalidTokenError, ValueError, RecursionError):
        return None
    api_key_id, expires_at_s = claims.get("api_key_id"), claims.get("exp")
    is_whole = isinstance(api_key_id, str) and is_id(api_key_id) and isinstance(expires_at_s, int)
    return claims if is_whole else None
