"""What an application hears of its connection, over a real one."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from shared.runtime.http.protocol import HttpProtocol

HEAD = b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\n"


class App:
    """Answers each request with its body, when it may."""

    def __init__(self) -> None:
        self.began = asyncio.Semaphore(0)
        self.may_read = asyncio.Event()
        self.may_read.set()
        self.has_all: list[Callable[[], bool]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.has_all.append(scope["extensions"]["http.connection"]["has_all"])
        self.began.release()
        await self.may_read.wait()
        body, more = b"", True
        while more:
            message = await receive()
            body += message["body"]
            more = message["more_body"]
        length = str(len(body)).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
        await send({"type": "http.response.body", "body": body})


class Client:
    """One connection, and every piece in which the answers came off its transport."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def says(self, data: bytes) -> None:
        self._writer.write(data)

    async def body(self) -> bytes:
        """Of the next answer."""
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
    """What left the server, write by write."""
    return []


@pytest.fixture
async def client(app: App, writes: list[bytes], monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Client]:
    config = uvicorn.Config(app, lifespan="off", log_config=None)
    config.load()

    class Watched(HttpProtocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(_Watching(transport, writes))  # type: ignore[arg-type]

    def connected() -> asyncio.Protocol:
        return Watched(config=config, server_state=ServerState(), app_state={})

    server = await asyncio.get_running_loop().create_server(connected, "127.0.0.1", 0)
    client = Client(*await asyncio.open_connection(*server.sockets[0].getsockname()))
    yield client
    client.close()
    server.close()


class _Watching:
    def __init__(self, transport: asyncio.Transport, writes: list[bytes]) -> None:
        self._transport = transport
        self._writes = writes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        self._writes.append(data)
        self._transport.write(data)


async def test_a_request_that_came_at_once_is_all_there(client: Client, app: App) -> None:
    app.may_read.clear()
    client.says(HEAD + b"0123456789")
    await app.began.acquire()

    assert app.has_all[0]()
    app.may_read.set()
    assert await client.body() == b"0123456789"


async def test_of_one_that_comes_in_pieces_something_is_missing(client: Client, app: App) -> None:
    app.may_read.clear()
    client.says(HEAD + b"01234")
    await app.began.acquire()
    assert not app.has_all[0]()

    app.may_read.set()
    client.says(b"56789")

    assert await client.body() == b"0123456789"
    assert app.has_all[0]()


async def test_one_that_waits_behind_another_is_told_of_its_own(client: Client, app: App) -> None:
    app.may_read.clear()
    client.says(HEAD + b"0123456789" + HEAD + b"abc")
    await app.began.acquire()
    app.may_read.set()
    assert await client.body() == b"0123456789"
    await app.began.acquire()
    assert not app.has_all[1]()

    client.says(b"defghij")

    assert await client.body() == b"abcdefghij"


async def test_a_short_answer_is_one_write(client: Client, writes: list[bytes]) -> None:
    client.says(HEAD + b"0123456789")
    await client.body()

    [answer] = writes
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(b"\r\n\r\n0123456789")
