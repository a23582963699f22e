"""Authenticates requests: the operator by the admin token, applications by their API key.

Cached API keys save Redis a read per request. Expiry is still exact: each use compares it with the clock.
Administration never relies on the cache.
"""

import hashlib
import hmac
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from starlette.requests import Request

from shared.authentication import require_scope
from shared.clock import now_ms
from shared.model.api_keys import ApiKey, Scope, hash_of, is_id
from shared.model.errors import Unauthenticated
from shared.model.grants import Grant
from shared.native_tokens import NativeTokens
from shared.runtime.http.responses import Problem
from shared.runtime.stranger_limits import StrangerLimits
from shared.store.api_keys import ApiKeys
from shared.store.random_cache import RandomCache
from shared.wire.native_tokens import is_token_like
from shared.wire.pelion.handshake import bearer

# How long this gateway may still accept a secret that another gateway revoked or rotated.
_FRESH_S = 1.0
# Then a key is read again anyway: a gateway may have died between a revocation and the new version.
_CACHE_S = 30.0
# About 1.5 KB each.
_CACHE_SIZE = 10_000

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Administrator:
    """May create and revoke the API keys of one account, or of all (None): an admin, or the operator.

    `api_key_id` is the admin's own, '' for the operator.
    """

    account_id: str | None
    api_key_id: str = ""

    def administers(self, account_id: str) -> bool:
        return self.account_id is None or self.account_id == account_id


@dataclass(frozen=True, slots=True)
class _Cached:
    """An API key, and until when the secret that it was found by is valid.

    `version` is that of all credentials, as it was known before the key was read.
    """

    key: ApiKey
    valid_until_ms: float
    read_at_s: float
    version: bytes | None


