"""/api/v1: the Cognism dialect, the edge's part of it too."""

from services.gateway.openapi.parts import (
    Json,
    answer,
    body,
    closed,
    in_header,
    in_query,
    operation,
    tagged,
)
from services.gateway.openapi.schemas import ID

_TEXT: Json = {"type": "string"}
_CREDENTIALS = (
    in_header("X-API-AccessToken", "The id of an API key; wins over accessToken.", _TEXT),
    in_header("X-API-SecretKey", "Its secret; wins over secretKey.", _TEXT),
    in_query("accessToken", "The id of an API key.", _TEXT),
    in_query("secretKey", "Its secret.", _TEXT),
)

_SESSIONS: Json = {
    "/api/v1/websocket": {
        "get": operation(
            "joinWebsocket",
            "Opens a WebSocket that is sent each matching event's data. Credentials come by header or query",
            {
                101: answer(
                    "The WebSocket is open; its first frame tells the session.",
                    headers={"X-Websocket-Session": ID},
                )
            },
            errors=(401, 403, 426, 429, 431, 503),
            parameters=(
                *_CREDENTIALS,
                in_query("pattern", "What is wanted, as flat JSON or as a rule; everything if blank.", _TEXT),
            ),
            by="",
        ),
    },
    "/api/v1/websocket/session": {
        "post": operation(
            "pushToSession",
            "Sends the body to one socket as it is. Credentials need not come; those that do must be right",
            {
                200: answer(
                    "The socket's edge has sent it.", closed({"session": ID, "delivered": {"const": True}})
                )
            },
            errors=(401, 404, 406, 503),
            takes=body({"description": "Any JSON, of at most 64 KiB."}),
            parameters=(
                {**in_query("session", "As the socket's first frame told it.", _TEXT), "required": True},
                *_CREDENTIALS,
            ),
            by="",
        ),
    },
}

PATHS: Json = tagged("sessions", _SESSIONS)
