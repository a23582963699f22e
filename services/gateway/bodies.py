"""Request bodies, bounded in size and time."""

import asyncio
from typing import Any

import orjson
from starlette.requests import Request

from shared.model.errors import Invalid
from shared.runtime.http.protocol import Connection
from shared.runtime.http.responses import Problem

MAX_BODY_BYTES = 8 * 1024 * 1024
_READ_ON_BYTES = 4 * MAX_BODY_BYTES
_BODY_S = 30.0
_MAX_NAME = 255


async def body_of(request: Request) -> bytes:
    """The whole body. Raises Problem: 413 when it is too long, 408 when it does not arrive in time."""
    connection: Connection = request.scope["extensions"]["http.connection"]
    if connection["has_all"]():
        # As most often: nothing has to be waited for.
        return await _read(request)
    try:
        async with asyncio.timeout(_BODY_S):
            return await _read(request)
    except TimeoutError:
        raise Problem(408, "the body did not arrive in time", headers={"connection": "close"}) from None


async def _read(request: Request) -> bytes:
    parts: list[bytes] = []
    size = 0
    is_last = False
    while not is_last:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise Problem(400, "the body broke off")
        part = message.get("body", b"")
        is_last = not message.get("more_body", False)
        size += len(part)
        # What is too long is read on for a while: a client that is cut in the middle of sending
        # meets a reset connection, and never sees the answer.
        if size > _READ_ON_BYTES:
            break
        if size <= MAX_BODY_BYTES:
            parts.append(part)
    if size > MAX_BODY_BYTES:
        headers = {"connection": "close"} if size > _READ_ON_BYTES else None
        raise Problem(413, f"the body is over {MAX_BODY_BYTES // 1024 // 1024} MB", headers=headers)
    return b"".join(parts)


async def object_in(request: Request) -> dict[str, Any]:
    """The JSON object in the body. Raises Problem or Invalid."""
    return _object(await body_of(request))


async def object_if_any(request: Request) -> dict[str, Any]:
    """The JSON object in the body; an empty one when there is no body. Raises Problem or Invalid."""
    body = await body_of(request)
    return _object(body) if body else {}


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Invalid(f"the body is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise Invalid("the body must be an object")
    return value


def only(posted: dict[str, Any], names: set[str]) -> None:
    """Raises Invalid for a field that is none of these."""
    unknown = posted.keys() - names
    if unknown:
        raise Invalid("there is no such field", field=min(unknown)[:100])


def name_in(posted: dict[str, Any]) -> str:
    """The name that people give to what they make. Raises Invalid."""
    name = posted.get("name")
    if not isinstance(name, str) or not 1 <= len(name) <= _MAX_NAME or not name.isprintable():
        raise Invalid(f"must be a string of 1 to {_MAX_NAME} printable characters", field="name")
    return name
