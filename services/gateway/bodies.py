"""Request bodies, bounded in size and time and decoded by their models; and response bodies."""

import asyncio
from typing import Any, TypeVar

import msgspec
from msgspec.structs import fields
from starlette.requests import Request
from starlette.responses import Response

from shared.runtime.http.protocol import Connection
from shared.runtime.http.responses import Problem
from shared.wire.models import parse

MAX_BODY_BYTES = 8 * 1024 * 1024
_READ_ON_BYTES = 4 * MAX_BODY_BYTES
_BODY_S = 30.0
T = TypeVar("T")


async def body_of(request: Request) -> bytes:
    """The whole body. Raises Problem: 413 for a body over the limit, 408 for one that takes too long."""
    connection: Connection = request.scope["extensions"]["http.connection"]
    if connection["has_all"]():
        # The usual case. Setting a timeout would cost more than the read.
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
            raise Problem(400, "the connection was lost before the end of the body")
        part = message.get("body", b"")
        is_last = not message.get("more_body", False)
        size += len(part)
        # Read on past the limit for a while: a client that is cut while it sends meets a reset connection
        # and never sees the response.
        if size > _READ_ON_BYTES:
            break
        if size <= MAX_BODY_BYTES:
            parts.append(part)
    if size > MAX_BODY_BYTES:
        headers = {"connection": "close"} if size > _READ_ON_BYTES else None
        raise Problem(413, f"the body is over {MAX_BODY_BYTES // 1024 // 1024} MiB", headers=headers)
    return b"".join(parts)


async def body_in(request: Request, decoder: msgspec.json.Decoder[T]) -> T:
    """The decoded body; {} for an empty one that may be left out. Raises Problem or Invalid."""
    body = await body_of(request)
    return parse(decoder, body if body.strip() or not is_optional(decoder.type) else b"{}")


def is_optional(model: Any) -> bool:
    """May the body be left out? It may if the model has no required field."""
    is_struct = isinstance(model, type) and issubclass(model, msgspec.Struct)
    return is_struct and not any(each.required for each in fields(model))


def model_response(model: Any, *, status: int = 200) -> Response:
    return Response(msgspec.json.encode(model), status, media_type="application/json")
