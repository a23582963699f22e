"""Who is asking: the operator by the admin token, or an application by its API key.

Copies of API keys spare Redis a question for each request. They are judged by the time of day, so that what
ends at a known time does; what an administrator may do is never decided by a copy.
"""

import hmac
import time
from collections import OrderedDict
from dataclasses import dataclass

from starlette.requests import Request

from shared.model.api_keys import ApiKey, Scope, id_in, is_id
from shared.runtime.clock import now_ms
from shared.runtime.http.responses import Problem
from shared.store.api_keys import ApiKeys
from shared.wire.pelion.handshake import bearer

# A revocation or rotation through another gateway is heard of when the copy is this old.
_COPY_S = 1.0
_COPIES = 10_000


@dataclass(frozen=True, slots=True)
class Administrator:
    """Who may make and end API keys: of one account, or the operator, of all."""

    account_id: str | None

    def administers(self, account_id: str) -> bool:
        return self.account_id is None or self.account_id == account_id


class Authenticator:
    """Judges the Authorization header of requests."""

    def __init__(self, api_keys: ApiKeys, *, admin_token: str) -> None:
        self._api_keys = api_keys
        self._admin_token = admin_token.encode()
        self._copies: OrderedDict[str, tuple[ApiKey, float]] = OrderedDict()

    async def require_operator(self, request: Request) -> None:
        """Raises Problem unless the request carries the admin token: 403 when it is an API key, else 401."""
        if not self._is_operator(request):
            await self._authenticate_now(request)
            raise Problem(403, "this takes the admin token; an API key is not enough")

    async def administrator(self, request: Request) -> Administrator:
        """ChannelRef API keys the caller may make and end.

        Raises Problem(401) when it proves nothing, 403 when it is an API key without the scope `admin`.
        """
        if self._is_operator(request):
            return Administrator(account_id=None)
        key = await self._authenticate_now(request)
        _check_scope(key, Scope.ADMIN)
        return Administrator(account_id=key.account_id)

    async def require(self, request: Request, scope: Scope) -> ApiKey:
        """The caller's API key. Raises Problem(401) when it proves nothing, 403 when it lacks the scope."""
        key = await self._key(bearer(request.headers.get("authorization", "")))
        if key is None:
            raise _unauthenticated("the API key is missing or not valid")
        _check_scope(key, scope)
        return key

    async def receiver(self, request: Request, api_key_id: str) -> ApiKey:
        """The API key whose channel is asked about: by itself, an admin of its account or the operator.

        Raises Problem(401) when the caller proves nothing, 403 when it may not look at this one, 404 when
        there is no such API key in the caller's reach.
        """
        caller = None if self._is_operator(request) else await self._authenticate_now(request)
        if caller is not None and caller.id == api_key_id and Scope.RECEIVE in caller.scopes:
            return caller
        if caller is not None:
            _check_scope(caller, Scope.RECEIVE if caller.id == api_key_id else Scope.ADMIN)
        key = await self._api_keys.find(api_key_id) if is_id(api_key_id) else None
        if key is None or (caller is not None and caller.account_id != key.account_id):
            raise Problem(404, "there is no such API key")
        return key

    def forget(self, api_key_id: str) -> None:
        """The key was revoked or rotated here; its copy must not serve another request."""
        self._copies.pop(api_key_id, None)

    def _is_operator(self, request: Request) -> bool:
        given = bearer(request.headers.get("authorization", "")) or ""
        return bool(given) and hmac.compare_digest(given.encode(), self._admin_token)

    async def _authenticate_now(self, request: Request) -> ApiKey:
        secret = bearer(request.headers.get("authorization", ""))
        key = await self._api_keys.authenticate(secret, now_ms=now_ms())
        if key is None:
            raise _unauthenticated("the admin token or API key is missing or not valid")
        return key

    async def _key(self, secret: str | None) -> ApiKey | None:
        if secret is None:
            return None
        now_s = time.monotonic()
        copy = self._copies.get(id_in(secret) or "")
        if copy is not None and now_s - copy[1] < _COPY_S and copy[0].accepts(secret, now_ms=now_ms()):
            return copy[0]
        # Also when the copy knows nothing of this secret: it may be new.
        key = await self._api_keys.authenticate(secret, now_ms=now_ms())
        if key is not None:
            self._copies[key.id] = (key, now_s)
            self._copies.move_to_end(key.id)
            if len(self._copies) > _COPIES:
                self._copies.popitem(last=False)
        return key


def _check_scope(key: ApiKey, scope: Scope) -> None:
    if scope not in key.scopes:
        raise Problem(
            403, f"the API key lacks the scope {scope}", fields=[("scopes", f"must include {scope}")]
        )


def _unauthenticated(message: str) -> Problem:
    fields = [("Authorization", "must be Bearer and a valid secret")]
    return Problem(401, message, fields=fields, headers={"www-authenticate": "Bearer"})
