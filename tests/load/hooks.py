"""A worker's role: webhook receivers on one port, a path for each channel."""

import asyncio
from collections.abc import Sequence
from typing import cast

from httptools import HttpRequestParser

from tests.load.recorder import Received, Recorder

_ACCEPTED = b"HTTP/1.1 204 No Content\r\n\r\n"
_BUSY = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"
_TEST_REQUEST = b"{}"


class _Connection(asyncio.Protocol):
    """A connection from a dispatcher."""

    def __init__(self, hooks: "Hooks") -> None:
        self._hooks = hooks
        self._parser = HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._path = b""
        self._body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._path = self._body = b""

    def on_url(self, url: bytes) -> None:
        self._path += url

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        channel = int(self._path.rpartition(b"/")[2])
        answer, delay_s = self._hooks.take(channel, self._body)
        if delay_s:
            asyncio.get_running_loop().call_later(delay_s, self._write, answer)
        else:
            self._write(answer)

    def _write(self, answer: bytes) -> None:
        if answer and self._transport is not None:
            self._transport.write(answer)


class Hooks:
    """Accepts every request at once, but of channels that are silent, busy (429) or slow."""

    def __init__(self) -> None:
        self._recorder = Recorder()
        self._silent: frozenset[int] = frozenset()
        self._busy: frozenset[int] = frozenset()
        self._delays_s: dict[int, float] = {}
        self._ignored: frozenset[int] = frozenset()
        self._server: asyncio.Server | None = None

    @property
    def received(self) -> int:
        return self._recorder.received

    def take(self, channel: int, body: bytes) -> tuple[bytes, float]:
        """Records the request; returns its response, b"" for none, and after how many seconds it comes."""
        if channel in self._silent:
            return b"", 0.0
        if channel in self._busy:
            return _BUSY, 0.0
        if body != _TEST_REQUEST and channel not in self._ignored:
            self._recorder.record(channel, body)
        return _ACCEPTED, self._delays_s.get(channel, 0.0)

    async def listen(self, *, address: str = "127.0.0.1") -> str:
        """Starts the server; returns the URL to which a channel's number is appended."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), address, 0, backlog=1024)
        return f"http://{address}:{self._server.sockets[0].getsockname()[1]}/"

    async def stop_responding(self, *, channels: Sequence[int]) -> None:
        """Sends these channels no more responses."""
        self._silent = frozenset(channels)

    async def refuse(self, *, channels: Sequence[int]) -> None:
        """Answers these channels with a 429 from now on, and records nothing of theirs."""
        self._busy = frozenset(channels)

    async def ignore(self, *, channels: Sequence[int]) -> None:
        """Accepts what these channels get from now on, and records nothing of it."""
        self._ignored = frozenset(channels)

    async def delay(self, *, channels: Sequence[int], seconds: float) -> None:
        """Responds to these channels so much later from now on."""
        self._delays_s = dict.fromkeys(channels, seconds)

    async def reset(self) -> None:
        self._recorder.reset()

    async def recorded(self) -> Received:
        return self._recorder.recorded()

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
