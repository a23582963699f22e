"""Builds the OpenAPI document's operations. A body is given by its model, whose schema it collects."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
import orjson
from msgspec import Meta

from shared.wire.models import Closed

Json = dict[str, Any]

TEXT: Json = {"type": "string"}
COMPONENTS: Json = {}
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
    429: "Too many of these at once: retry after Retry-After.",
    431: "The path or a header is too long, or there are too many headers.",
    500: "Internal error; it was logged with the request id.",
    503: "Redis is unreachable or full, or this replica is shutting down: retry after Retry-After.",
}
_WITH_RETRY_AFTER = (429, 503)
_ALWAYS = (400, 500)
_WITH_BODY = (408, 413)
_WITH_AUTHENTICATION = (401, 403, 503)
_IN_PATH = {
    "account_id": ("The account's id.", TEXT),
    "api_key_id": ("The API key's id.", TEXT),
    "event_id": ("The event's id, percent-encoded.", TEXT),
    "socket_id": ("The socket's `websocket_session_id`.", TEXT),
    "device-id": ("The device's name.", {**TEXT, "minLength": 1, "maxLength": 64}),
    "resourcePath": ("The path; its slashes may be encoded.", {**TEXT, "minLength": 1, "maxLength": 127}),
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


def schema(model: Any) -> Json:
    """The schema of a model: a reference where it is an object. A dict is a schema already."""
    if isinstance(model, dict):
        return model
    [of_model], components = msgspec.json.schema_components(
        [model], ref_template="#/components/schemas/{name}"
    )
    COMPONENTS.update(_published(components))
    return _published(of_model)


def _published(schemas: Json) -> Json:
    """With ECMAScript's `$` for Python's `\\Z`, and without the suffix that our response models have."""
    text = orjson.dumps(schemas).replace(b'\\\\Z"', b'$"').replace(b'Body"', b'"')
    published: Json = orjson.loads(text)
    return published


def response(text: str, model: Any = None, *, media_type: str = "application/json", **headers: Json) -> Json:
    """A response; without a model it has no body. Headers are named with `_` for `-`."""
    content = {} if model is None else {"content": {media_type: {"schema": schema(model)}}}
    named = {"X-Request-Id": TEXT} | {name.replace("_", "-"): of for name, of in headers.items()}
    return {"description": text, "headers": {name: {"schema": of} for name, of in named.items()}, **content}


def text_response(text: str, *words: str) -> Json:
    """A response of plain text: one of the words, if there are any."""
    return response(text, {**TEXT, "enum": list(words)} if words else TEXT, media_type="text/plain")


def error(status: int, model: Any = Error, *, title: str = "") -> Json:
    title = title or _TITLES[status]
    if status in _WITH_RETRY_AFTER:
        return response(title, model, Retry_After=TEXT)
    return response(title, model)


def request_body(model: Any, *, required: bool = True, others: Mapping[str, Json] | None = None) -> Json:
    """A JSON body; `others` are schemas by other media types."""
    content = {"application/json": schema(model), **(others or {})}
    return {"required": required, "content": {media: {"schema": of} for media, of in content.items()}}


def operation(
    name: str,
    summary: str,
    successes: Mapping[int, Any],
    *parameters: Json,
    errors: tuple[int, ...] = (),
    takes: Any = None,
    by: str = "apiKey",
) -> Json:
    """One operation, with the errors that any such operation may have.

    `successes` are responses, or just the models of their bodies, by status; `takes` is a request body or
    its model; `by` are security schemes.
    """
    usual = {*_ALWAYS, *errors, *(_WITH_AUTHENTICATION if by else ()), *(_WITH_BODY if takes else ())}
    responses = {status: error(status) for status in usual}
    for status, of in successes.items():
        is_response = isinstance(of, dict) and "description" in of
        responses[status] = of if is_response else response(_TITLES[status], of)
    body = takes if takes is None or isinstance(takes, dict) else request_body(takes)
    return {
        "operationId": name,
        "summary": summary,
        "security": [{scheme: []} for scheme in by.split()],
        "parameters": list(parameters),
        **({"requestBody": body} if body else {}),
        "responses": {str(status): responses[status] for status in sorted(responses)},
    }


def paths(tag: str, operations: Mapping[str, Json]) -> Json:
    """The document's paths, from operations by `METHOD /path`, with the tag and the path's parameters."""
    by_path: Json = {}
    for method_and_path, described in operations.items():
        method, path = method_and_path.split()
        in_path = [_parameter("path", name, *_IN_PATH[name]) for name in re.findall(r"{(.*?)}", path)]
        item = {**described, "tags": [tag], "parameters": [*in_path, *described["parameters"]]}
        by_path.setdefault(path, {})[method.lower()] = item
    return by_path


def in_query(name: str, text: str, of: Json = TEXT) -> Json:
    return _parameter("query", name, text, of)


def in_header(name: str, text: str, of: Json = TEXT) -> Json:
    return _parameter("header", name, text, of)


def _parameter(where: str, name: str, text: str, of: Json) -> Json:
    return {"name": name, "in": where, "required": where == "path", "description": text, "schema": of}
