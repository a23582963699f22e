"""/api/v1: the Cognism dialect, on the gateway and on the edge."""

from services.gateway.openapi.parts import (
    Json,
    in_header,
    in_query,
    operation,
    paths,
    request_body,
    response,
    schema,
)
from services.gateway.session_pushes import PushedBody
from shared.wire.models import Id

_CREDENTIALS = (
    in_header("X-API-AccessToken", "The id of an API key; wins over accessToken."),
    in_header("X-API-SecretKey", "Its secret; wins over secretKey."),
    in_query("accessToken", "The id of an API key."),
    in_query("secretKey", "Its secret."),
)

PATHS: Json = paths(
    "sessions",
    {
        "GET /api/v1/websocket": operation(
            "joinWebsocket",
            "Open a WebSocket that receives the data of each matching event",
            {101: response("Its first frame has the session id.", X_Websocket_Session=schema(Id))},
            *_CREDENTIALS,
            in_query("pattern", "Flat JSON or a rule; a blank one matches everything."),
            errors=(401, 403, 426, 429, 431, 503),
            by="",
        ),
        "POST /api/v1/websocket/session": operation(
            "pushToSession",
            "Send the body to one socket, unchanged. Credentials are optional, but wrong ones are refused",
            {200: response("The socket's edge has sent it.", PushedBody)},
            {**in_query("session", "The id in the socket's first frame."), "required": True},
            *_CREDENTIALS,
            errors=(401, 404, 406, 503),
            takes=request_body({"description": "Any JSON, of at most 64 KiB."}),
            by="",
        ),
    },
)
