"""One check for every service and dialect: does a secret belong to an API key, and may that key do this?"""

from collections.abc import Set

from shared.model.api_keys import ApiKey, Scope
from shared.model.errors import MissingScope, Unauthenticated
from shared.store.api_keys import ApiKeys


async def authenticate(api_keys: ApiKeys, secret: str | None, *, scope: Scope, now_ms: int) -> ApiKey:
    """The API key of this secret, valid now. Raises Unauthenticated, MissingScope, StoreUnavailable."""
    key = await api_keys.authenticate(secret, now_ms=now_ms)
    if key is None:
        raise Unauthenticated
    require_scope(key.scopes, scope)
    return key


def require_scope(scopes: Set[Scope], scope: Scope) -> None:
    """Checks the scopes of an API key or a principal. Raises MissingScope."""
    if scope not in scopes:
        raise MissingScope(scope)
