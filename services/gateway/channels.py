"""An API key's channel: Pelion's REST side (/v2/notification), and our own view of any kind (/v1/channels).

docs/protocols/pelion.md, sections 2 and 8; docs/protocols/channels.md.
"""

from functools import partial

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from services.gateway.bodies import body_in, model_response
from services.gateway.context import Context, context_of
from services.gateway.endpoint_verification import disconnected
from services.gateway.openapi import response
from services.gateway.operations import RECEIVER, Operation
from shared.model.api_keys import ApiKey
from shared.model.callbacks import Callback, callback
from shared.model.channels import ChannelState, Kind
from shared.model.errors import KindConflict
from shared.model.signing_secrets import new_secret
from shared.runtime.http.responses import Problem
from shared.wire.pelion.channels import (
    CHANNEL_METADATA,
    ChannelMetadata,
    RegisterWebhook,
    Webhook,
    WebsocketChannel,
    is_json,
    webhook,
    websocket_channel,
)
from shared.wire.pelion.serialization import RegisterWebsocketChannel, stored_form

_REGISTRATION = msgspec.json.Decoder(RegisterWebhook)
_REASONS = {
    "address-refused": "address-refused: the host has a private or reserved address"
    " (NOTIFY_ALLOW_PRIVATE_CALLBACKS permits networks, for local tests)",
    "not-resolved": "not-resolved: DNS has no address of the host",
    "not-connected": "not-connected: the host accepts no connection",
    "tls-failed": "tls-failed: the certificate must be valid for the host",
    "closed": "closed: the connection was closed before a response",
    "timed-out": "timed-out: no response in time",
}


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

    The response is 400 while the API key has a channel of another kind.
    """
    channels = context_of(request).stores.channels
    serialization = stored_form(posted.serialization)
    is_new = await channels.create(key.account_id, key.id, kind=Kind.WEBSOCKET, serialization=serialization)
    new = ChannelState(Kind.WEBSOCKET, connected=False, pending=0, serialization=serialization)
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
    return CHANNEL_METADATA[state.kind]


@Operation("GET /v2/notification/callback", RECEIVER, errors=(404,))
async def get_callback(request: Request, key: ApiKey) -> Webhook:
    """Gets the webhook."""
    channels = context_of(request).stores.channels
    state = await channels.state(key.id)
    registered = await channels.callback(key.id)
    if state is None or registered is None:
        raise Problem(404, "no callback has been registered")
    return webhook(registered, state.serialization)


@Operation("PUT /v2/notification/callback", RECEIVER, errors=(415, 429), body=RegisterWebhook)
async def register_callback(request: Request, key: ApiKey) -> None:
    """Registers a URL, in place of an earlier one.

    It must accept a test request, a PUT of {}, with 200 or 204. The response is 400 if it does not, and while
    the API key has a channel of another kind.
    """
    context = context_of(request)
    if not is_json(request.headers.get("content-type", "")):
        fields = [("Content-Type", "must be application/json")]
        raise Problem(415, "the Content-Type must be application/json", fields=fields)
    posted = await body_in(request, _REGISTRATION)
    wanted, serialization = callback(posted.url, posted.headers or {}), stored_form(posted.serialization)
    await _check_kind(context, key.id)
    await _verify(request, key, wanted)
    await context.stores.channels.put_webhook(key.account_id, key.id, wanted, serialization=serialization)


@Operation("DELETE /v2/notification/callback", RECEIVER, errors=(404,))
async def delete_callback(request: Request, key: ApiKey) -> None:
    """Deletes the webhook and its queue."""
    if not await context_of(request).stores.channels.delete(key.account_id, key.id, kind=Kind.WEBHOOK):
        raise Problem(404, "no callback has been registered")


async def _check_kind(context: Context, api_key_id: str) -> None:
    """Spares the URL a test request that cannot succeed. `put_webhook` checks again, atomically."""
    state = await context.stores.channels.state(api_key_id)
    if state is not None and state.kind is not Kind.WEBHOOK:
        raise KindConflict(existing=state.kind)


async def _verify(request: Request, key: ApiKey, callback: Callback) -> None:
    context = context_of(request)
    secrets = await context.stores.signing_secrets.made(key.id, offered=new_secret())
    attempt = await context.endpoint_verifier.verify(
        key,
        callback,
        signing_secrets=[each.text for each in secrets],
        disconnected=partial(disconnected, request),
    )
    if not attempt.accepted:
        why = f"the response was {attempt.status}, not 200 or 204"
        message = f"the test request failed: {_REASONS.get(attempt.error, attempt.error) or why}"
        raise Problem(400, f"url: {message}", fields=[("url", message)])
