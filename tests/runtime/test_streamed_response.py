"""A response written part by part to the transport, over a real connection."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from shared.runtime.http.arrivals import Arrivals
from shared.runtime.http.protocol import HttpProtocol
from shared.runtime.http.streamed import StreamedResponse, chunk
from tests.harness.waiting import wait_until

GET = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"
GET_1_0 = b"GET / HTTP/1.0\r\nhost: localhost\r\n\r\n"
MEGABYTE = b"x" * 1024 * 1024


class App:
    """Sends a head; the test writes the rest."""

    def __init__(self) -> None:
        self.response: StreamedResponse
        self.began = asyncio.Event()
        self.may_end = asyncio.Event()
        self.received: list[str] = []
        self.requests = 0
        self.has_read: bool | None = None
        self.within_s = 20.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.requests += 1
        self.response = scope["extensions"]["http.connection"]["streamed"]()
        headers = [(b"connection", b"close")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        self.began.set()
        while not self.may_end.is_set():
            self.received.append((await receive())["type"])
            if self.received[-1] == "http.disconnect":
                return
        self.has_read = await self.response.end(within_s=self.within_s)

    def write(self, data: bytes) -> None:
        self.response.write(chunk(data) if self.response.is_chunked else data)

    def end(self) -> None:
        self.may_end.set()
        self.response.wake()


Connect = Callable[[bytes], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


@pytest.fixture
async def app() -> App:
    return App()


@pytest.fixture
async def connect(app: App) -> AsyncIterator[Connect]:
    """Sends a request to the app over a connection that buffers little, and waits for the app."""
    config = uvicorn.Config(app, lifespan="off", log_config=None)
    config.load()
    state = ServerState()

    def connected() -> asyncio.Protocol:
        arrivals = Arrivals(most=10, most_per_address=10, trusted=())
        return HttpProtocol(config=config, server_state=state, app_state={}, arrivals=arrivals)

    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 * 1024)
    listening.bind(("127.0.0.1", 0))
    server = await asyncio.get_running_loop().create_server(connected, sock=listening)
    writers: list[asyncio.StreamWriter] = []

    async def connect(request: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        line = socket.socket()
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
        line.setblocking(False)
        await asyncio.get_running_loop().sock_connect(line, listening.getsockname())
        reader, writer = await asyncio.open_connection(sock=line, limit=1024)
        writers.append(writer)
        writer.write(request)
        await app.began.wait()
        return reader, writer

    yield connect
    for writer in writers:
        writer.close()
    server.close()
    await wait_until(lambda: not state.tasks, what="the app to end")


async def test_each_part_is_a_chunk_that_arrives_at_once(app: App, connect: Connect) -> None:
    reader, _ = await connect(GET)
    head = await reader.readuntil(b"\r\n\r\n")
    assert b"transfer-encoding: chunked" in head
    assert b"connection: close" in head
    for part in (b"one\n", b"two\n"):
        app.write(part)
        assert await reader.readexactly(len(part) + 5) == b"4\r\n%b\r\n" % part
    app.end()
    assert await reader.read() == b"0\r\n\r\n"
    assert app.has_read is True


async def test_http_1_0_gets_no_chunks_and_the_end_of_the_connection(app: App, connect: Connect) -> None:
    reader, _ = await connect(GET_1_0)
    head = await reader.readuntil(b"\r\n\r\n")
    assert b"transfer-encoding" not in head
    app.write(b"one\n")
    app.end()
    assert await reader.read() == b"one\n"


async def test_the_application_learns_that_the_client_has_gone(app: App, connect: Connect) -> None:
    _, writer = await connect(GET)
    writer.transport.abort()
    await wait_until(lambda: "http.disconnect" in app.received)
    assert not app.response.is_open
    app.write(b"for nobody")
    await app.response.until_room()


async def test_a_request_behind_a_streamed_response_is_not_served(app: App, connect: Connect) -> None:
    reader, _ = await connect(GET + GET)
    app.write(b"one")
    app.end()
    body = (await reader.read()).partition(b"\r\n\r\n")[2]
    assert body == b"3\r\none\r\n0\r\n\r\n"
    assert app.requests == 1


async def test_there_is_room_again_when_the_client_has_read(app: App, connect: Connect) -> None:
    reader, _ = await connect(GET)
    app.response.bound(64 * 1024)
    await asyncio.wait_for(app.response.until_room(), 20)
    app.write(MEGABYTE)
    assert app.response.buffered_bytes() > 64 * 1024
    waiting = asyncio.create_task(app.response.until_room())
    await asyncio.sleep(0)
    assert not waiting.done()
    while not waiting.done():
        assert await reader.read(4096)
        await asyncio.sleep(0)
    assert app.response.buffered_bytes() <= 64 * 1024
    app.end()


async def test_bytes_that_the_client_has_not_read_are_known(app: App, connect: Connect) -> None:
    reader, _ = await connect(GET)
    app.write(b"one")
    await wait_until(lambda: app.response.read_bytes() == app.response.written_bytes)
    app.write(MEGABYTE)
    read = app.response.read_bytes()
    assert read is not None
    assert read < app.response.written_bytes
    app.end()
    assert len(await reader.read()) > len(MEGABYTE)


async def test_a_client_gets_the_rest_before_the_end(app: App, connect: Connect) -> None:
    reader, _ = await connect(GET)
    app.write(MEGABYTE)
    app.end()
    assert (await reader.read()).endswith(b"x\r\n0\r\n\r\n")
    await wait_until(lambda: app.has_read is not None)
    assert app.has_read is True


async def test_a_client_that_does_not_read_the_rest_is_dropped(app: App, connect: Connect) -> None:
    reader, _ = await connect(GET)
    app.within_s = 0.01
    app.write(MEGABYTE)
    app.end()
    await wait_until(lambda: app.has_read is False)
    assert not (await reader.read()).endswith(b"0\r\n\r\n")
