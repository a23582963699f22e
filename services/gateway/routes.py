"""The table of routes: who may call each operation, what serves it, and what the OpenAPI document says of it.

The document has the operations of the edge and of every process too; they have no handler here.
"""

from collections.abc import Sequence
from typing import Annotated, Any

import orjson
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from services.gateway import (
    accounts,
    api_keys,
    bindings,
    callbacks,
    channel_views,
    channels,
    crossbar,
    receipts,
    resources,
    session_pushes,
)
from services.gateway.documented_models import AccountOfToken, NewToken, NotificationMessage, Socket
from services.gateway.openapi import (
    TEXT,
    document,
    in_header,
    in_query,
    request_body,
    response,
    schema,
    text_response,
)
from services.gateway.operations import (
    ADMIN,
    ANYONE,
    KAZOO_TOKEN,
    KEY_IN_PATH,
    OPERATOR,
    PUBLISHER,
    RECEIVER,
    Json,
    Operation,
)
from services.gateway.publish import publish
from shared.wire.channels import SigningSecretBody
from shared.wire.events import MAX_EVENTS, NewEvent, PublishedBody
from shared.wire.models import Id
from shared.wire.pelion.callbacks import RegisterWebhook
from shared.wire.pelion.responses import WebsocketChannel
from shared.wire.pelion.subscriptions import Presubscriptions
from shared.wire.topic_bindings import Topics

PUBLISH_PATH = "/v1/events"
_LINES: Json = {"type": "string", "description": "One event a line, as JSON."}
_COGNISM_CREDENTIALS = (
    in_header("X-API-AccessToken", "The id of an API key; wins over accessToken."),
    in_header("X-API-SecretKey", "Its secret; wins over secretKey."),
    in_query("accessToken", "The id of an API key."),
    in_query("secretKey", "Its secret."),
)


async def get_document(_: Request, __: None) -> Response:
    """Gets this document."""
    return Response(_DOCUMENT, media_type="application/json", headers={"cache-control": "no-cache"})


