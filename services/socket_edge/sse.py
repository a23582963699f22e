"""`GET /v1/stream`: Server-Sent Events of up to 16 topics (docs/protocols/sse.md)."""

import asyncio
import random

from starlette.requests import Request
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from services.socket_edge.credential_watcher import authenticate_receiver
from services.socket_edge.edge import Edge
from services.socket_edge.long_poll import unauthenticated
from services.socket_edge.stream_reader import StreamReader
from shared.model.api_keys import ApiKey
from shared.model.errors import Invalid, MissingScope, QuotaExceeded, StoreUnavailable, Unauthenticated
from shared.runtime.http.protocol import Connection
from shared.runtime.http.responses import Problem, quota_exceeded, unavailable
from shared.wire import sse
from shared.wire.pelion.handshake import bearer
from shared.wire.stream_requests import StreamRequest, stream_request

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
    wanted = _request(scope)
    secret = bearer(Request(scope).headers.get("authorization", ""))
    try:
        key, credential = await authenticate_receiver(edge, scope, secret)
    except Unauthenticated as error:
        raise unauthenticated(str(error)) from None
    except MissingScope as error:
        raise Problem(403, str(error), fields=[("scopes", f"must include {error.scope}")]) from None
    await edge.stream_rights.check(key.account_id, key.id, wanted.topics)
    try:
        await edge.socket_quota.admit(key.account_id)
    except QuotaExceeded as error:
        raise quota_exceeded(error.quota, retry_after_s=error.retry_after_s) from None
    reader = _reader(edge, scope, key, wanted)
    reader.counted_for = key.account_id
    edge.hold(reader, credential, wakes=False)
    return reader


def _request(scope: Scope) -> StreamRequest:
    """Raises Problem (400)."""
    last_event_id = Request(scope).headers.get("last-event-id", "")
    try:
        return stream_request(scope["query_string"], last_event_id=last_event_id)
    except Invalid as error:
        raise Problem(400, error.message, fields=error.fields, kind="validation_error") from None


def _reader(edge: Edge, scope: Scope, key: ApiKey, wanted: StreamRequest) -> StreamReader:
    connection: Connection = scope["extensions"]["http.connection"]
    connection["end_with_input"]()
    return StreamReader(
        edge,
        account_id=key.account_id,
        since=wanted.since,
        response=connection["streamed"](),
        abort=connection["abort"],
    )


async def _send_head(reader: StreamReader, send: Send) -> None:
    try:
        async with asyncio.timeout(_HEAD_S):
            await send({"type": "http.response.start", "status": 200, "headers": list(_HEADERS)})
    except TimeoutError:
        await reader.abort()
