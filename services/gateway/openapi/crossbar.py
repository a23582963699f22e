"""Kazoo: Crossbar, in its own envelopes, and Blackhole's WebSocket."""

from collections.abc import Mapping
from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType

from services.gateway.openapi.parts import (
    TEXT,
    Json,
    error,
    in_header,
    in_query,
    operation,
    paths,
    response,
    schema,
)
from shared.wire.models import Closed, Id

_ERRORS = {
    400: "The body is not a JSON object, or its data is invalid.",
    401: "The token or secret is missing or not valid.",
    403: "The account is neither the caller's own nor below it, or the scope `receive` is missing.",
    404: "There is no such account or socket.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    500: "Internal error; it was logged with the request id.",
    503: "Redis is unreachable or full: retry after Retry-After.",
}


class Socket(Closed):
    """An open socket."""

    bindings: list[str]
    websocket_session_id: Id
    timestamp: Annotated[int, Meta(description="When it was opened, in seconds since the year 0.")]
    destination: Annotated[str, Meta(description="The edge that holds it.")]
    source: Annotated[str, Meta(description="The client's address.")]
    name: str | UnsetType = UNSET
    metadata: Any = UNSET


class AccountOfToken(Struct):
    account_id: Id
    account_name: str


class NewTokenData(Struct):
    api_key: Annotated[str, Meta(min_length=64)]


class NewToken(Struct):
    data: NewTokenData


def _envelope(data: Json, *, status: str = "success", more: Json | None = None) -> Json:
    always: Json = {
        "data": data,
        "status": {"const": status},
        "timestamp": {"type": "string", "format": "date-time"},
        "version": TEXT,
        "node": TEXT,
        "request_id": {"type": "string", "minLength": 1},
        **(more or {}),
    }
    return {
        "type": "object",
        "properties": {**always, "auth_token": {"type": "string", "description": "The caller's token."}},
        "required": list(always),
        "additionalProperties": False,
    }


_ERROR = _envelope(
    {"type": "object"},
    status="error",
    more={"error": {"type": "string", "pattern": "^[45][0-9]{2}$"}, "message": TEXT},
)


def _operation(
    name: str,
    summary: str,
    successes: Mapping[int, Json],
    *,
    errors: tuple[int, ...] = (),
    by: str = "authToken authTokenInQuery apiKey",
    takes: Any = None,
) -> Json:
    statuses = (*errors, 500, *((401, 403, 503) if by else ()))
    in_envelopes = {status: error(status, _ERROR, title=_ERRORS[status]) for status in statuses}
    described = operation(
        name,
        summary,
        {**in_envelopes, **successes},
        in_header("X-Pretty-Print", "`true` for an indented response."),
        in_query("pretty_print", "The same."),
        takes=takes,
        by=by,
    )
    if 400 not in errors:
        del described["responses"]["400"]
    return described


def _success(text: str, model: Any) -> Json:
    return response(text, _envelope(schema(model)))


_SOCKET = {200: _success("The socket.", Socket)}
_SOCKETS = {200: _success("The sockets.", list[Socket])}

PATHS: Json = paths(
    "kazoo",
    {
        "GET /v2/websockets": _operation(
            "listWebsocketBindings",
            "List the bindings that a socket can have",
            {200: _success("By module.", dict[str, list[str]])},
            by="",
        ),
        "GET /v2/websockets/{socket_id}": _operation(
            "getSocketWithoutAccount", "Always forbidden: a socket belongs to an account", {}
        ),
        "GET /v2/accounts/{account_id}/websockets": _operation(
            "listSockets",
            "List the open sockets of an account and of the caller's own",
            _SOCKETS,
            errors=(404,),
        ),
        "GET /v2/accounts/{account_id}/websockets/{socket_id}": _operation(
            "getSocket", "Get an open socket", _SOCKET, errors=(404,)
        ),
        "GET /v2/account/websockets": _operation(
            "listOwnSockets", "List the open sockets of the caller's account", _SOCKETS
        ),
        "GET /v2/account/websockets/{socket_id}": _operation(
            "getOwnSocket", "Get an open socket of the caller's account", _SOCKET, errors=(404,)
        ),
        "GET /socket": operation(
            "openBlackhole",
            "Open a Blackhole WebSocket; every path without another meaning does the same",
            {101: response("The WebSocket is open; the first message authenticates.")},
            errors=(403, 426, 429, 431, 503),
            by="",
        ),
        "PUT /v2/api_auth": _operation(
            "createToken",
            "Exchange an API key's secret for a token of an hour",
            {201: _success("The token, as `auth_token`.", AccountOfToken)},
            errors=(400, 401, 403, 408, 413, 503),
            by="",
            takes=NewToken,
        ),
    },
)
