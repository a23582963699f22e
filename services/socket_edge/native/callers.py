"""Who a native socket is for: a token by its claims, or an API key by its scopes and bindings."""

from dataclasses import dataclass

from starlette.types import Scope

from services.socket_edge.credential_watcher import Credential, authenticate
from services.socket_edge.edge import Edge
from services.socket_edge.token_watcher import TokenCredential
from shared.clock import now_ms
from shared.model.api_keys import ApiKey
from shared.model.grants import Grant
from shared.wire.native_tokens import is_token_like
from shared.wire.pelion.handshake import bearer


@dataclass(frozen=True, slots=True)
class NativeCaller:
    """What the caller may do, and when that ends."""

    right: ApiKey | Grant
    credential: Credential | TokenCredential

    @property
    def account_id(self) -> str:
        return self.right.account_id


async def caller_of_handshake(edge: Edge, scope: Scope, authorization: str) -> NativeCaller:
    """By `Authorization: Bearer`: a token, or the secret of an API key.

    Raises Unauthenticated, Problem (429), StoreUnavailable.
    """
    given = bearer(authorization) or ""
    if is_token_like(given):
        return await caller_of_token(edge, given, edge.limits.address_of(scope))
    key, credential = await authenticate(edge, scope, given)
    return NativeCaller(key, credential)


async def caller_of_token(edge: Edge, token: str, address: str) -> NativeCaller:
    """The same by a token alone; failures count against the address. Raises TokenRefused as well."""
    # Before the look-up: a key that is deleted meanwhile is looked at again.
    changes = edge.tokens.changes
    grant = await edge.stores.native_tokens.look_up(
        token, lambda find: edge.look_up(token, address, find), now_ms=now_ms()
    )
    return NativeCaller(grant, TokenCredential.of(grant, changes=changes))
