"""/v2: the notification API of the Pelion service, the edge's part of it too."""

from services.gateway.openapi.parts import (
    Json,
    answer,
    body,
    in_header,
    in_path,
    in_query,
    operation,
    ref,
    tagged,
    word,
)

_OTHER_KIND = "a channel of another kind is a 400"
_DEVICE = in_path("device-id", "The device's name.", {"type": "string", "minLength": 1, "maxLength": 64})
_RESOURCE = in_path(
    "resourcePath",
    "The path, with its slashes as they are or encoded.",
    {"type": "string", "minLength": 1, "maxLength": 127},
)

_CHANNEL: Json = {
    "/v2/notification/websocket": {
        "get": operation(
            "getWebsocket",
            "The WebSocket channel",
            {200: answer("It is there.", ref("WebsocketChannel"))},
            errors=(404,),
        ),
        "put": operation(
            "registerWebsocket",
            f"Registers the WebSocket channel; {_OTHER_KIND}",
            {
                200: answer("It was there; queue and socket stay.", ref("WebsocketChannel")),
                201: answer("It is new.", ref("WebsocketChannel")),
            },
            takes=body(ref("RegisterWebsocketChannel"), required=False),
        ),
        "delete": operation(
            "deleteWebsocket", "Ends it, with its queue", {204: answer("It is gone.")}, errors=(404,)
        ),
    },
    "/v2/notification/websocket-connect": {
        "get": operation(
            "connectWebsocket",
            "Opens the WebSocket. The secret comes in Authorization or as the subprotocol pelion_{secret}",
            {101: answer("The WebSocket is open; a channel that is missing is told by its close code.")},
            errors=(426, 429, 431),
            parameters=(
                in_header(
                    "Sec-WebSocket-Protocol", "wss and pelion_{secret}, in any order.", {"type": "string"}
                ),
            ),
        ),
    },
    "/v2/notification/callback": {
        "get": operation(
            "getCallback", "The webhook", {200: answer("It is there.", ref("Webhook"))}, errors=(404,)
        ),
        "put": operation(
            "registerCallback",
            "Registers a URL that takes a test request, a PUT of {}, with 200 or 204; "
            f"{_OTHER_KIND}, and so is a URL that does not",
            {204: answer("It is registered, in the place of any before it.")},
            errors=(415, 429),
            takes=body(ref("RegisterWebhook")),
        ),
        "delete": operation(
            "deleteCallback", "Ends it, with its queue", {204: answer("It is gone.")}, errors=(404,)
        ),
    },
    "/v2/notification/pull": {
        "get": operation(
            "pull",
            f"Waits for notifications; the first makes the channel. {_OTHER_KIND}",
            {
                200: answer("What waited, merged.", ref("NotificationMessage")),
                204: answer("Nothing came in time."),
                409: word("Another poll of this API key is open.", "CONCURRENT_PULL_REQUEST_RECEIVED"),
                410: word("The channel was deleted meanwhile.", "CHANNEL_DELETED"),
            },
            parameters=(
                in_query("noWait", "true: answer at once.", {"type": "boolean"}),
                in_query("after", "The uid up to which all has been handled.", {"type": "string"}),
            ),
        ),
        "delete": operation(
            "deletePull",
            "Ends it, with its queue",
            {200: word("It is gone, or was not there.", "REMOVED", "ALREADY_DELETED")},
        ),
    },
    "/v2/notification/channel": {
        "get": operation(
            "getChannel",
            "Of which kind the channel is",
            {200: answer("It is there.", ref("ChannelMetadata"))},
            errors=(404,),
        ),
    },
}

_SUBSCRIPTIONS: Json = {
    "/v2/subscriptions": {
        "get": operation(
            "getSubscriptions",
            "The presubscriptions",
            {200: answer("As put, [] without any.", ref("Presubscriptions"))},
        ),
        "put": operation(
            "putSubscriptions",
            "Replaces the presubscriptions",
            {204: answer("The next publish honours them.")},
            takes=body(ref("Presubscriptions")),
        ),
        "delete": operation("deleteSubscriptions", "Removes them all", {204: answer("There are none.")}),
    },
    "/v2/subscriptions/{device-id}": {
        "get": operation(
            "getDeviceSubscriptions",
            "The resources of a device that are subscribed to",
            {200: answer("One path per line.", {"type": "string", "minLength": 1}, of="text/uri-list")},
            errors=(404,),
            parameters=(_DEVICE,),
        ),
        "delete": operation(
            "deleteDeviceSubscriptions",
            "Ends all subscriptions to a device's resources",
            {204: answer("There are none.")},
            parameters=(_DEVICE,),
        ),
    },
    "/v2/subscriptions/{device-id}/{resourcePath}": {
        "get": operation(
            "getSubscription",
            "Whether a resource is subscribed to",
            {200: answer("It is; the body is empty."), 404: answer("It is not; the body is empty.")},
            parameters=(_DEVICE, _RESOURCE),
        ),
        "put": operation(
            "putSubscription",
            "Subscribes to a resource",
            {200: answer("It is subscribed to; the body is empty.")},
            parameters=(_DEVICE, _RESOURCE),
        ),
        "delete": operation(
            "deleteSubscription",
            "Ends the subscription to a resource",
            {204: answer("There is none.")},
            parameters=(_DEVICE, _RESOURCE),
        ),
    },
}

_SIGNED = tuple(
    in_header(name, text, {"type": "string"})
    for name, text in (
        ("webhook-id", "Names the batch: a retry has the same."),
        ("webhook-timestamp", "Seconds since 1970, of this try."),
        ("webhook-signature", "v1, and an HMAC-SHA256 in Base64, as Standard Webhooks says."),
    )
)

WEBHOOKS: Json = {
    "notifications": {
        "put": {
            "operationId": "deliver",
            "summary": "What waits is put to the callback's URL, with the headers of its registration",
            "description": "Before a URL is registered it is sent {} to see whether it takes it.",
            "parameters": list(_SIGNED),
            "requestBody": body(ref("NotificationMessage")),
            "responses": {
                "200": {"description": "It was taken."},
                "204": {"description": "It was taken."},
                "default": {"description": "It was not taken, and comes again; redirects are not followed."},
            },
        }
    }
}

PATHS: Json = {
    **tagged("notification", _CHANNEL),
    **tagged("subscriptions", _SUBSCRIPTIONS),
}
