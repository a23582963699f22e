"""Cheap, correct clients: an HTTP connection, and a WebSocket that answers pings.

A stock client costs as much CPU as the measured services; tests/clients covers stock clients.
"""

import asyncio
import base64
import hashlib
import os
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar, cast
from urllib.parse import urlsplit

from httptools import HttpResponseParser

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_TEXT, _CLOSE, _PING = 0x1, 0x8, 0x9
_FINAL = 0x80
# A mask of zeros leaves the payload unchanged: valid, and no work.
_PONG, _CLOSING, _TEXT_FRAME = b"\x8a", b"\x88", b"\x81"
_NO_MASK = b"\x00\x00\x00\x00"
_HANDSHAKE_LIMIT_S = 30
_RESPONSE_LIMIT_S = 30

P = TypeVar("P", bound=asyncio.Protocol)


class Refused(Exception):
    """An unexpected response."""


@dataclass(slots=True)
class Reply:
    """One HTTP response."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


class HttpConnection(asyncio.Protocol):
    """One keep-alive connection with one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._parser = HttpResponseParser(self)
        self._reply = Reply()
        self._waiter: asyncio.Future[Reply] | None = None

    @classmethod
    async def open(cls, url: str) -> "HttpConnection":
        return await connected(cls, url)

    @property
    def open_now(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    async def request(self, request: bytes, *, within_s: float = _RESPONSE_LIMIT_S) -> Reply:
        """Raises OSError if the connection ends before the response is complete, or the time is over."""
        if self._transport is None or not self.open_now:
            raise ConnectionResetError("closed before the request")
        self._waiter = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        try:
            async with asyncio.timeout(within_s):
                return await self._waiter
        except (TimeoutError, asyncio.CancelledError):
            # A late response would be taken for that of the next request.
            self.close()
            raise

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(ConnectionResetError(f"closed before the response: {exc}"))

    def on_message_begin(self) -> None:
        self._reply = Reply()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._reply.headers[name.decode().lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._reply.body += body

    def on_message_complete(self) -> None:
        self._reply.status = self._parser.get_status_code()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(self._reply)


class RawSocket(asyncio.Protocol):
    """One WebSocket. `take` gets every text message before the pong after it is sent."""

    def __init__(self, url: str, headers: Mapping[str, str], take: Callable[[bytes], None]) -> None:
        self._take = take
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._message = bytearray()
        self._nonce = base64.b64encode(os.urandom(16))
        self._request = upgrade(url, headers, self._nonce)
        loop = asyncio.get_running_loop()
        self._accepted: asyncio.Future[None] = loop.create_future()
        self.closed: asyncio.Future[int] = loop.create_future()
        """The close code; 1006 without one."""
        self._code = 1006

    @classmethod
    async def open(
        cls, origin: str, path: str, credentials: str | Mapping[str, str], take: Callable[[bytes], None]
    ) -> "RawSocket":
        """The credentials are a secret, or headers of their own.

        Raises Refused if the server does not upgrade, ConnectionError if it closes the connection.
        """
        headers = bearer(credentials) if isinstance(credentials, str) else credentials
        socket = await connected(lambda: cls(origin + path, headers, take), origin)
        async with asyncio.timeout(_HANDSHAKE_LIMIT_S):
            await socket._accepted
        return socket

    def send_text(self, text: bytes) -> None:
        """At most 64 KiB."""
        if self._transport is not None:
            length = bytes((0xFE,)) + len(text).to_bytes(2) if len(text) > 125 else bytes((0x80 | len(text),))
            self._transport.write(_TEXT_FRAME + length + _NO_MASK + text)

    def abort(self) -> None:
        """Cuts the connection without a close frame."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not inherit from asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._request)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if not self._accepted.done():
            self._accepted.set_exception(ConnectionResetError(f"closed in the handshake: {exc}"))
        if not self.closed.done():
            self.closed.set_result(self._code)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._accepted.done() or self._handshake_done():
            self._read_frames()

    def _handshake_done(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return False
        response = bytes(self._buffer[:end])
        del self._buffer[: end + 4]
        accept = base64.b64encode(hashlib.sha1(self._nonce + _GUID).digest())
        if not response.startswith(b"HTTP/1.1 101 ") or accept not in response:
            self._accepted.set_exception(Refused(f"no upgrade: {response.splitlines()[0]!r}"))
            self.abort()
            return False
        self._accepted.set_result(None)
        return True

    def _read_frames(self) -> None:
        buffer, at = self._buffer, 0
        while (found := frame_at(buffer, at)) is not None:
            first, start, at = found
            self._handle_frame(first, bytes(buffer[start:at]))
        del buffer[:at]

    def _handle_frame(self, first: int, payload: bytes) -> None:
        kind = first & 0x0F
        if kind <= _TEXT:
            if first & _FINAL and not self._message:
                self._take(payload)
                return
            self._message += payload
            if first & _FINAL:
                whole, self._message = bytes(self._message), bytearray()
                self._take(whole)
        elif kind == _PING:
            self._write(_PONG, payload)
        elif kind == _CLOSE:
            self._code = int.from_bytes(payload[:2]) if payload else 1005
            self._write(_CLOSING, payload[:2])
            if not self.closed.done():
                self.closed.set_result(self._code)

    def _write(self, first: bytes, payload: bytes) -> None:
        if self._transport is not None:
            self._transport.write(first + bytes((0x80 | len(payload),)) + _NO_MASK + payload)


def frame_at(buffer: bytearray, at: int) -> tuple[int, int, int] | None:
    """A frame's first byte, and start and end of its payload; None if it is incomplete."""
    have = len(buffer) - at
    if have < 2:
        return None
    length, start = buffer[at + 1] & 0x7F, 2
    if length >= 126:
        start = 4 if length == 126 else 10
        if have < start:
            return None
        length = int.from_bytes(buffer[at + 2 : at + start])
    if have < start + length:
        return None
    return buffer[at], at + start, at + start + length


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def upgrade(
    url: str, headers: Mapping[str, str] | None = None, nonce: bytes = base64.b64encode(bytes(16))
) -> bytes:
    """A handshake's request; without headers that of a Blackhole client, which may authenticate later."""
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    more = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
    return (
        f"GET {target} HTTP/1.1\r\nHost: {parts.netloc}\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {nonce.decode()}\r\n"
        f"{more}\r\n"
    ).encode()


async def connected(factory: Callable[[], P], url: str) -> P:
    """A connection to the URL's host and port."""
    parts = urlsplit(url)
    if parts.hostname is None:
        raise ValueError(f"{url} names no host")
    secure = parts.scheme in ("https", "wss")
    _, protocol = await asyncio.get_running_loop().create_connection(
        factory,
        parts.hostname,
        parts.port or (443 if secure else 80),
        ssl=ssl.create_default_context() if secure else None,
    )
    return protocol
