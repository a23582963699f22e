"""The OpenAPI document, from the operations and the models of their bodies."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
import orjson
from msgspec import Meta
from starlette.responses import Response

from services.gateway.bodies import is_optional
from services.gateway.crossbar import is_crossbar_path
from services.gateway.operations import OPERATIONS, Json, Operation
from shared.version import VERSION
from shared.wire.models import Closed

TEXT: Json = {"type": "string"}
_COMPONENTS: Json = {}
"""The schema of each model that `schema` has seen, by name."""

_TITLES = {
    101: "The WebSocket is open.",
    200: "OK.",
    201: "Created.",
    202: "Accepted.",
    204: "Done; there is no body.",
    400: "The request is malformed, or breaks a rule that the message names.",
    401: "The secret is missing, malformed, unknown, expired or revoked.",
    403: "The API key lacks the scope that this needs.",
    404: "There is no such thing.",
    406: "The body is not JSON.",
    408: "The body did not arrive in time.",
    409: "It conflicts with the present state.",
    413: "The body, or something in it, is too large.",
    415: "The Content-Type must be JSON.",
    422: "This Idempotency-Key belongs to another request.",
    426: "This is a WebSocket: an upgrade is needed.",
    429: "Too many of these at once, or a quota is used up: retry after Retry-After, if it is given.",
    431: "The path or a header is too long, or there are too many headers.",
    500: "Internal error; it was logged with the request id.",
    503: "Redis is unreachable or full, or this replica is shutting down: retry after Retry-After.",
}
_CROSSBAR_TITLES = {
    400: "The body is not a JSON object, or its data is invalid.",
    401: "The token or secret is missing or not valid.",
    403: "The account is neither the caller's own nor below it, or the scope `receive` is missing.",
    404: "There is no such account or socket.",
}
# By the beginning of a path; the first that fits.
_TAGS = {
    "/v1/accounts": "accounts",
    "/v1/api-keys": "accounts",
    "/v1/channels": "channels",
    "/v1/sockets": "tokens",
    "/v1/tickets": "tokens",
    "/v1/token": "tokens",
    "/v1/": "events",
    "/v2/notification": "notification",
    "/v2/subscriptions": "subscriptions",
    "/v2/": "kazoo",
    "/socket": "kazoo",
    "/api/": "sessions",
    "/": "operations",
}
_IN_PATH = {
    "account_id": ("The account's id.", TEXT),
    "api_key_id": ("The API key's id.", TEXT),
    "channel": ("A channel, by its id or name, percent-encoded, or an API key, by its id.", TEXT),
    "delivery": ("The attempt's id.", TEXT),
    "kid": ("A token key's id.", TEXT),
    "event_id": ("The event's id, percent-encoded.", TEXT),
    "secret": ("A signing secret's id.", TEXT),
    "topic": ("The topic, percent-encoded.", TEXT),
    "socket_id": ("The socket's `websocket_session_id`.", TEXT),
    "device-id": ("The device's name.", {**TEXT, "minLength": 1, "maxLength": 64}),
    "resourcePath": ("The path; its slashes may be encoded.", {**TEXT, "minLength": 1, "maxLength": 127}),
}
SECURITY_SCHEMES = {
    "apiKey": {"type": "http", "scheme": "bearer", "description": "The secret of an API key."},
    "token": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "A token of the account.",
    },
    "ticket": {"type": "apiKey", "in": "query", "name": "ticket", "description": "Of POST /v1/tickets."},
    "authToken": {"type": "apiKey", "in": "header", "name": "X-Auth-Token"},
    "authTokenInQuery": {"type": "apiKey", "in": "query", "name": "auth_token"},
    "adminToken": {"type": "http", "scheme": "bearer", "description": "The operator's token."},
}


class ErrorField(Closed):
    name: str
    message: str


class Error(Closed):
    object: Literal["error"]
    code: Annotated[int, Meta(ge=400, le=599)]
    type: Annotated[str, Meta(examples=["validation_error", "invalid_auth"])]
    message: Annotated[str, Meta(min_length=1)]
    fields: list[ErrorField]
    request_id: Annotated[str, Meta(min_length=1)]


def document(webhooks: Json) -> Json:
    """The document of all operations."""
    paths: Json = {}
    for operation in OPERATIONS:
        method, path = operation.at.split()
        paths.setdefault(path, {})[method.lower()] = _described(operation, path)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Notification gateway",
            "version": VERSION,
            "description": "Publishing by /v1; receiving by the notification API of the Pelion service, /v2.",
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "webhooks": webhooks,
        "components": {"schemas": _COMPONENTS, "securitySchemes": SECURITY_SCHEMES},
    }


def schema(model: Any) -> Json:
    """The schema of a model: a reference where it is an object. A dict is a schema already."""
    if isinstance(model, dict):
        return model
    [of_model], components = msgspec.json.schema_components(
        [model], ref_template="#/components/schemas/{name}"
    )
    _COMPONENTS.update(published(components))
    return published(of_model)


def response(text: str, model: Any = None, *, media_type: str = "application/json", **headers: Json) -> Json:
    """A response; without a model it has no body. Headers are named with `_` for `-`."""
    content = {} if model is None else {"content": {media_type: {"schema": schema(model)}}}
    named = {"X-Request-Id": TEXT} | {name.replace("_", "-"): of for name, of in headers.items()}
    return {"description": text, "headers": {name: {"schema": of} for name, of in named.items()}, **content}


def text_response(text: str, *words: str) -> Json:
    """A response of plain text: one of the words, if there are any."""
    return response(text, {**TEXT, "enum": list(words)} if words else TEXT, media_type="text/plain")


def request_body(model: Any, **others: Json) -> Json:
    """A JSON body; `others` are schemas by other media types."""
    content = {"application/json": schema(model), **others}
    return {
        "required": not is_optional(model),
        "content": {name: {"schema": of} for name, of in content.items()},
    }


def in_query(name: str, text: str, of: Json = TEXT) -> Json:
    return _parameter("query", name, text, of)


def in_header(name: str, text: str, of: Json = TEXT) -> Json:
    return _parameter("header", name, text, of)


def _parameter(where: str, name: str, text: str, of: Json) -> Json:
    return {"name": name, "in": where, "required": where == "path", "description": text, "schema": of}


def _described(operation: Operation[Any], path: str) -> Json:
    in_path = [_parameter("path", name, *_IN_PATH[name]) for name in re.findall(r"{(.*?)}", path)]
    body = operation.body or operation.types.get("posted")
    described = {
        "operationId": operation.name or _camel_case(getattr(operation.handler, "__name__", "")),
        "summary": operation.summary or " ".join((operation.handler.__doc__ or "").split()).removesuffix("."),
        "tags": [next(tag for prefix, tag in _TAGS.items() if path.startswith(prefix))],
        "security": [{scheme: []} for scheme in operation.by.schemes],
        "parameters": [*in_path, *operation.parameters, *(_PRETTY_PRINT if is_crossbar_path(path) else ())],
        "responses": _responses(operation, in_crossbar=is_crossbar_path(path), has_body=bool(body)),
    }
    if body:
        described["requestBody"] = body if isinstance(body, dict) else request_body(body)
    return described


def _camel_case(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(map(str.capitalize, others))


def _responses(operation: Operation[Any], *, in_crossbar: bool, has_body: bool) -> Json:
    """The errors that any such operation may have, its own, and its successes."""
    errors = {500, *operation.errors, *operation.by.errors, *((408, 413) if has_body else ())}
    if not in_crossbar:
        errors.add(400)
    titles = {**_TITLES, **_CROSSBAR_TITLES} if in_crossbar else _TITLES
    responses = {status: _error(status, titles[status], in_crossbar=in_crossbar) for status in errors}
    for status, success in _successes(operation).items():
        if isinstance(success, dict) and "description" in success:
            responses[status] = success
        else:
            model = _envelope(schema(success)) if in_crossbar else success
            responses[status] = response(titles[status], model)
    return {str(status): responses[status] for status in sorted(responses)}


def _error(status: int, title: str, *, in_crossbar: bool) -> Json:
    headers: dict[str, Any] = {"Retry_After": TEXT} if status in (429, 503) else {}
    return response(title, _CROSSBAR_ERROR if in_crossbar else Error, **headers)


def _successes(operation: Operation[Any]) -> Mapping[int, Any]:
    """Models or responses by status."""
    returned = operation.types.get("return", Response)
    if operation.successes is not None or returned is Response:
        return operation.successes or {}
    if returned is type(None):
        return {operation.status or 204: None}
    return {operation.status or 200: returned}


def published(schemas: Json) -> Json:
    """With ECMAScript's `$` for Python's `\\Z`, and without the suffix that our response models have."""
    text = orjson.dumps(schemas).replace(b'\\\\Z"', b'$"').replace(b'Body"', b'"')
    published: Json = orjson.loads(text)
    return published


def _envelope(data: Json, *, status: str = "success", **more: Json) -> Json:
    """Crossbar's envelope around its data."""
    always: Json = {
        "data": data,
        "status": {"const": status},
        "timestamp": {"type": "string", "format": "date-time"},
        "version": TEXT,
        "node": TEXT,
        "request_id": {"type": "string", "minLength": 1},
        **more,
    }
    return {
        "type": "object",
        "properties": {**always, "auth_token": {"type": "string", "description": "The caller's token."}},
        "required": list(always),
        "additionalProperties": False,
    }


_CROSSBAR_ERROR = _envelope(
    {"type": "object"}, status="error", error={"type": "string", "pattern": "^[45][0-9]{2}$"}, message=TEXT
)
_PRETTY_PRINT = (
    in_header("X-Pretty-Print", "`true` for an indented response."),
    in_query("pretty_print", "The same."),
)
COGNISM_CREDENTIALS = (
    in_header("X-API-AccessToken", "The id of an API key; wins over accessToken."),
    in_header("X-API-SecretKey", "Its secret; wins over secretKey."),
    in_query("accessToken", "The id of an API key."),
    in_query("secretKey", "Its secret."),
)