class Authenticator:
    """Checks the Authorization header. All checks raise Unauthenticated or MissingScope.

    They raise Problem (429) without asking Redis when the caller's address has failed too often.
    """

    def __init__(
        self, api_keys: ApiKeys, tokens: NativeTokens, *, admin_token: str, limits: StrangerLimits
    ) -> None:
        self._api_keys = api_keys
        self._tokens = tokens
        self._limits = limits
        self._admin_token = admin_token.encode()
        self._cache: RandomCache[bytes, _Cached] = RandomCache(_CACHE_SIZE)
        # The version of all credentials, and when it was present at the earliest. Each publish reads it.
        self._version: bytes | None = None
        self._version_read_s = 0.0

    async def require_operator(self, request: Request) -> None:
        """Raises Problem(403) for a valid API key."""
        if not self._is_operator(request):
            await self._authenticate_uncached(request)
            raise Problem(403, "this needs the admin token; an API key is not enough")

    async def administrator(self, request: Request) -> Administrator:
        """The caller, if it may administer API keys."""
        if self._is_operator(request):
            return Administrator(account_id=None)
        key = await self._authenticate_uncached(request)
        require_scope(key.scopes, Scope.ADMIN)
        return Administrator(account_id=key.account_id, api_key_id=key.id)

    async def require(self, request: Request, scope: Scope) -> ApiKey:
        """The caller's API key, if it has the scope."""
        now_s, version = time.monotonic(), self._version
        authorization = request.headers.get("authorization", "")
        key = self.cached(digest_of(authorization), now_s=now_s)
        if key is None:
            # Also when another secret of this key is cached: the key may have been rotated.
            key = await self._authenticate_uncached(request)
            self._remember(key, authorization, read_at_s=now_s, version=version)
        require_scope(key.scopes, scope)
        return key

    async def publisher(self, request: Request) -> ApiKey | Grant:
        """The caller, if it may publish: an API key with the scope, or what a token allows."""
        is_by_token = is_token_like(_secret_in(request))
        return await self.bearer(request) if is_by_token else await self.require(request, Scope.PUBLISH)

    async def bearer(self, request: Request) -> Grant:
        """What the caller's token allows. Raises TokenRefused."""
        token = _secret_in(request)
        return await self._tokens.look_up(
            token, lambda find: self.look_up(request, token, find), now_ms=now_ms()
        )

    def cached(self, digest: bytes, *, now_s: float) -> ApiKey | None:
        """The API key of this `digest_of` a header, if it is in memory and was valid within the last
        second."""
        cached = self._cache.get(digest)
        if cached is None:
            return None
        age_s = now_s - cached.read_at_s
        if age_s >= _FRESH_S:
            is_present = cached.version == self._version and now_s - self._version_read_s < _FRESH_S
            if not is_present or age_s >= _CACHE_S:
                return None
        return cached.key if now_ms() < cached.valid_until_ms else None

    def on_credentials_version(self, version: bytes, asked_s: float) -> None:
        """A publish that began at `asked_s` has read the version of all credentials."""
        # Nodes of a cluster reply in any order.
        if asked_s >= self._version_read_s:
            self._version, self._version_read_s = version, asked_s

    async def receiver(self, request: Request, api_key_id: str) -> tuple[ApiKey | None, ApiKey]:
        """The caller, and the API key with this id: for that key, an admin of its account, or the operator.

        Raises Problem(404) when the caller can see no such key.
        """
        caller = await self.caller(request)
        if caller is not None:
            require_scope(caller.scopes, Scope.RECEIVE if caller.id == api_key_id else Scope.ADMIN)
            if caller.id == api_key_id:
                return caller, caller
        key = await self._api_keys.find(api_key_id) if is_id(api_key_id) else None
        if key is None or (caller is not None and caller.account_id != key.account_id):
            raise Problem(404, "there is no such API key")
        return caller, key

    async def caller(self, request: Request) -> ApiKey | None:
        """The caller's API key, read anew; None for the operator."""
        return None if self._is_operator(request) else await self._authenticate_uncached(request)

    async def look_up(
        self, request: Request, given: str, find: Callable[[], Awaitable[Found | None]]
    ) -> Found | None:
        """What `find` reads for this credential of the request; None if it is not valid."""
        return await self._limits.look_up(given, self._limits.address_of(request.scope), find)

    def address_of(self, request: Request) -> str:
        """The client's address, "" when it is unknown."""
        return self._limits.client_address(request.scope)

    def forget(self, api_key_id: str) -> None:
        """Drops the cached key: this gateway has revoked or rotated it."""
        for digest in [digest for digest, cached in self._cache.items() if cached.key.id == api_key_id]:
            self._cache.drop(digest)

    def forget_account(self, account_id: str) -> None:
        """Drops the cached keys of an account: this gateway has deleted it."""
        for digest in [each for each, cached in self._cache.items() if cached.key.account_id == account_id]:
            self._cache.drop(digest)

    def _is_operator(self, request: Request) -> bool:
        given = _secret_in(request)
        # Headers are read as Latin-1; these are the bytes that were sent.
        return bool(given) and hmac.compare_digest(given.encode("latin-1"), self._admin_token)

    async def _authenticate_uncached(self, request: Request) -> ApiKey:
        secret = _secret_in(request)
        key = await self.look_up(
            request, secret, lambda: self._api_keys.authenticate(secret or None, now_ms=now_ms())
        )
        if key is None:
            raise Unauthenticated
        return key

    def _remember(self, key: ApiKey, authorization: str, *, read_at_s: float, version: bytes | None) -> None:
        secret_hash = hash_of(bearer(authorization) or "")
        self._cache.put(
            digest_of(authorization), _Cached(key, key.valid_until_ms(secret_hash), read_at_s, version)
        )


def digest_of(authorization: str) -> bytes:
    """What the cache knows an Authorization header by: a look-up takes as long for every secret."""
    return hashlib.sha256(authorization.encode()).digest()


def _secret_in(request: Request) -> str:
    return bearer(request.headers.get("authorization", "")) or ""
