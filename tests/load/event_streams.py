"""A cheap client of `GET /v1/stream`: parses of an event what the harness counts, and nothing else."""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import orjson

from tests.load.connections import Refused

Item = tuple[int, int, int]
"""Lane, number and time of sending of one event."""

_PATH = re.compile(rb'"path":"/(\d{4})/(\d{9})/(\d{14})"')
_ID = re.compile(rb"^id: ?(.*)$", re.MULTILINE)
_CRLF = b"\r\n"
_BLANK_LINE = b"\n\n"
# Readers of one topic get the same bytes at the same time: one of them parses.
_REMEMBERED = 128


@dataclass(frozen=True, slots=True)
class Said:
    """An event about the connection: `recovered`, `overflow` or `end`. It came before `items[before]`."""

    name: str
    data: dict[str, Any]
    before: int


@dataclass(frozen=True, slots=True)
class Parsed:
    """What some bytes hold. `chunk` and `text` are beginnings of what has not come as a whole."""

    items: Sequence[Item]
    garbled: int
    said: Sequence[Said]
    last_id: bytes
    chunk: bytes
    text: bytes
    is_over: bool


class StreamParser:
    """Parses bodies in chunks; remembers the last pieces that were whole."""

    def __init__(self) -> None:
        self._remembered: dict[bytes, Parsed] = {}

    def parse(self, piece: bytes, text: bytes = b"") -> Parsed:
        """`piece` begins with a chunk, `text` is what earlier chunks have left."""
        if text:
            return _parsed(piece, text)
        found = self._remembered.get(piece)
        if found is None:
            found = _parsed(piece, text)
            if not found.chunk and not found.text:
                if len(self._remembered) >= _REMEMBERED:
                    self._remembered.clear()
                self._remembered[piece] = found
        return found


def _parsed(piece: bytes, text: bytes) -> Parsed:
    more, rest, is_over = _chunks(piece)
    whole, _, text = (text + more).rpartition(_BLANK_LINE)
    items: list[Item] = []
    said: list[Said] = []
    garbled = 0
    for block in whole.split(_BLANK_LINE):
        if block.startswith(b"data:"):
            if (found := _PATH.search(block)) is None:
                garbled += 1
            else:
                items.append((int(found[1]), int(found[2]), int(found[3])))
        elif block.startswith(b"event:"):
            said.append(_said(block, len(items)))
    ids = _ID.findall(whole)
    return Parsed(items, garbled, said, ids[-1] if ids else b"", rest, text, is_over)


def _said(block: bytes, before: int) -> Said:
    fields = dict(line.split(b": ", 1) for line in block.split(b"\n"))
    return Said(fields[b"event"].decode(), orjson.loads(fields[b"data"]), before)


def _chunks(piece: bytes) -> tuple[bytes, bytes, bool]:
    """The content of its whole chunks, the rest, and whether the last chunk is among them."""
    at, found = 0, list[bytes]()
    while (line := piece.find(_CRLF, at)) >= 0:
        length = int(piece[at:line], 16)
        end = line + 2 + length + 2
        if end > len(piece):
            break
        if not length:
            return b"".join(found), b"", True
        found.append(piece[line + 2 : end - 2])
        at = end
    return b"".join(found), piece[at:], False


class ReadsEvents(Protocol):
    """Who a stream is for."""

    def on_parsed(self, parsed: Parsed) -> None: ...

    def on_closed(self) -> None: ...


class EventStream(asyncio.Protocol):
    """One connection. `opened` is done with the head of the response."""

    def __init__(self, request: bytes, reader: ReadsEvents, parser: StreamParser) -> None:
        self._request = request
        self._reader = reader
        self._parser = parser
        self._transport: asyncio.Transport | None = None
        self._chunk = self._text = b""
        self._is_open = False
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not inherit from asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._request)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if not self.opened.done():
            self.opened.set_exception(ConnectionResetError(f"closed before the response: {exc}"))
        self._reader.on_closed()

    def data_received(self, data: bytes) -> None:
        if not self._is_open:
            data = self._after_head(data)
            if not data:
                return
        if self._chunk:
            data = self._chunk + data
        parsed = self._parser.parse(data, self._text)
        self._chunk, self._text = parsed.chunk, parsed.text
        self._reader.on_parsed(parsed)
        if parsed.is_over:
            self.abort()

    def _after_head(self, data: bytes) -> bytes:
        """What follows the head; b"" until it is complete."""
        head, blank, rest = (self._chunk + data).partition(_CRLF + _CRLF)
        self._chunk = b"" if blank else head
        if not blank or self.opened.done():
            return b""
        if not head.startswith(b"HTTP/1.1 200 "):
            self.opened.set_exception(Refused(f"{head.splitlines()[0]!r} {rest[:300]!r}"))
            self.abort()
            return b""
        self._is_open = True
        self.opened.set_result(None)
        return rest


def stream_request(host: str, topic: str, *, secret: str, last_id: bytes = b"") -> bytes:
    """The request of a reader; it comes back with the last id that it had."""
    id_line = b"Last-Event-ID: %b\r\n" % last_id if last_id else b""
    head = f"GET /v1/stream?topic={topic} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {secret}\r\n"
    return head.encode() + b"Accept: text/event-stream\r\n" + id_line + b"\r\n"