_ACCOUNTS = (
    Operation("POST /v1/accounts", accounts.create_account, OPERATOR, status=201),
    Operation(
        "GET /v1/accounts/{account_id}/api-keys",
        api_keys.list_api_keys,
        ADMIN,
        parameters=[in_query("after", "List from after this id.", schema(Id))],
    ),
    Operation(
        "POST /v1/accounts/{account_id}/api-keys", api_keys.create_api_key, ADMIN, status=201, errors=(404,)
    ),
    Operation("GET /v1/api-keys/{api_key_id}", api_keys.get_api_key, ADMIN),
    Operation("DELETE /v1/api-keys/{api_key_id}", api_keys.delete_api_key, ADMIN),
    Operation(
        "POST /v1/api-keys/{api_key_id}/secrets", api_keys.rotate_api_key, ADMIN, status=201, errors=(409,)
    ),
)
_EVENTS = (
    Operation(
        f"POST {PUBLISH_PATH}",
        publish,
        PUBLISHER,
        successes={202: response("Accepted.", PublishedBody, Idempotent_Replayed={"const": "true"})},
        errors=(409, 422),
        body=request_body(
            NewEvent | Annotated[list[NewEvent], Meta(min_length=1, max_length=MAX_EVENTS)],
            **{"application/x-ndjson": _LINES, "application/ndjson": _LINES},
        ),
        parameters=[
            in_header(
                "Idempotency-Key",
                "Repetitions under the same key get the first response; the events are published once.",
                {**TEXT, "minLength": 1, "maxLength": 255, "pattern": "^[!#-~][ -~]*$"},
            ),
            in_header("traceparent", "W3C trace context."),
        ],
    ),
    # The publisher's event ids may contain slashes.
    Operation(
        "GET /v1/events/{event_id}",
        receipts.get_receipt,
        PUBLISHER,
        errors=(404,),
        pattern="/v1/events/{event_id:path}",
    ),
    Operation("GET /v1/bindings", bindings.get_bindings, RECEIVER, successes={200: Topics}),
    Operation("PUT /v1/bindings", bindings.put_bindings, RECEIVER),
    Operation("DELETE /v1/bindings", bindings.delete_bindings, RECEIVER),
)
_CHANNELS = (
    Operation("GET /v1/channels/{api_key_id}", channel_views.get_channel_state, KEY_IN_PATH),
    Operation(
        "GET /v1/channels/{api_key_id}/signing-secret",
        channel_views.get_signing_secret,
        KEY_IN_PATH,
        successes={
            200: response("As in Standard Webhooks.", SigningSecretBody, Cache_Control={"const": "no-store"})
        },
    ),
    Operation("GET /v1/channels/{api_key_id}/deliveries", channel_views.get_deliveries, KEY_IN_PATH),
    Operation(
        "POST /v1/channels/{api_key_id}/deliveries/retry",
        channel_views.retry_deliveries,
        KEY_IN_PATH,
        status=202,
    ),
)
_NOTIFICATION = (
    Operation("GET /v2/notification/websocket", channels.get_websocket, RECEIVER, errors=(404,)),
    Operation(
        "PUT /v2/notification/websocket",
        channels.register_websocket,
        RECEIVER,
        successes={200: response("It existed.", WebsocketChannel), 201: WebsocketChannel},
    ),
    Operation("DELETE /v2/notification/websocket", channels.delete_websocket, RECEIVER, errors=(404,)),
    Operation(
        "GET /v2/notification/websocket-connect",
        None,
        RECEIVER,
        name="connectWebsocket",
        summary="Opens the WebSocket. The secret is in Authorization or in the subprotocol pelion_{secret}",
        successes={
            101: response("The WebSocket is open. Without a channel it closes with a code of its own.")
        },
        errors=(426, 429, 431),
        parameters=[in_header("Sec-WebSocket-Protocol", "wss and pelion_{secret}, in any order.")],
    ),
    Operation("GET /v2/notification/callback", callbacks.get_callback, RECEIVER, errors=(404,)),
    Operation(
        "PUT /v2/notification/callback",
        callbacks.register_callback,
        RECEIVER,
        errors=(415, 429),
        body=RegisterWebhook,
    ),
    Operation("DELETE /v2/notification/callback", callbacks.delete_callback, RECEIVER, errors=(404,)),
    Operation(
        "GET /v2/notification/pull",
        None,
        RECEIVER,
        name="pull",
        summary="Waits for notifications. The first poll creates the channel; 400 while the API key has a"
        " channel of another kind",
        successes={
            200: response("The pending notifications, merged.", NotificationMessage),
            204: response("Nothing arrived in time."),
            409: text_response("Another poll of this API key is open.", "CONCURRENT_PULL_REQUEST_RECEIVED"),
            410: text_response("The channel was deleted meanwhile.", "CHANNEL_DELETED"),
        },
        parameters=[
            in_query("noWait", "true: respond at once.", {"type": "boolean"}),
            in_query(
                "after", "Acknowledges up to this uid: X-Last-Uid of the previous response, or nothing."
            ),
        ],
    ),
    Operation(
        "DELETE /v2/notification/pull",
        None,
        RECEIVER,
        name="deletePull",
        summary="Deletes the pull channel and its queue",
        successes={200: text_response("It is deleted, or did not exist.", "REMOVED", "ALREADY_DELETED")},
    ),
    Operation("GET /v2/notification/channel", channels.get_channel, RECEIVER, errors=(404,)),
)
_SUBSCRIPTIONS = (
    Operation(
        "GET /v2/subscriptions", bindings.get_subscriptions, RECEIVER, successes={200: Presubscriptions}
    ),
    Operation("PUT /v2/subscriptions", bindings.put_subscriptions, RECEIVER),
    Operation("DELETE /v2/subscriptions", bindings.delete_subscriptions, RECEIVER),
    Operation(
        "GET /v2/subscriptions/{device-id}",
        resources.get_device_subscriptions,
        RECEIVER,
        successes={200: response("One path per line.", {**TEXT, "minLength": 1}, media_type="text/uri-list")},
        errors=(404,),
        pattern=f"{resources.PREFIX}{{rest:device}}",
    ),
    Operation(
        "DELETE /v2/subscriptions/{device-id}",
        resources.delete_device_subscriptions,
        RECEIVER,
        pattern=f"{resources.PREFIX}{{rest:device}}",
    ),
    # The routes of the two rows above serve these paths too.
    Operation(
        "GET /v2/subscriptions/{device-id}/{resourcePath}",
        None,
        RECEIVER,
        name="getSubscription",
        summary="Checks the subscription to a resource",
        successes={200: None, 404: response("There is none.")},
    ),
    Operation(
        "DELETE /v2/subscriptions/{device-id}/{resourcePath}",
        None,
        RECEIVER,
        name="deleteSubscription",
        summary="Deletes the subscription to a resource",
        successes={204: None},
    ),
    Operation(
        "PUT /v2/subscriptions/{device-id}/{resourcePath}",
        resources.put_subscription,
        RECEIVER,
        successes={200: None},
        pattern=f"{resources.PREFIX}{{rest:resource}}",
    ),
)
_SESSIONS = (
    Operation(
        "GET /api/v1/websocket",
        None,
        ANYONE,
        name="joinWebsocket",
        summary="Opens a WebSocket that receives the data of each matching event",
        successes={101: response("Its first frame has the session id.", X_Websocket_Session=schema(Id))},
        errors=(401, 403, 426, 429, 431, 503),
        parameters=[
            *_COGNISM_CREDENTIALS,
            in_query("pattern", "Flat JSON or a rule; a blank one matches everything."),
        ],
    ),
    Operation(
        "POST /api/v1/websocket/session",
        session_pushes.push_to_session,
        ANYONE,
        errors=(401, 404, 406, 503),
        body=request_body({"description": "Any JSON, of at most 64 KiB."}),
        parameters=[
            {**in_query("session", "The id in the socket's first frame."), "required": True},
            *_COGNISM_CREDENTIALS,
        ],
    ),
)
_KAZOO = (
    Operation(
        "GET /v2/websockets", crossbar.list_websocket_bindings, ANYONE, successes={200: dict[str, list[str]]}
    ),
    Operation("GET /v2/websockets/{socket_id}", crossbar.get_socket_without_account, KAZOO_TOKEN),
    Operation(
        "GET /v2/accounts/{account_id}/websockets",
        crossbar.list_sockets,
        KAZOO_TOKEN,
        successes={200: list[Socket]},
        errors=(404,),
    ),
    Operation(
        "GET /v2/accounts/{account_id}/websockets/{socket_id}",
        crossbar.get_socket,
        KAZOO_TOKEN,
        successes={200: Socket},
        errors=(404,),
    ),
    Operation(
        "GET /v2/account/websockets",
        crossbar.list_sockets,
        KAZOO_TOKEN,
        name="listOwnSockets",
        summary="Lists the open sockets of the caller's account",
        successes={200: list[Socket]},
    ),
    Operation(
        "GET /v2/account/websockets/{socket_id}",
        crossbar.get_socket,
        KAZOO_TOKEN,
        name="getOwnSocket",
        summary="Gets an open socket of the caller's account",
        successes={200: Socket},
        errors=(404,),
    ),
    Operation(
        "GET /socket",
        None,
        ANYONE,
        name="openBlackhole",
        summary="Opens a Blackhole WebSocket; every path without another meaning does the same",
        successes={101: response("The WebSocket is open; the first message authenticates.")},
        errors=(403, 426, 429, 431, 503),
    ),
    Operation(
        "PUT /v2/api_auth",
        crossbar.create_token,
        ANYONE,
        successes={201: AccountOfToken},
        errors=(400, 401, 403, 503),
        body=NewToken,
    ),
)
_PROCESS = (
    Operation(
        "GET /livez",
        None,
        ANYONE,
        name="live",
        summary="Checks that it runs",
        successes={200: text_response("ok")},
    ),
    Operation(
        "GET /readyz",
        None,
        ANYONE,
        name="ready",
        summary="Checks that it accepts requests",
        successes={
            200: text_response("ready"),
            503: response("It is shutting down.", TEXT, media_type="text/plain", Retry_After=TEXT),
        },
    ),
    Operation(
        "GET /metrics",
        None,
        ANYONE,
        name="metrics",
        summary="Gets the metrics",
        successes={200: text_response("For Prometheus.")},
    ),
    Operation(
        "GET /openapi.json", get_document, ANYONE, name="document", successes={200: {"type": "object"}}
    ),
)
OPERATIONS: dict[str, Sequence[Operation[Any]]] = {
    "accounts": _ACCOUNTS,
    "events": _EVENTS,
    "channels": _CHANNELS,
    "notification": _NOTIFICATION,
    "subscriptions": _SUBSCRIPTIONS,
    "sessions": _SESSIONS,
    "kazoo": _KAZOO,
    "operations": _PROCESS,
}
DOCUMENT = document(OPERATIONS)
_DOCUMENT = orjson.dumps(DOCUMENT)
