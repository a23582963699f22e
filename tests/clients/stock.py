"""Stock WebSocket clients of Python behind one interface. Each answers pings by itself."""

import asyncio
import contextlib
import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import aiohttp
import websocket
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from tests.clients.in_thread import in_thread
from tests.harness.api import SERVER_TEXTS, ApiKey
from tests.harness.events import number_of
from tests.harness.sockets import CONNECT_PATH
from tests.harness.waiting import wait_until


@dataclass(frozen=True)
class Offer:
    """A client's handshake."""

    url: str
    subprotocols: Sequence[str] = ()
    headers: dict[str, str] = field(default_factory=dict, repr=False)


def as_browsers_do(url: str, key: ApiKey) -> Offer:
    return Offer(_target(url), ("wss", f"pelion_{key.secret}"))


def key_first(url: str, key: ApiKey) -> Offer:
    return Offer(_target(url), (f"pelion_{key.secret}", "wss"))


def with_header(url: str, key: ApiKey) -> Offer:
    return Offer(_target(url), headers={"Authorization": f"Bearer {key.secret}"})


def _target(url: str) -> str:
    return url.replace("http://", "ws://", 1) + CONNECT_PATH


@dataclass
class Socket:
    """A socket and what it has received. `subprotocol` is the selected one."""

    subprotocol: str | None = None
    messages: list[dict[str, list[Any]]] = field(default_factory=list)
    pongs: list[bytes] = field(default_factory=list)
    close_code: int | None = None

    def received(self, message: str | bytes) -> None:
        assert isinstance(message, str), "messages are text"
        self.messages.append(json.loads(message))

    @property
    def numbers(self) -> list[int]:
        return [number_of(item) for message in self.messages for item in message.get("notifications", ())]

    async def has(self, numbers: Sequence[int]) -> None:
        """Waits for these numbers in this order, and no others."""
        what = lambda: f"{numbers}: {self.numbers}, closed with {self.close_code}"  # noqa: E731
        await wait_until(lambda: len(self.numbers) >= len(numbers), what=what)
        assert self.numbers == list(numbers)

    async def closed(self) -> int:
        """Waits for the close; returns the code that the client reports."""
        await wait_until(lambda: self.close_code is not None, what="a close")
        assert self.close_code is not None
        return self.close_code

    async def ping_and_wait(self, payload: bytes) -> None:
        """Sends a ping and waits for its pong."""
        self.ping(payload)
        await wait_until(lambda: self.pongs[-1:] == [payload], what=lambda: f"{payload!r}: {self.pongs}")

    def ping(self, payload: bytes) -> None:
        raise NotImplementedError

    async def close(self) -> None:
        """Closes from the client's side; idempotent."""
        raise NotImplementedError


class Library(Protocol):
    """A client library. `pings`: whether it can send pings."""

    name: str
    pings: bool

    async def open(self, offer: Offer) -> Socket: ...


class Websockets:
    name, pings = "websockets", True

    async def open(self, offer: Offer) -> Socket:
        subprotocols = [Subprotocol(each) for each in offer.subprotocols] or None
        connection = await connect(
            offer.url, subprotocols=subprotocols, additional_headers=offer.headers, proxy=None
        )
        assert connection.response is not None
        SERVER_TEXTS.append(str(connection.response.headers))
        return _WebsocketsSocket(connection)


class _WebsocketsSocket(Socket):
    def __init__(self, connection: ClientConnection) -> None:
        super().__init__(connection.subprotocol)
        self._connection = connection
        self._reader = asyncio.create_task(self._read())
        self._pings: set[asyncio.Task[None]] = set()

    async def _read(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for message in self._connection:
                self.received(message)
        self.close_code = self._connection.close_code

    def ping(self, payload: bytes) -> None:
        self._pings.add(asyncio.create_task(self._ping(payload)))

    async def _ping(self, payload: bytes) -> None:
        # The library resolves it by a pong with the same payload only.
        await (await self._connection.ping(payload))
        self.pongs.append(payload)

    async def close(self) -> None:
        await self._connection.close()
        await self._reader


class Aiohttp:
    # It does not report pongs.
    name, pings = "aiohttp", False

    async def open(self, offer: Offer) -> Socket:
        session = aiohttp.ClientSession()
        try:
            connection = await session.ws_connect(
                offer.url, protocols=offer.subprotocols, headers=offer.headers
            )
        except BaseException:
            await session.close()
            raise
        return _AiohttpSocket(session, connection)


class _AiohttpSocket(Socket):
    def __init__(
        self, session: aiohttp.ClientSession, connection: aiohttp.ClientWebSocketResponse[bool]
    ) -> None:
        super().__init__(connection.protocol)
        self._session = session
        self._connection = connection
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for message in self._connection:
            self.received(message.data)
        self.close_code = self._connection.close_code

    async def close(self) -> None:
        await self._connection.close()
        await self._reader
        await self._session.close()


class WebsocketClient:
    name, pings = "websocket-client", True

    async def open(self, offer: Offer) -> Socket:
        socket = _WebsocketClientSocket(offer)
        await wait_until(lambda: socket.opened.is_set() or socket.errors, what="an open socket")
        assert socket.opened.is_set(), socket.errors
        return socket


class _WebsocketClientSocket(Socket):
    """Its callbacks run in the thread of `run_forever`."""

    def __init__(self, offer: Offer) -> None:
        super().__init__()
        self.errors: list[object] = []
        self.opened = threading.Event()
        self._owes_a_pong = False
        self._app = websocket.WebSocketApp(
            offer.url,
            header=offer.headers,
            subprotocols=list(offer.subprotocols) or None,
            on_open=self._on_open,
            on_message=self._on_message,
            on_ping=self._on_ping,
            on_pong=lambda _, payload: self.pongs.append(bytes(payload)),
            on_error=lambda _, error: self.errors.append(error),
            on_close=self._on_close,
        )
        threading.Thread(target=self._app.run_forever, daemon=True).start()

    def _on_open(self, app: websocket.WebSocketApp) -> None:
        assert app.sock is not None
        self.subprotocol = app.sock.getsubprotocol()
        self.opened.set()

    def _on_message(self, _: websocket.WebSocketApp, message: str | bytes) -> None:
        self._owes_a_pong = True
        self.received(message)

    def _on_ping(self, _: websocket.WebSocketApp, __: bytes) -> None:
        """The library has answered it."""
        self._owes_a_pong = False

    def _on_close(self, _: websocket.WebSocketApp, code: int | None, reason: str | None) -> None:
        self.close_code = code or 1006

    def ping(self, payload: bytes) -> None:
        assert self._app.sock is not None
        self._app.sock.ping(payload)

    async def close(self) -> None:
        # Others answer what comes before the close frame. This one answers nothing any more, and would get
        # its last message again.
        await wait_until(lambda: not self._owes_a_pong or self.close_code is not None, what="the last ping")
        # Do not join its thread, which may sleep for 10 s.
        await in_thread(self._app.close)
