"""`GET /v1/stream`: Server-Sent Events of up to 16 topics (docs/protocols/sse.md)."""

import asyncio
import random

from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from services.socket_edge.edge import Edge
from services.socket_edge.streams.stream_callers import StreamCaller, stream_caller, wake_previous
from services.socket_edge.streams.stream_reader import StreamReader
from shared.model.errors import QuotaExceeded, StoreUnavailable
from shared.runtime.http.protocol import Connection
from shared.runtime.http.responses import quota_exceeded, unavailable
from shared.wire import sse

STREAM_PATH = "/v1/stream"
# A client that pipelines requests and reads no responses is dropped.
_HEAD_S = 5.0
_HEADERS = [
    (b"content-type", sse.MEDIA_TYPE),
    (b"cache-control", b"no-store"),
    # nginx would wait for 8 KiB.
    (b"x-accel-buffering", b"no"),
    (b"connection", b"close"),
]


def stream_routes(edge: Edge) -> list[BaseRoute]:
    """A plain ASGI callable, as it writes its responses itself. No HEAD: it would stay open for nothing."""
    route = Route(STREAM_PATH, _StreamResponses(edge), methods=["GET"])
    assert route.methods is not None
    route.methods.discard("HEAD")
    return [route]


class _StreamResponses:
    def __init__(self, edge: Edge) -> None:
        self._edge = edge

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        edge = self._edge
        try:
            reader = await _opened(edge, scope)
        except StoreUnavailable:
            raise unavailable() from None
        retry_s = edge.settings.sse_retry_s
        try:
            await edge.close_if_stopping(reader)
            await _send_head(reader, send)
            # Those that are cut together come back one after the other.
            reader.begin(retry_s=random.uniform(retry_s, 2 * retry_s))
        except BaseException:
            await reader.abort()
            if reader.is_held:
                await edge.drop(reader)
            raise


async def _opened(edge: Edge, scope: Scope) -> StreamReader:
    """The reader, which the edge holds. Raises Problem, StoreUnavailable."""
    edge.check_open()
    caller = await stream_caller(edge, scope)
    try:
        await edge.socket_quota.admit(caller.account_id)
    except QuotaExceeded as error:
        raise quota_exceeded(error.quota, retry_after_s=error.retry_after_s) from None
    reader = _reader(edge, scope, caller)
    reader.counted_for = caller.account_id
    edge.hold(reader, caller.credential, wakes=False)
    wake_previous(edge, caller)
    return reader


def _reader(edge: Edge, scope: Scope, caller: StreamCaller) -> StreamReader:
    connection: Connection = scope["extensions"]["http.connection"]
    connection["end_with_input"]()
    return StreamReader(
        edge,
        caller.reader,
        account_id=caller.account_id,
        since=caller.wanted.since,
        response=connection["streamed"](),
        abort=connection["abort"],
    )


async def _send_head(reader: StreamReader, send: Send) -> None:
    try:
        async with asyncio.timeout(_HEAD_S):
            await send({"type": "http.response.start", "status": 200, "headers": list(_HEADERS)})
    except TimeoutError:
        await reader.abort()
