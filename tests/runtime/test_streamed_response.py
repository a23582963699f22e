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
    """Sends a head and returns; the test writes the rest."""

    def __init__(self) -> None:
        self.response: StreamedResponse
        self.began = asyncio.Event()
        self.lost = 0
        self.requests = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.requests += 1
        connection = scope["extensions"]["http.connection"]
        connection["end_with_input"]()
        self.response = connection["streamed"]()
        headers = [(b"connection", b"close")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        assert self.response.detach(self.on_lost)
        self.began.set()

    def on_lost(self) -> None:
        self.lost += 1

    def write(self, data: bytes) -> None:
        self.response.write(chunk(data) if self.response.is_chunked else data)

    async def end(self, *, within_s: float = 20) -> bool:
        return await self.response.end(within_s=within_s)


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
    await wait_until(lambda: not state.tasks and not state.connections)


async def test_each_part_is_a_chunk_that_arrives_at_once(app: App, connect: Connect) -> None:
    reader, _ = await connect(GET)
    head = await reader.readuntil(b"\r\n\r\n")
    assert b"transfer-encoding: chunked" in head
    assert b"connection: close" in head
    for part in (b"one\n", b"two\n"):
        app.write(part)
        assert await reader.readexactly(len(part) + 5) == b"4\r\n%b\r\n" % part
    assert await app.end()
    assert await reader.read() == b"0\r\n\r\n"


async def test_http_1_0_gets_no_chunks_and_the_end_of_the_connection(app: App, connect: Connect) -> None:
    reader, _ = await connect(GET_1_0)
    head = await reader.readuntil(b"\r\n\r\n")
    assert b"transfer-encoding" not in head
    app.write(b"one\n")
    await app.end()
    assert await reader.read() == b"one\n"


@pytest.mark.parametrize("requests", [GET, GET + GET], ids=["one request", "and one behind it"])
async def test_the_application_learns_once_that_the_client_has_gone(
    app: App, connect: Connect, requests: bytes
) -> None:
    _, writer = await connect(requests)
    writer.transport.abort()

    def is_noticed() -> bool:
        # While a request waits behind it nothing is read: then a write shows that the connection is lost.
        app.write(b"still there?")
        return app.lost > 0

    await wait_until(is_noticed)
    assert not app.response.is_open
    app.write(b"for nobody")
    await app.response.until_room()
    assert await app.end()
    assert (app.lost, app.requests) == (1, 1)


async def test_one_that_is_lost_before_it_begins_says_so(app: App, connect: Connect) -> None:
    await connect(GET)
    app.response._plain.abort()
    assert not app.response.detach(app.on_lost)


async def test_a_request_behind_a_streamed_response_is_not_served(app: App, connect: Connect) -> None:
    reader, _ = await connect(GET + GET)
    app.write(b"one")
    await app.end()
    body = (await reader.read()).partition(b"\r\n\r\n")[2]
    assert body == b"3\r\none\r\n0\r\n\r\n"
    assert app.requests == 1


async def test_the_head_of_the_request_is_not_kept(app: App, connect: Connect) -> None:
    await connect(GET.replace(b"host", b"x: " + b"y" * 1000 + b"\r\nhost", 1))
    assert app.response._protocol.headers == app.response._cycle.scope["headers"] == []


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


async def test_bytes_that_the_client_has_not_read_are_known(app: App, connect: Connect) -> None:
    reader, _ = await connect(GET)
    assert app.response.write(chunk(b"one")) == 0
    await wait_until(lambda: app.response.read_bytes() == app.response.written_bytes)
    assert app.response.write(chunk(MEGABYTE)) == app.response.buffered_bytes() > 0
    read = app.response.read_bytes()
    assert read is not None
    assert read < app.response.written_bytes
    ending = asyncio.create_task(app.end())
    assert len(await reader.read()) > len(MEGABYTE)
    assert await ending


async def test_a_client_gets_the_rest_before_the_end(app: App, connect: Connect) -> None:
    reader, _ = await connect(GET)
    app.write(MEGABYTE)
    ending = asyncio.create_task(app.end())
    assert (await reader.read()).endswith(b"x\r\n0\r\n\r\n")
    assert await ending


async def test_a_client_that_does_not_read_the_rest_is_dropped(app: App, connect: Connect) -> None:
    reader, _ = await connect(GET)
    app.write(MEGABYTE)
    assert not await app.end(within_s=0.01)
    assert not (await reader.read()).endswith(b"0\r\n\r\n")
