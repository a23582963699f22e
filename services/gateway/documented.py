"""What other services serve and send: for the OpenAPI document only."""

from typing import Any

from msgspec import UNSET, Struct, UnsetType

from services.gateway.openapi import (
    COGNISM_CREDENTIALS,
    TEXT,
    in_header,
    in_query,
    request_body,
    response,
    schema,
    text_response,
)
from services.gateway.operations import ANYONE, NATIVE_CLIENT, READER, RECEIVER, Json, Operation
from shared.model.streams import Start
from shared.model.topics import MAX_LENGTH
from shared.wire.models import Closed, Id
from shared.wire.stream_requests import MOST_TOPICS


class DeviceItem(Struct, rename="kebab"):
    ep: str
    original_ep: str | UnsetType = UNSET
    ept: str | UnsetType = UNSET


class NotificationItem(Struct):
    ep: Any
    path: Any


class AsyncResponseItem(Struct):
    id: Any


class EventItem(Struct):
    id: str
    topic: str
    name: str | None
    time: str
    data: Any


class NotificationMessage(Closed, rename="kebab"):
    """The sections that are not empty, each an array of items."""

    async_responses: list[AsyncResponseItem] | UnsetType = UNSET
    registrations: list[DeviceItem] | UnsetType = UNSET
    reg_updates: list[DeviceItem] | UnsetType = UNSET
    de_registrations: list[str | DeviceItem] | UnsetType = UNSET
    registrations_expired: list[str | DeviceItem] | UnsetType = UNSET
    notifications: list[NotificationItem] | UnsetType = UNSET
    events: list[EventItem] | UnsetType = UNSET


_TOPICS: Json = {
    "type": "array",
    "items": {**TEXT, "minLength": 1, "maxLength": MAX_LENGTH},
    "minItems": 1,
    "maxItems": MOST_TOPICS,
}
Operation(
    "GET /v2/notification/websocket-connect",
    RECEIVER,
    name="connectWebsocket",
    summary="Opens the WebSocket. The secret is in Authorization or in the subprotocol pelion_{secret}",
    successes={101: response("The WebSocket is open. Without a channel it closes with a code of its own.")},
    errors=(426, 429, 431),
    parameters=[
        in_header("Sec-WebSocket-Protocol", "wss and pelion_{secret}, in any order."),
        in_query("channel", "A channel of the account, by its id or name, for the scope `channels`."),
    ],
)
Operation(
    "GET /v2/notification/pull",
    RECEIVER,
    name="pull",
    summary="Waits for notifications. The first poll creates the channel. The response is 400 while the API"
    " key has a channel of another kind",
    successes={
        200: response("The pending notifications, merged.", NotificationMessage),
        204: response("Nothing arrived in time."),
        409: text_response("Another poll of this API key is open.", "CONCURRENT_PULL_REQUEST_RECEIVED"),
        410: text_response("The channel was deleted meanwhile.", "CHANNEL_DELETED"),
    },
    parameters=[
        in_query("noWait", "true: respond at once.", {"type": "boolean"}),
        in_query("after", "Acknowledges up to this uid: X-Last-Uid of the previous response, or nothing."),
    ],
)
Operation(
    "DELETE /v2/notification/pull",
    RECEIVER,
    name="deletePull",
    summary="Deletes the pull channel and its queue",
    successes={200: text_response("It is deleted, or did not exist.", "REMOVED", "ALREADY_DELETED")},
)
Operation(
    "GET /v1/stream",
    READER,
    name="readStreams",
    summary="Reads streams as Server-Sent Events, from a place on",
    successes={
        200: response(
            "Events as CloudEvents, until one side ends the response.",
            TEXT,
            media_type="text/event-stream",
            Cache_Control=TEXT,
        )
    },
    errors=(403, 404, 429),
    parameters=[
        in_query("topic", "A topic, exactly; each in a parameter of its own. A ticket has its own.", _TOPICS),
        in_query("from", "Where to begin without an id.", {"enum": [start.value for start in Start]}),
        in_query("last_event_id", "The same as Last-Event-ID, which wins."),
        in_header("Last-Event-ID", "The id of the last event that was handled."),
    ],
)
Operation(
    "GET /v1/socket",
    NATIVE_CLIENT,
    name="openNativeSocket",
    summary="Opens the native WebSocket, of the subprotocol notify.v1. GET /asyncapi.json has its frames",
    successes={101: response("The WebSocket is open. Its first frame is hello.")},
    errors=(426, 431),
    parameters=[
        in_header("Sec-WebSocket-Protocol", "notify.v1, perhaps among others."),
        in_header("Origin", "Of a page: one that NOTIFY_ALLOWED_ORIGINS names, or this host."),
    ],
)
Operation(
    "GET /api/v1/websocket",
    ANYONE,
    name="joinWebsocket",
    summary="Opens a WebSocket that receives the data of each matching event",
    successes={101: response("Its first frame has the session id.", X_Websocket_Session=schema(Id))},
    errors=(401, 403, 426, 429, 431, 503),
    parameters=[
        *COGNISM_CREDENTIALS,
        in_query("pattern", "Flat JSON or a rule; a blank one matches everything."),
    ],
)
Operation(
    "GET /socket",
    ANYONE,
    name="openBlackhole",
    summary="Opens a Blackhole WebSocket; every path without another meaning does the same",
    successes={101: response("The WebSocket is open; the first message authenticates.")},
    errors=(403, 426, 429, 431, 503),
)
Operation(
    "GET /livez", ANYONE, name="live", summary="Checks that it runs", successes={200: text_response("ok")}
)
Operation(
    "GET /readyz",
    ANYONE,
    name="ready",
    summary="Checks that it accepts requests",
    successes={
        200: text_response("ready"),
        503: response("It is shutting down.", TEXT, media_type="text/plain", Retry_After=TEXT),
    },
)
Operation(
    "GET /metrics",
    ANYONE,
    name="metrics",
    summary="Gets the metrics",
    successes={200: text_response("For Prometheus.")},
)
WEBHOOKS: Json = {
    "notifications": {
        "put": {
            "operationId": "deliver",
            "summary": "Pending notifications are sent to the callback's URL, with its registered headers",
            "description": "Before a URL is registered, a test request with the body {} verifies it.",
            "parameters": [
                in_header("webhook-id", "Names the batch; a retry has the same."),
                in_header("webhook-timestamp", "Seconds since 1970, of this attempt."),
                in_header("webhook-signature", "v1 and a Base64 HMAC-SHA256, as in Standard Webhooks."),
            ],
            "requestBody": {**request_body(NotificationMessage), "required": True},
            "responses": {
                "200": {"description": "Acknowledged."},
                "204": {"description": "Acknowledged."},
                "default": {"description": "The batch is retried; redirects are not followed."},
            },
        }
    }
}
