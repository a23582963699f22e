"""What the pieces of the document are written with: an operation and its answers in a few words each."""

from collections.abc import Mapping
from typing import Any

Json = dict[str, Any]

_TITLES = {
    400: "The request is malformed, or breaks a rule that the message names.",
    401: "The secret is missing, garbled, unknown, expired or revoked.",
    403: "The API key lacks the scope that this needs.",
    404: "There is no such thing.",
    406: "The body is not JSON.",
    408: "The body did not arrive in time.",
    409: "It contradicts what is there.",
    413: "The body, or what is in it, is too large.",
    415: "The Content-Type says that the body is no JSON.",
    422: "This Idempotency-Key stands for another request.",
    426: "This is a WebSocket: an upgrade is needed.",
    429: "Too many of these at once: try again after Retry-After.",
    431: "The path or a header is too long, or there are too many headers.",
    500: "Something went wrong here, and was logged.",
    503: "Redis is away or full, or this replica is going away: try again after Retry-After.",
}
_CAN_WAIT = (429, 503)
_EVERYWHERE = (400, 500)
_WITH_A_BODY = (408, 413)
_PROVEN = (401, 403, 503)


def ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def nullable(schema: Json) -> Json:
    return {"anyOf": [schema, {"type": "null"}]}


def array(items: Json, **more: Any) -> Json:
    return {"type": "array", "items": items, **more}


def closed(properties: Json, *, optional: tuple[str, ...] = ()) -> Json:
    """An object with these properties and no others; all are there but the optional ones."""
    required = [name for name in properties if name not in optional]
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def answer(
    text: str,
    schema: Json | None = None,
    *,
    of: str = "application/json",
    headers: Mapping[str, Json] | None = None,
) -> Json:
    """One answer; with a body if there is a schema of it."""
    content = {} if schema is None else {"content": {of: {"schema": schema}}}
    told = {"X-Request-Id": {"type": "string"}, **(headers or {})}
    return {"description": text, "headers": {name: {"schema": of} for name, of in told.items()}, **content}


def word(text: str, *words: str) -> Json:
    """An answer whose whole body is a bare word."""
    return answer(text, {"type": "string", "enum": list(words)}, of="text/plain")


def problem(status: int) -> Json:
    headers: Json = {"Retry-After": {"type": "string"}} if status in _CAN_WAIT else {}
    return answer(_TITLES[status], ref("Error"), headers=headers)


def body(schema: Json, *, required: bool = True, others: Mapping[str, Json] | None = None) -> Json:
    """A JSON body; `others` are schemas by other media types."""
    taken = {"application/json": schema, **(others or {})}
    return {"required": required, "content": {media: {"schema": of} for media, of in taken.items()}}


def operation(
    name: str,
    summary: str,
    answers: Mapping[int, Json],
    *,
    errors: tuple[int, ...] = (),
    takes: Json | None = None,
    parameters: tuple[Json, ...] = (),
    by: str = "apiKey",
) -> Json:
    """One operation, with the errors that any such operation may answer; `by` is who may, '' for anybody."""
    usual = (*_EVERYWHERE, *(_PROVEN if by else ()), *(_WITH_A_BODY if takes else ()))
    statuses = sorted({*usual, *errors} - answers.keys())
    responses = {**answers, **{status: problem(status) for status in statuses}}
    return {
        "operationId": name,
        "summary": summary,
        "security": [{kind: []} for kind in by.split()],
        **({"parameters": list(parameters)} if parameters else {}),
        **({"requestBody": takes} if takes else {}),
        "responses": {str(status): responses[status] for status in sorted(responses)},
    }


def in_path(name: str, text: str, schema: Json) -> Json:
    return {"name": name, "in": "path", "required": True, "description": text, "schema": schema}


def in_query(name: str, text: str, schema: Json) -> Json:
    return {"name": name, "in": "query", "description": text, "schema": schema}


def in_header(name: str, text: str, schema: Json) -> Json:
    return {"name": name, "in": "header", "description": text, "schema": schema}


def tagged(tag: str, paths: Json) -> Json:
    """The same paths, with the tag on each operation."""
    return {
        path: {method: {"tags": [tag], **told} for method, told in item.items()}
        for path, item in paths.items()
    }
