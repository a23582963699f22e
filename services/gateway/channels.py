"""The REST side of an API key's channel (docs/protocols/pelion.md, section 2)."""

import time

from starlette.requests import Request
from starlette.responses import Response

from services.gateway.bodies import body_of
from services.gateway.context import context_of
from shared.model.api_keys import Scope
from shared.model.channels import ChannelState, Kind
from shared.runtime.http.responses import Problem, json_response
from shared.wire.pelion.answers import channel_metadata, websocket_channel
from shared.wire.pelion.serialization import wanted_in


async def get_websocket(request: Request) -> Response:
    context = context_of(request)
    key = await context.authenticator.require(request, Scope.RECEIVE)
    state = await context.channels.state(key.id)
    if state is None or state.kind is not Kind.WEBSOCKET:
        raise Problem(404, "no channel has been registered")
    return json_response(websocket_channel(state))


async def put_websocket(request: Request) -> Response:
    """Registers the channel, or changes how it wants its notifications; queue and socket stay."""
    context = context_of(request)
    key = await context.authenticator.require(request, Scope.RECEIVE)
    now_ms = time.time_ns() // 1_000_000
    serialization = wanted_in(await body_of(request))
    made = await context.channels.create(
        key.account_id, key.id, kind=Kind.WEBSOCKET, now_ms=now_ms, serialization=serialization
    )
    fresh = ChannelState(Kind.WEBSOCKET, connected=False, queue_size=0, serialization=serialization)
    state = fresh if made else await context.channels.state(key.id) or fresh
    return json_response(websocket_channel(state), status=201 if made else 200)


async def delete_websocket(request: Request) -> Response:
    context = context_of(request)
    key = await context.authenticator.require(request, Scope.RECEIVE)
    if not await context.channels.delete(key.account_id, key.id, kind=Kind.WEBSOCKET):
        raise Problem(404, "there is no WebSocket channel")
    return Response(status_code=204)


async def get_channel(request: Request) -> Response:
    context = context_of(request)
    key = await context.authenticator.require(request, Scope.RECEIVE)
    state = await context.channels.state(key.id)
    if state is None:
        raise Problem(404, "no channel has been registered")
    return json_response(channel_metadata(state.kind))
