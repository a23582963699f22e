"""The REST side of an API key's channel (docs/protocols/pelion.md, section 2)."""

from starlette.requests import Request
from starlette.responses import Response

from services.gateway.bodies import body_of, model_response
from services.gateway.context import context_of
from shared.model.api_keys import Scope
from shared.model.channels import ChannelState, Kind
from shared.runtime.clock import now_ms
from shared.runtime.http.responses import Problem
from shared.wire.pelion.responses import channel_metadata, websocket_channel
from shared.wire.pelion.serialization import wanted_in


async def get_websocket(request: Request) -> Response:
    context = context_of(request)
    key = await context.authenticator.require(request, Scope.RECEIVE)
    state = await context.stores.channels.state(key.id)
    if state is None or state.kind is not Kind.WEBSOCKET:
        raise Problem(404, "no channel has been registered")
    return model_response(websocket_channel(state))


async def put_websocket(request: Request) -> Response:
    """Registers the channel, or changes its serialization; queue and socket stay."""
    context = context_of(request)
    key = await context.authenticator.require(request, Scope.RECEIVE)
    serialization = wanted_in(await body_of(request))
    is_new = await context.stores.channels.create(
        key.account_id, key.id, kind=Kind.WEBSOCKET, now_ms=now_ms(), serialization=serialization
    )
    new = ChannelState(Kind.WEBSOCKET, connected=False, queue_size=0, serialization=serialization)
    state = new if is_new else await context.stores.channels.state(key.id) or new
    return model_response(websocket_channel(state), status=201 if is_new else 200)


async def delete_websocket(request: Request) -> Response:
    context = context_of(request)
    key = await context.authenticator.require(request, Scope.RECEIVE)
    if not await context.stores.channels.delete(key.account_id, key.id, kind=Kind.WEBSOCKET):
        raise Problem(404, "no WebSocket channel has been registered")
    return Response(status_code=204)


async def get_channel(request: Request) -> Response:
    context = context_of(request)
    key = await context.authenticator.require(request, Scope.RECEIVE)
    state = await context.stores.channels.state(key.id)
    if state is None:
        raise Problem(404, "no channel has been registered")
    return model_response(channel_metadata(state.kind))
