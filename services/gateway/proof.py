"""Who is asking: the operator by the admin token, or an application by its API key."""

import hmac
import time
from collections import OrderedDict

from starlette.requests import Request

from shared.model.api_keys import ApiKey, Scope, id_in
from shared.runtime.answers import Problem
from shared.store.api_keys import ApiKeys
from shared.wire.pelion.opening import bearer

# A revocation through another gateway is heard of when the copy is this old.
_COPY_S = 1.0
_COPIES = 10_000


class Proof:
    """Judges the Authorization header of requests."""

    def __init__(self, api_keys: ApiKeys, *, admin_token: str) -> None:
        self._api_keys = api_keys
        self._admin_token = admin_token.encode()
        self._copies: OrderedDict[str, tuple[ApiKey, float]] = OrderedDict()

    def require_admin(self, request: Request) -> None:
        """Raises Problem(401) unless the request carries the admin token."""
        given = bearer(request.headers.get("authorization", "")) or ""
        if not given or not hmac.compare_digest(given.encode(), self._admin_token):
            raise _unproven("the admin token is missing or wrong")

    async def require(self, request: Request, scope: Scope) -> ApiKey:
        """The caller's API key. Raises Problem(401) when it proves nothing, 403 when it lacks the scope."""
        key = await self._key(bearer(request.headers.get("authorization", "")))
        if key is None:
            raise _unproven("the API key is missing or not valid")
        if scope not in key.scopes:
            raise Problem(
                403, f"the API key lacks the scope {scope}", fields=[("scopes", f"must include {scope}")]
            )
        return key

    def forget(self, api_key_id: str) -> None:
        """The key was revoked here; its copy must not serve another request."""
        self._copies.pop(api_key_id, None)

    async def _key(self, secret: str | None) -> ApiKey | None:
        if secret is None:
            return None
        now_s = time.monotonic()
        copy = self._copies.get(id_in(secret) or "")
        if copy is not None and now_s - copy[1] < _COPY_S:
            return copy[0] if copy[0].proves(secret) else None
        key = await self._api_keys.proven_by(secret)
        if key is not None:
            self._copies[key.id] = (key, now_s)
            self._copies.move_to_end(key.id)
            if len(self._copies) > _COPIES:
                self._copies.popitem(last=False)
        return key


def _unproven(message: str) -> Problem:
    fields = [("Authorization", "must be Bearer and a valid secret")]
    return Problem(401, message, fields=fields, headers={"www-authenticate": "Bearer"})
