"""A WebSocket client that sends no pong and no close frame of its own accord."""

import asyncio
import contextlib
import json
import socket
import struct
import urllib.parse
from collections.abc import Mapping
from typing import Any, Self

from websockets.client import ClientProtocol
from websockets.frames import Close, Frame, Opcode
from websockets.http11 import Response
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from tests.harness.events import number_of
from tests.harness.sockets import CONNECT_PATH
from tests.harness.waiting import wait_until


class SilentSocket:
    """Uses the pure protocol of `websockets`, and discards what that would send by itself."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, protocol: Any) -> None:
        self._reader = reader
        self._writer = writer
        self._protocol = protocol
        self.response: Response | None = None
        self.pings: list[bytes] = []
        self.numbers: list[int] = []
        self.close_code: int | None = None
        self.close_payload: bytes | None = None
        self.ended = False
        self._task = asyncio.create_task(self._read())

    @classmethod
    async def open(cls, url: str, headers: Mapping[str, str]) -> Self:
        """Connects with exactly these headers. It supports the subprotocol `wss`."""
        reader, writer = await _connection(url)
        target = url.replace("http://", "ws://", 1) + CONNECT_PATH
        protocol = ClientProtocol(parse_uri(target), subprotocols=[Subprotocol("wss")], max_size=None)
        request = protocol.connect()
        del request.headers["Sec-WebSocket-Protocol"]
        request.headers.update(headers)
        writer.write(request.serialize())
        client = cls(reader, writer, protocol)
        protocol.send_request(request)
        await wait_until(lambda: client.response, what="a response to the handshake")
        assert client.response is not None
        assert client.response.status_code == 101, client.response
        return client

    async def _read(self) -> None:
        with contextlib.suppress(OSError):
            while data := await self._reader.read(65536):
                self._protocol.receive_data(data)
                for event in self._protocol.events_received():
                    self._keep(event)
                self._protocol.data_to_send()
        self.ended = True

    def _keep(self, event: Any) -> None:
        if isinstance(event, Response):
            self.response = event
        elif event.opcode is Opcode.PING:
            self.pings.append(bytes(event.data))
        elif event.opcode is Opcode.CLOSE:
            self.close_payload = bytes(event.data)
            self.close_code = Close.parse(self.close_payload).code
        elif event.opcode is Opcode.TEXT:
            items = json.loads(bytes(event.data)).get("notifications", [])
            self.numbers.extend(number_of(item) for item in items)

    async def pong(self, payload: bytes) -> None:
        await self._send(Frame(Opcode.PONG, payload))

    async def answer_close(self) -> None:
        assert self.close_code is not None
        await self._send(Frame(Opcode.CLOSE, Close(self.close_code, "").serialize()))

    async def _send(self, frame: Frame) -> None:
        await self.write(frame.serialize(mask=True))

    async def write(self, data: bytes) -> None:
        """Sends these bytes, in one packet if they fit in one."""
        self._writer.write(data)
        await self._writer.drain()

    def end_output(self) -> None:
        """The server reads the end of our data; we still read its."""
        self._writer.write_eof()

    def reset(self) -> None:
        """Ends the connection by a reset: the kernel sends no end of our data."""
        line = self._writer.get_extra_info("socket")
        line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    async def close(self) -> None:
        self._task.cancel()
        self._writer.transport.abort()
        await asyncio.wait([self._task])


async def exchange(url: str, request: str) -> tuple[int, dict[str, str], str]:
    """Sends hand-written request lines; returns status, headers in lower case, and body."""
    reader, writer = await _connection(url)
    try:
        writer.write(request.replace("\n", "\r\n").encode())
        head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)).decode()
        lines = head.split("\r\n")
        headers = {
            name.strip().lower(): value.strip() for name, _, value in (x.partition(":") for x in lines[1:])
        }
        body = await asyncio.wait_for(reader.readexactly(int(headers.get("content-length", "0"))), 20)
        return int(lines[0].split()[1]), headers, body.decode()
    finally:
        writer.close()


async def _connection(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    parts = urllib.parse.urlsplit(url)
    assert parts.port is not None
    return await asyncio.open_connection(parts.hostname, parts.port)
