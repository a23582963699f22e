"""A raw connection: the test writes every byte and reads only when it wants to."""

import asyncio
import contextlib
import socket
import struct
import urllib.parse
from typing import Self

from websockets.client import ClientProtocol
from websockets.frames import Close, Frame, Opcode
from websockets.uri import parse_uri

from tests.harness.sockets import CONNECT_PATH

TIMEOUT_S = 30.0


class Line:
    """One TCP connection. Unread data stays in the kernel's buffer, which the peer then fills."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._buffer = b""

    @classmethod
    async def open(cls, url: str, *, receive_buffer: int | None = None) -> Self:
        parts = urllib.parse.urlsplit(url)
        line = socket.socket()
        line.setblocking(False)
        if receive_buffer is not None:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            await asyncio.get_running_loop().sock_connect(line, (parts.hostname, parts.port))
        except BaseException:
            line.close()
            raise
        return cls(line)

    async def write(self, data: bytes) -> bool:
        """Sends all of it; False if the peer has closed the connection."""
        with contextlib.suppress(ConnectionError):
            await asyncio.get_running_loop().sock_sendall(self._line, data)
            return True
        return False

    def end_output(self) -> None:
        """The peer reads the end of our data; we may still read its."""
        self._line.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Closes it with a reset, as HAProxy closes its connections."""
        self._line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._line.close()

    async def read(self, size: int) -> bytes:
        """Exactly `size` bytes. Raises EOFError if the peer closes before."""
        while len(self._buffer) < size:
            self._buffer += await self._more()
        received, self._buffer = self._buffer[:size], self._buffer[size:]
        return received

    async def read_until(self, end: bytes) -> bytes:
        """Everything up to and including `end`. Raises EOFError if the peer closes before."""
        while end not in self._buffer:
            self._buffer += await self._more()
        return await self.read(self._buffer.index(end) + len(end))

    async def _more(self) -> bytes:
        loop = asyncio.get_running_loop()
        try:
            data = await asyncio.wait_for(loop.sock_recv(self._line, 65_536), TIMEOUT_S)
        except ConnectionError:
            data = b""
        if not data:
            raise EOFError
        return data

    async def rest(self) -> bytes:
        """Everything until the peer closes or resets; fails if it does neither."""
        received = b""
        try:
            while True:
                received += await self.read(1)
        except EOFError:
            return received

    def close(self) -> None:
        self._line.close()


class HandmadeSocket(Line):
    """A WebSocket on an edge."""

    @classmethod
    async def connect(cls, url: str, secret: str, *, receive_buffer: int | None = None) -> Self:
        """Connects; the handshake has succeeded."""
        return await cls._connect(url + CONNECT_PATH, secret, receive_buffer=receive_buffer)

    @classmethod
    async def connect_to_blackhole(cls, url: str, secret: str | None = None) -> Self:
        """Connects as a Blackhole client, which without a secret may authenticate later."""
        return await cls._connect(url, secret)

    @classmethod
    async def _connect(cls, url: str, secret: str | None, *, receive_buffer: int | None = None) -> Self:
        client = await cls.open(url, receive_buffer=receive_buffer)
        request = ClientProtocol(parse_uri("ws" + url.removeprefix("http"))).connect()
        if secret is not None:
            request.headers["Authorization"] = f"Bearer {secret}"
        try:
            await client.write(request.serialize())
            head = await client.read_until(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 101 "), head
        except BaseException:
            client.close()
            raise
        return client

    async def send(self, opcode: Opcode, payload: bytes = b"", *, final: bool = True) -> bool:
        return await self.write(as_sent(opcode, payload, final=final))

    async def send_close(self) -> bool:
        return await self.send(Opcode.CLOSE, Close(1000, "").serialize())

    async def frame(self) -> tuple[Opcode, bytes]:
        """The next frame. Raises EOFError at the end of the connection."""
        first, length = await self.read(2)
        if length > 125:
            length = int.from_bytes(await self.read(2 if length == 126 else 8), "big")
        return Opcode(first & 0x0F), await self.read(length)


def as_sent(opcode: Opcode, payload: bytes = b"", *, final: bool = True) -> bytes:
    """A masked frame, as clients send it."""
    return Frame(opcode, payload, fin=final).serialize(mask=True)
