"""An incomplete request holds its connection until the limit for a request head, and no longer."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket
from websockets.frames import Opcode

from shared.runtime.http import protocol
from shared.runtime.http.server import listener, serve
from tests.faults.handmade import HandmadeSocket, Line, as_sent
from tests.harness.stack import Stack
from tests.harness.waiting import wait_until

GET = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
SHORT_HEAD_S = 0.5

Hostility = Callable[[Line], Awaitable[None]]


async def sends_nothing(line: Line) -> None:
    pass


async def sends_half_a_head(line: Line) -> None:
    await line.write(b"GET /livez HTTP/1.1\r\nHost: x\r\nAccept: ")


async def sends_half_a_second_head(line: Line) -> None:
    await line.write(GET)
    await response(line)
    await sends_half_a_head(line)


async def sends_an_empty_line_after_a_response(line: Line) -> None:
    await line.write(GET)
    await response(line)
    await line.write(b"\r\n")


async def continues_a_body_after_the_response(line: Line) -> None:
    await line.write(POST + b"x")
    assert (await response(line)).startswith(b"HTTP/1.1 401 ")
    await line.write(b"y")


HOSTILE = [
    sends_nothing,
    sends_half_a_head,
    sends_half_a_second_head,
    sends_an_empty_line_after_a_response,
    continues_a_body_after_the_response,
]


async def response(line: Line) -> bytes:
    """Reads the next response; returns its head."""
    head = (await line.read_until(b"\r\n\r\n")).lower()
    length = head.partition(b"content-length: ")[2].partition(b"\r\n")[0]
    await line.read(int(length))
    return head.replace(b"http/", b"HTTP/")


@contextlib.asynccontextmanager
async def connection_to(url: str) -> AsyncIterator[Line]:
    line = await Line.open(url)
    try:
        yield line
    finally:
        line.close()


# On a server in this process, with a short limit.


async def _alive(_: Request) -> Response:
    return PlainTextResponse("alive")


async def _refused(_: Request) -> Response:
    """Responds before the body is complete."""
    return PlainTextResponse("no", status_code=401)


async def _echo(request: Request) -> Response:
    return PlainTextResponse(await request.body())


async def _nothing() -> None:
    pass


async def _socket(socket: WebSocket) -> None:
    await socket.accept()
    await socket.receive()


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """The URL of a real server with a short limit for request heads."""
    monkeypatch.setattr(protocol, "_HEAD_S", SHORT_HEAD_S)
    app = Starlette(
        routes=[
            Route("/livez", _alive),
            Route("/v1/events", _refused, methods=["POST"]),
            Route("/echo", _echo, methods=["POST"]),
            WebSocketRoute("/v2/notification/websocket-connect", _socket),
        ]
    )
    stop = asyncio.Event()
    listening = listener("127.0.0.1", 0)
    serving = asyncio.create_task(serve(app, listening, stop=stop, on_shutdown=_nothing))
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    stop.set()
    await serving


@pytest.mark.parametrize("hostile", HOSTILE)
async def test_an_incomplete_head_ends_the_connection(server: str, hostile: Hostility) -> None:
    async with connection_to(server) as line:
        await hostile(line)

        assert await line.rest() == b""


async def test_a_head_sent_byte_by_byte_gains_no_time(server: str) -> None:
    async with connection_to(server) as line:
        await line.write(b"GET /livez HTTP/1.1\r\nX: ")

        async def is_cut() -> bool:
            return not await line.write(b"x")

        await wait_until(is_cut)


async def test_empty_lines_after_a_response_gain_no_time(server: str) -> None:
    async with connection_to(server) as line:
        await line.write(GET)
        await response(line)

        async def is_cut() -> bool:
            return not await line.write(b"\r\n")

        await wait_until(is_cut)


async def test_an_endless_head_is_refused(server: str) -> None:
    async with connection_to(server) as line:
        await sends_an_endless_head(line)


async def test_idle_and_slow_clients_are_not_limited(server: str) -> None:
    """An idle keep-alive connection, a slow body, and a WebSocket."""
    socket = await HandmadeSocket.connect(server, "anybody")
    try:
        async with (
            connection_to(server) as idle,
            connection_to(server) as slow,
            connection_to(server) as youngest,
        ):
            await idle.write(GET)
            await response(idle)
            await slow.write(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nsl")

            # This connection is the youngest: when it is cut, the limit has passed for all.
            await sends_half_a_head(youngest)
            assert await youngest.rest() == b""

            await idle.write(GET)
            assert (await response(idle)).startswith(b"HTTP/1.1 200 ")
            await slow.write(b"ow" + GET)
            assert (await slow.read_until(b"slow")).startswith(b"HTTP/1.1 200 ")
            assert (await response(slow)).startswith(b"HTTP/1.1 200 ")
            await socket.write(as_sent(Opcode.PING, b"still there?"))
            assert await socket.frame() == (Opcode.PONG, b"still there?")
    finally:
        socket.close()


async def sends_an_endless_head(line: Line) -> None:
    """Sends a megabyte of headers; reads the refusal and the end of the connection."""
    await line.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n" + b"X-More: and more of the same\r\n" * 35_000)
    head, _, body = (await line.rest()).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 "), head
    assert b"too long" in body


# The services themselves.


async def test_every_service_refuses_an_endless_head(stack: Stack) -> None:
    for service in stack.services:
        async with connection_to(service.url) as line:
            await sends_an_endless_head(line)


@pytest.mark.long
async def test_the_real_limit(stack: Stack) -> None:
    async def is_cut(hostile: Hostility, url: str) -> None:
        async with connection_to(url) as line:
            await hostile(line)
            assert await line.rest() == b""

    await asyncio.gather(*(is_cut(hostile, stack.gateways[0].url) for hostile in HOSTILE))
