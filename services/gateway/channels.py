"""The REST side of an API key's channel (docs/protocols/pelion.md, section 2)."""

from starlette.requests import Request
from starlette.responses import Response

from services.gateway.bodies import model_response
from services.gateway.context import context_of
from services.gateway.openapi import response
from services.gateway.operations import RECEIVER, Operation
from shared.model.api_keys import ApiKey
from shared.model.channels import ChannelState, Kind
from shared.runtime.clock import now_ms
from shared.runtime.http.responses import Problem
from shared.wire.pelion.responses import (
    ChannelMetadata,
    WebsocketChannel,
    channel_metadata,
    websocket_channel,
)
from shared.wire.pelion.serialization import RegisterWebsocketChannel, stored_form


@Operation("GET /v2/notification/websocket", RECEIVER, errors=(404,))
async def get_websocket(request: Request, key: ApiKey) -> WebsocketChannel:
    """Gets the WebSocket channel."""
    state = await context_of(request).stores.channels.state(key.id)
    if state is None or state.kind is not Kind.WEBSOCKET:
        raise Problem(404, "no channel has been registered")
    return websocket_channel(state)


@Operation(
    "PUT /v2/notification/websocket",
    RECEIVER,
    successes={200: response("It existed.", WebsocketChannel), 201: WebsocketChannel},
)
async def register_websocket(request: Request, key: ApiKey, posted: RegisterWebsocketChannel) -> Response:
    """Registers the WebSocket channel, or changes its serialization; queue and socket stay.

    400 while the API key has a channel of another kind.
    """
    channels = context_of(request).stores.channels
    serialization = stored_form(posted.serialization)
    is_new = await channels.create(
        key.account_id, key.id, kind=Kind.WEBSOCKET, now_ms=now_ms(), serialization=serialization
    )
    new = ChannelState(Kind.WEBSOCKET, connected=False, queue_size=0, serialization=serialization)
    state = new if is_new else await channels.state(key.id) or new
    return model_response(websocket_channel(state), status=201 if is_new else 200)


@Operation("DELETE /v2/notification/websocket", RECEIVER, errors=(404,))
async def delete_websocket(request: Request, key: ApiKey) -> None:
    """Deletes the WebSocket channel and its queue."""
    if not await context_of(request).stores.channels.delete(key.account_id, key.id, kind=Kind.WEBSOCKET):
        raise Problem(404, "no WebSocket channel has been registered")


@Operation("GET /v2/notification/channel", RECEIVER, errors=(404,))
async def get_channel(request: Request, key: ApiKey) -> ChannelMetadata:
    """Gets the kind of the channel."""
    state = await context_of(request).stores.channels.state(key.id)
    if state is None:
        raise Problem(404, "no channel has been registered")
    return channel_metadata(state.kind)
