"""Request bodies, bounded in size and time and decoded by their models; and response bodies."""

import asyncio
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
from msgspec.structs import fields
from starlette.requests import Request
from starlette.responses import Response

from shared.runtime.http.protocol import Connection
from shared.runtime.http.request_head import members
from shared.runtime.http.responses import Problem
from shared.wire.models import parse

KIB = 1024
MIB = 1024 * KIB
MAX_BODY_BYTES = 8 * MIB
BODY_S = 30.0
# Read on past the limit for a while, and keep nothing: a client that is cut while it sends meets a reset
# connection and never sees the response.
_READ_ON = 4
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class BodyLimit:
    """What a request's body may take."""

    size_bytes: int
    within_s: float


OF_CALLERS = BodyLimit(MAX_BODY_BYTES, BODY_S)
# The credential is in the body: until it is read, the client is a stranger.
OF_STRANGERS = BodyLimit(64 * KIB, 5.0)


async def body_of(request: Request, limit: BodyLimit = OF_CALLERS) -> bytes:
    """The whole body. Raises Problem: 413 for a body over the limit, 408 for one that takes too long, 415 for
    one that is compressed.

    Read it after the caller is known: a stranger's body must cost no memory.
    """
    _check_coding(request)
    connection: Connection = request.scope["extensions"]["http.connection"]
    if connection["has_all"]():
        # The usual case. Setting a timeout would cost more than the read.
        return await _read(request, limit.size_bytes)
    try:
        async with asyncio.timeout(limit.within_s):
            return await _read(request, limit.size_bytes)
    except TimeoutError:
        raise Problem(408, "the body did not arrive in time", headers={"connection": "close"}) from None


def _check_coding(request: Request) -> None:
    """Raises Problem for a compressed body: unpacked it could have any length."""
    codings = {each.lower() for each in members(request.scope["headers"], b"content-encoding")}
    if codings - {b"identity"}:
        fields = [("Content-Encoding", "must be identity")]
        message = "the body must not be compressed"
        raise Problem(415, message, fields=fields, headers={"accept-encoding": "identity"})


async def _read(request: Request, limit_bytes: int) -> bytes:
    parts: list[bytes] = []
    read_on_bytes = _READ_ON * limit_bytes
    announced = _announced_bytes(request)
    size, is_last = 0, False
    if announced > read_on_bytes:
        size, is_last = announced, True
    while not is_last:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise Problem(400, "the connection was lost before the end of the body")
        part = message.get("body", b"")
        is_last = not message.get("more_body", False)
        size += len(part)
        if size > read_on_bytes:
            break
        if size <= limit_bytes:
            parts.append(part)
        else:
            parts.clear()
    if size > limit_bytes:
        headers = {"connection": "close"} if size > read_on_bytes else None
        raise Problem(413, f"the body is over {_in_words(limit_bytes)}", headers=headers)
    return b"".join(parts)


def _announced_bytes(request: Request) -> int:
    """The length that the request's head names; 0 if it names none."""
    length = request.headers.get("content-length", "")
    # The HTTP parser has refused anything but a number.
    return int(length) if length.isdecimal() else 0


def _in_words(size_bytes: int) -> str:
    return f"{size_bytes // MIB} MiB" if size_bytes >= MIB else f"{size_bytes // KIB} KiB"


async def body_in(request: Request, decoder: msgspec.json.Decoder[T], limit: BodyLimit = OF_CALLERS) -> T:
    """The decoded body; {} for an empty one that may be left out. Raises Problem or Invalid."""
    body = await body_of(request, limit)
    return parse(decoder, body if body.strip() or not is_optional(decoder.type) else b"{}")


def is_optional(model: Any) -> bool:
    """May the body be left out? It may if the model has no required field."""
    is_struct = isinstance(model, type) and issubclass(model, msgspec.Struct)
    return is_struct and not any(each.required for each in fields(model))


def model_response(model: Any, *, status: int = 200) -> Response:
    return Response(msgspec.json.encode(model), status, media_type="application/json")
