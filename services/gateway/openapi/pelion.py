"""/v2: the notification API of the Pelion service, on the gateway and on the edge."""

from services.gateway.openapi.messages import NotificationMessage
from services.gateway.openapi.parts import (
    TEXT,
    Json,
    in_header,
    in_query,
    operation,
    paths,
    request_body,
    response,
    text_response,
)
from shared.wire.pelion.callbacks import RegisterWebhook
from shared.wire.pelion.responses import ChannelMetadata, Webhook, WebsocketChannel
from shared.wire.pelion.serialization import RegisterWebsocketChannel
from shared.wire.pelion.subscriptions import Presubscriptions

_OTHER_KIND = "400 while the API key has a channel of another kind"

_CHANNEL = {
    "GET /v2/notification/websocket": operation(
        "getWebsocket", "Get the WebSocket channel", {200: WebsocketChannel}, errors=(404,)
    ),
    "PUT /v2/notification/websocket": operation(
        "registerWebsocket",
        f"Register the WebSocket channel; {_OTHER_KIND}",
        {200: response("It existed; queue and socket stay.", WebsocketChannel), 201: WebsocketChannel},
        takes=request_body(RegisterWebsocketChannel, required=False),
    ),
    "DELETE /v2/notification/websocket": operation(
        "deleteWebsocket", "Delete the WebSocket channel and its queue", {204: None}, errors=(404,)
    ),
    "GET /v2/notification/websocket-connect": operation(
        "connectWebsocket",
        "Open the WebSocket. The secret is in Authorization or in the subprotocol pelion_{secret}",
        {101: response("The WebSocket is open. Without a channel it closes with a code of its own.")},
        in_header("Sec-WebSocket-Protocol", "wss and pelion_{secret}, in any order."),
        errors=(426, 429, 431),
    ),
    "GET /v2/notification/callback": operation(
        "getCallback", "Get the webhook", {200: Webhook}, errors=(404,)
    ),
    "PUT /v2/notification/callback": operation(
        "registerCallback",
        "Register a URL, in place of an earlier one. It must accept a test request, a PUT of {}, with 200 or "
        f"204, or it gets a 400; {_OTHER_KIND}",
        {204: None},
        errors=(415, 429),
        takes=RegisterWebhook,
    ),
    "DELETE /v2/notification/callback": operation(
        "deleteCallback", "Delete the webhook and its queue", {204: None}, errors=(404,)
    ),
    "GET /v2/notification/pull": operation(
        "pull",
        f"Wait for notifications. The first poll creates the channel; {_OTHER_KIND}",
        {
            200: response("The pending notifications, merged.", NotificationMessage),
            204: response("Nothing arrived in time."),
            409: text_response("Another poll of this API key is open.", "CONCURRENT_PULL_REQUEST_RECEIVED"),
            410: text_response("The channel was deleted meanwhile.", "CHANNEL_DELETED"),
        },
        in_query("noWait", "true: respond at once.", {"type": "boolean"}),
        in_query("after", "Acknowledges up to this uid: X-Last-Uid of the previous response, or nothing."),
    ),
    "DELETE /v2/notification/pull": operation(
        "deletePull",
        "Delete the pull channel and its queue",
        {200: text_response("It is deleted, or did not exist.", "REMOVED", "ALREADY_DELETED")},
    ),
    "GET /v2/notification/channel": operation(
        "getChannel", "Get the kind of the channel", {200: ChannelMetadata}, errors=(404,)
    ),
}
_SUBSCRIPTIONS = {
    "GET /v2/subscriptions": operation(
        "getSubscriptions", "Get the presubscriptions, [] without any", {200: Presubscriptions}
    ),
    "PUT /v2/subscriptions": operation(
        "putSubscriptions",
        "Replace the presubscriptions, in force from the next publish",
        {204: None},
        takes=Presubscriptions,
    ),
    "DELETE /v2/subscriptions": operation("deleteSubscriptions", "Delete the presubscriptions", {204: None}),
    "GET /v2/subscriptions/{device-id}": operation(
        "getDeviceSubscriptions",
        "List the subscribed resources of a device",
        {200: response("One path per line.", {**TEXT, "minLength": 1}, media_type="text/uri-list")},
        errors=(404,),
    ),
    "DELETE /v2/subscriptions/{device-id}": operation(
        "deleteDeviceSubscriptions", "Delete all subscriptions to a device's resources", {204: None}
    ),
    "GET /v2/subscriptions/{device-id}/{resourcePath}": operation(
        "getSubscription",
        "Check the subscription to a resource",
        {200: None, 404: response("There is none.")},
    ),
    "PUT /v2/subscriptions/{device-id}/{resourcePath}": operation(
        "putSubscription", "Subscribe to a resource", {200: None}
    ),
    "DELETE /v2/subscriptions/{device-id}/{resourcePath}": operation(
        "deleteSubscription", "Delete the subscription to a resource", {204: None}
    ),
}

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
            "requestBody": request_body(NotificationMessage),
            "responses": {
                "200": {"description": "Acknowledged."},
                "204": {"description": "Acknowledged."},
                "default": {"description": "The batch is retried; redirects are not followed."},
            },
        }
    }
}

PATHS: Json = {**paths("notification", _CHANNEL), **paths("subscriptions", _SUBSCRIPTIONS)}
