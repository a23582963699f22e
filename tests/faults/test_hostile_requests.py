"""Half a request, or what is none, holds a connection for as long as a head may take, and no longer."""

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


async def says_nothing(line: Line) -> None:
    pass


async def says_half_a_head(line: Line) -> None:
    await line.say(b"GET /livez HTTP/1.1\r\nHost: x\r\nAccept: ")


async def says_half_a_second_head(line: Line) -> None:
    await line.say(GET)
    await response(line)
    await says_half_a_head(line)


async def says_an_empty_line_after_an_answer(line: Line) -> None:
    await line.say(GET)
    await response(line)
    await line.say(b"\r\n")


async def goes_on_with_a_body_that_was_answered(line: Line) -> None:
    await line.say(POST + b"x")
    assert (await response(line)).startswith(b"HTTP/1.1 401 ")
    await line.say(b"y")


HOSTILE = [
    says_nothing,
    says_half_a_head,
    says_half_a_second_head,
    says_an_empty_line_after_an_answer,
    goes_on_with_a_body_that_was_answered,
]


async def response(line: Line) -> bytes:
    """The head of the next answer; its body is read, too."""
    head = (await line.hear_until(b"\r\n\r\n")).lower()
    length = head.partition(b"content-length: ")[2].partition(b"\r\n")[0]
    await line.hear(int(length))
    return head.replace(b"http/", b"HTTP/")


@contextlib.asynccontextmanager
async def talking_to(url: str) -> AsyncIterator[Line]:
    line = await Line.open(url)
    try:
        yield line
    finally:
        line.close()


# With a short limit, on a server in this process


async def _alive(_: Request) -> Response:
    return PlainTextResponse("alive")


async def _refused(_: Request) -> Response:
    """An answer before the body has come."""
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
    """The URL of a real server, whose patience with a head is short."""
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
async def test_a_head_that_does_not_come_ends_the_connection(server: str, hostile: Hostility) -> None:
    async with talking_to(server) as line:
        await hostile(line)

        assert await line.rest() == b""


async def test_a_head_that_comes_byte_by_byte_gains_no_time(server: str) -> None:
    async with talking_to(server) as line:
        await line.say(b"GET /livez HTTP/1.1\r\nX: ")

        async def is_cut() -> bool:
            return not await line.say(b"x")

        await wait_until(is_cut)


async def test_empty_lines_after_an_answer_gain_no_time(server: str) -> None:
    async with talking_to(server) as line:
        await line.say(GET)
        await response(line)

        async def is_cut() -> bool:
            return not await line.say(b"\r\n")

        await wait_until(is_cut)


async def test_a_head_that_never_ends_is_refused(server: str) -> None:
    async with talking_to(server) as line:
        await never_ends(line)


async def test_the_well_behaved_have_all_the_time_they_need(server: str) -> None:
    """One between two requests, one with a slow body, one that has become a WebSocket."""
    socket = await HandmadeSocket.connect(server, "anybody")
    try:
        async with talking_to(server) as idle, talking_to(server) as slow, talking_to(server) as measure:
            await idle.say(GET)
            await response(idle)
            await slow.say(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nsl")

            # Connected last; when its time is over, theirs would be.
            await says_half_a_head(measure)
            assert await measure.rest() == b""

            await idle.say(GET)
            assert (await response(idle)).startswith(b"HTTP/1.1 200 ")
            await slow.say(b"ow" + GET)
            assert (await slow.hear_until(b"slow")).startswith(b"HTTP/1.1 200 ")
            assert (await response(slow)).startswith(b"HTTP/1.1 200 ")
            await socket.say(as_sent(Opcode.PING, b"still there?"))
            assert await socket.frame() == (Opcode.PONG, b"still there?")
    finally:
        socket.close()


async def never_ends(line: Line) -> None:
    """Sends header after header for a megabyte, reads the refusal, and is hung up on."""
    await line.say(b"GET /livez HTTP/1.1\r\nHost: x\r\n" + b"X-More: and more of the same\r\n" * 35_000)
    head, _, body = (await line.rest()).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 "), head
    assert b"too long" in body


# As they really run


async def test_a_head_that_never_ends_is_refused_by_every_service(stack: Stack) -> None:
    for service in stack.services:
        async with talking_to(service.url) as line:
            await never_ends(line)


@pytest.mark.long
async def test_the_real_limit(stack: Stack) -> None:
    async def is_cut(hostile: Hostility, url: str) -> None:
        async with talking_to(url) as line:
            await hostile(line)
            assert await line.rest() == b""

    await asyncio.gather(*(is_cut(hostile, stack.gateways[0].url) for hostile in HOSTILE))
