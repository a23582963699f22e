"""Kazoo: Crossbar, in its own envelopes, and Blackhole's WebSocket."""

from collections.abc import Mapping

from services.gateway.openapi.parts import (
    Json,
    answer,
    array,
    body,
    in_header,
    in_path,
    in_query,
    operation,
    tagged,
)
from services.gateway.openapi.schemas import ID

_TEXT: Json = {"type": "string"}
_OBJECT: Json = {"type": "object"}
_TITLES = {
    400: "The body is no JSON object, or its data is not in order.",
    401: "The token or secret is missing or not valid.",
    403: "It may not see this: the account is neither its own nor below it.",
    404: "There is no such account or socket.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    500: "Something went wrong here, and was logged.",
    503: "Redis is away or full: try again after Retry-After.",
}
_SOCKET: Json = {
    "type": "object",
    "properties": {
        "bindings": array(_TEXT),
        "websocket_session_id": ID,
        "timestamp": {"type": "integer", "description": "When it was opened, in seconds since the year 0."},
        "destination": {"type": "string", "description": "The edge that holds it."},
        "source": {"type": "string", "description": "The client's address."},
        "name": _TEXT,
        "metadata": {},
    },
    "required": ["bindings", "websocket_session_id", "timestamp", "destination", "source"],
    "additionalProperties": False,
}
_ACCOUNT_OF_TOKEN: Json = {
    "type": "object",
    "properties": {"account_id": ID, "account_name": _TEXT},
    "required": ["account_id", "account_name"],
}


def _envelope(data: Json, *, status: str, more: Json | None = None) -> Json:
    always: Json = {
        "data": data,
        "status": {"const": status},
        "timestamp": {"type": "string", "format": "date-time"},
        "version": _TEXT,
        "node": _TEXT,
        "request_id": {"type": "string", "minLength": 1},
        **(more or {}),
    }
    return {
        "type": "object",
        "properties": {**always, "auth_token": {"type": "string", "description": "The token that was sent."}},
        "required": list(always),
        "additionalProperties": False,
    }


_ERROR = _envelope(
    _OBJECT, status="error", more={"error": {"type": "string", "pattern": "^[45][0-9]{2}$"}, "message": _TEXT}
)


def _problem(status: int) -> Json:
    headers = {"Retry-After": _TEXT} if status == 503 else {}
    return answer(_TITLES[status], _ERROR, headers=headers)


def _operation(
    name: str,
    summary: str,
    answers: Mapping[int, Json],
    *,
    errors: tuple[int, ...] = (),
    parameters: tuple[Json, ...] = (),
    proven: bool = True,
    takes: Json | None = None,
) -> Json:
    statuses = {*errors, 500, *((401, 403, 503) if proven else ())} - answers.keys()
    responses = {**answers, **{status: _problem(status) for status in statuses}}
    return {
        "operationId": name,
        "summary": summary,
        "security": [{"authToken": []}, {"authTokenInQuery": []}, {"apiKey": []}] if proven else [],
        "parameters": [
            *parameters,
            in_header("X-Pretty-Print", "`true` for an answer to be read by people.", _TEXT),
            in_query("pretty_print", "The same.", _TEXT),
        ],
        **({"requestBody": takes} if takes else {}),
        "responses": {str(status): responses[status] for status in sorted(responses)},
    }


_ACCOUNT = in_path("account_id", "The account's id: one's own, or one below it.", _TEXT)
_SOCKET_ID = in_path("socket_id", "The socket's `websocket_session_id`.", _TEXT)
_ONE = {200: answer("The socket.", _envelope(_SOCKET, status="success"))}
_ALL = {200: answer("The sockets.", _envelope(array(_SOCKET), status="success"))}

PATHS: Json = tagged(
    "kazoo",
    {
        "/v2/websockets": {
            "get": _operation(
                "listWebsocketBindings",
                "All that a socket can be bound to",
                {
                    200: answer(
                        "Bindings by module.",
                        _envelope({"type": "object", "additionalProperties": array(_TEXT)}, status="success"),
                    )
                },
                proven=False,
            )
        },
        "/v2/websockets/{socket_id}": {
            "get": _operation(
                "getSocketWithoutAccount", "Never: a socket is an account's", {}, parameters=(_SOCKET_ID,)
            )
        },
        "/v2/accounts/{account_id}/websockets": {
            "get": _operation(
                "listSockets",
                "The open sockets of an account, and of the caller's own",
                _ALL,
                errors=(404,),
                parameters=(_ACCOUNT,),
            )
        },
        "/v2/accounts/{account_id}/websockets/{socket_id}": {
            "get": _operation(
                "getSocket", "One open socket", _ONE, errors=(404,), parameters=(_ACCOUNT, _SOCKET_ID)
            )
        },
        "/v2/account/websockets": {
            "get": _operation("listOwnSockets", "The open sockets of the caller's account", _ALL)
        },
        "/v2/account/websockets/{socket_id}": {
            "get": _operation(
                "getOwnSocket",
                "One open socket of the caller's account",
                _ONE,
                errors=(404,),
                parameters=(_SOCKET_ID,),
            )
        },
        "/socket": {
            "get": operation(
                "openBlackhole",
                "Opens a Blackhole WebSocket, as any path does that is nobody else's",
                {101: answer("The WebSocket is open; the first message proves who it is.")},
                errors=(403, 426, 429, 431, 503),
                by="",
            )
        },
        "/v2/api_auth": {
            "put": _operation(
                "createToken",
                "A token of an hour for an API key's secret",
                {201: answer("The token, as `auth_token`.", _envelope(_ACCOUNT_OF_TOKEN, status="success"))},
                errors=(400, 401, 403, 408, 413, 503),
                proven=False,
                takes=body(
                    {
                        "type": "object",
                        "properties": {
                            "data": {
                                "type": "object",
                                "properties": {"api_key": {"type": "string", "minLength": 64}},
                                "required": ["api_key"],
                            }
                        },
                        "required": ["data"],
                    }
                ),
            )
        },
    },
)
