"""What the HTTP protocol tells an application, over a real connection."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from shared.runtime.http.arrivals import Arrivals
from shared.runtime.http.protocol import HttpProtocol
from tests.harness.waiting import wait_until
from tests.runtime.echo import echo

HEAD = b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\n"


class App:
    """Responds to each request with its body, once `may_read` is set."""

    def __init__(self) -> None:
        self.began = asyncio.Semaphore(0)
        self.may_read = asyncio.Event()
        self.may_read.set()
        self.has_all: list[Callable[[], bool]] = []
        self.protocols: list[HttpProtocol] = []
        self.most_queued = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.most_queued = max(self.most_queued, len(self.protocols[0].pipeline))
        self.has_all.append(scope["extensions"]["http.connection"]["has_all"])
        self.began.release()
        await self.may_read.wait()
        await echo(receive, send)


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    async def body(self) -> bytes:
        """The body of the next response."""
        head = await self._reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        return await self._reader.readexactly(10)

    def close(self) -> None:
        self._writer.close()


@pytest.fixture
async def app() -> App:
    return App()


@pytest.fixture
async def writes() -> list[bytes]:
    """What the server wrote, write by write."""
    return []


@pytest.fixture
async def client(app: App, writes: list[bytes], monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Client]:
    config = uvicorn.Config(app, lifespan="off", log_config=None)
    config.load()

    class Recorded(HttpProtocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(_RecordingTransport(transport, writes))  # type: ignore[arg-type]

    def connected() -> asyncio.Protocol:
        arrivals = Arrivals(most=10, most_per_address=10, trusted=())
        app.protocols.append(
            Recorded(config=config, server_state=ServerState(), app_state={}, arrivals=arrivals)
        )
        return app.protocols[-1]

    server = await asyncio.get_running_loop().create_server(connected, "127.0.0.1", 0)
    client = Client(*await asyncio.open_connection(*server.sockets[0].getsockname()))
    yield client
    client.close()
    server.close()


class _RecordingTransport:
    def __init__(self, transport: asyncio.Transport, writes: list[bytes]) -> None:
        self._transport = transport
        self._writes = writes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        self._writes.append(data)
        self._transport.write(data)


async def test_a_request_in_one_piece_has_all(client: Client, app: App) -> None:
    app.may_read.clear()
    client.send(HEAD + b"0123456789")
    await app.began.acquire()

    assert app.has_all[0]()
    app.may_read.set()
    assert await client.body() == b"0123456789"


async def test_a_request_in_pieces_has_all_after_the_last(client: Client, app: App) -> None:
    app.may_read.clear()
    client.send(HEAD + b"01234")
    await app.began.acquire()
    assert not app.has_all[0]()

    app.may_read.set()
    client.send(b"56789")

    assert await client.body() == b"0123456789"
    assert app.has_all[0]()


async def test_a_pipelined_request_has_its_own_state(client: Client, app: App) -> None:
    app.may_read.clear()
    client.send(HEAD + b"0123456789" + HEAD + b"abc")
    await app.began.acquire()
    app.may_read.set()
    assert await client.body() == b"0123456789"
    await app.began.acquire()
    assert not app.has_all[1]()

    client.send(b"defghij")

    assert await client.body() == b"abcdefghij"


async def test_a_short_response_is_one_write(client: Client, writes: list[bytes]) -> None:
    client.send(HEAD + b"0123456789")
    await client.body()

    [response] = writes
    assert response.startswith(b"HTTP/1.1 200")
    assert response.endswith(b"\r\n\r\n0123456789")


async def test_pipelined_requests_wait_unparsed(client: Client, app: App) -> None:
    """The request that is served, a few behind it, and the rest as the bytes that arrived."""
    expected = [b"%010d" % number for number in range(2000)]
    client.send(b"".join(HEAD + body for body in expected))

    assert [await client.body() for _ in expected] == expected
    assert app.most_queued < 50


async def test_a_head_that_waits_behind_a_slow_response_is_not_late(client: Client, app: App) -> None:
    app.may_read.clear()
    client.send((HEAD + b"0123456789") * 400)
    await app.began.acquire()
    await wait_until(lambda: app.protocols[0]._reading_paused)
    assert app.protocols[0]._head_timer is None
    app.may_read.set()

    assert [await client.body() for _ in range(400)] == [b"0123456789"] * 400


async def test_a_body_of_tiny_chunks_leaves_turns_to_others(client: Client) -> None:
    """Each turn parses a share of it."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    counting = asyncio.create_task(count())
    chunks = b"1\r\nx\r\n" * 10_000
    client.send(b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")

    assert await client.body() == b"x" * 10
    assert turns > len(chunks) / 4096
    counting.cancel()
