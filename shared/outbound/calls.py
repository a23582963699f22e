"""One call over a connection of aiohttp's pool: its request written at once, and the head of its response.

aiohttp opens, keeps and parses; its session is left out. It makes a request, a response and a task's worth of
objects for each call, which took half of what a webhook costs.
"""

import asyncio
import contextlib
import fcntl
import sys
import termios
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import aiohttp
from aiohttp.http import HttpProcessingError
from aiohttp.streams import EofStream, StreamReader
from yarl import URL

from shared.outbound.response_head import HeadReader

HEADERS = {
    "User-Agent": "notification-gateway",
    "Content-Type": "application/json",
    "Accept-Encoding": "identity",
}
"""Of every request that has no others by these names."""

_BODY_LIMIT_BYTES = 8 * 1024
_KEPT_BODY_BYTES = 2 * 1024
_BODY_WAIT_S = 0.25
# Written with the head: more is copied for nothing.
_WITH_HEAD_BYTES = 64 * 1024
# A longer body goes piece by piece: TLS encrypts what it is given in one step, which blocks the event loop.
_IN_ONE_PIECE_BYTES = 1024 * 1024
_PIECE_BYTES = 256 * 1024
_NO_LIMIT = aiohttp.ClientTimeout(total=None, sock_connect=None)


class ConnectionLost(aiohttp.ClientError):
    """The connection was lost before a response."""


class BadAnswer(aiohttp.ClientError):
    """What came is no HTTP."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What all requests to one URL with the same headers have in common.

    `target` is what aiohttp connects by. `head` lacks what differs, and its end.
    """

    target: aiohttp.ClientRequest
    head: bytes


@dataclass(slots=True)
class Response:
    """A final response, whose body is still to be read."""

    status: int
    headers: Mapping[str, str]
    body: StreamReader


def prepared(method: str, url: URL, headers: Sequence[tuple[str, str]], *, tls: object = True) -> Prepared:
    """Raises ValueError, or a ClientError, for what makes no request."""
    if url.scheme not in ("http", "https"):
        raise aiohttp.NonHttpUrlClientError(url)
    given = {name.lower() for name, _ in headers}
    ours = [(name, value) for name, value in HEADERS.items() if name.lower() not in given]
    target = aiohttp.ClientRequest(
        method,
        url,
        headers=[*ours, *headers],
        loop=asyncio.get_running_loop(),
        ssl=tls,  # type: ignore[arg-type]
    )
    lines = [f"{method} {target.url.raw_path_qs} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in target.headers.items() if name != "Content-Length"]
    return Prepared(target, _encoded(lines))


def _encoded(lines: Sequence[str]) -> bytes:
    """Raises ValueError for a line that would be two."""
    text = "".join(f"{line}\r\n" for line in lines)
    if text.count("\r") != len(lines) or text.count("\n") != len(lines) or "\0" in text:
        raise ValueError("a line break in a header")
    return text.encode()


class Call:
    """One call. It must be ended by `read_body`, or by `abort`."""

    def __init__(self, connector: aiohttp.BaseConnector) -> None:
        self.has_response = False
        self.reused = False
        """The connection has carried other requests: the receiver may have closed it before this one."""
        self.has_connection = False
        self._connector = connector
        self._started_s = time.monotonic()
        self._connection: aiohttp.connector.Connection | None = None
        self._protocol: HeadReader | None = None
        self._writing: asyncio.Task[None] | None = None
        self._is_large = False

    @property
    def took_ms(self) -> int:
        return round((time.monotonic() - self._started_s) * 1000)

    @property
    def status(self) -> int | None:
        """The final status that has arrived, also if the rest of the response could not be parsed."""
        return self._protocol.status if self._protocol is not None else None

    @property
    def has_begun(self) -> bool:
        """Whether anything of a response has arrived."""
        return self._protocol is not None and self._protocol.has_begun

    async def make(self, request: Prepared, varying: Mapping[str, str], body: bytes) -> Response:
        """Sends the request with these headers too. Raises ClientError (also ours), ValueError."""
        lines = [f"{name}: {value}" for name, value in varying.items()]
        lines.append(f"Content-Length: {len(body)}")
        head = b"%b%b\r\n" % (request.head, _encoded(lines))
        self._protocol, self.has_connection = None, False
        self._connection = await self._connector.connect(request.target, [], _NO_LIMIT)
        protocol = self._connection.protocol
        assert isinstance(protocol, HeadReader), "the connector makes them"
        self._protocol, self.has_connection = protocol, True
        self.reused = protocol.begin()
        try:
            self._write(protocol, head, body)
            response = await self._response(protocol)
        except HttpProcessingError as exc:
            raise BadAnswer from exc
        except (aiohttp.ClientConnectionError, EofStream, OSError) as exc:
            raise ConnectionLost from exc
        self.has_response = True
        return response

    def _write(self, protocol: HeadReader, head: bytes, body: bytes) -> None:
        assert protocol.transport is not None, "it is connected"
        self._is_large = len(body) > _WITH_HEAD_BYTES
        if not self._is_large:
            protocol.transport.write(head + body)
        elif len(body) < _IN_ONE_PIECE_BYTES:
            protocol.transport.write(head)
            protocol.transport.write(body)
        else:
            protocol.transport.write(head)
            # Beside it, the receiver may respond early.
            self._writing = asyncio.create_task(_write_pieces(protocol, memoryview(body)))

    async def _response(self, protocol: HeadReader) -> Response:
        while True:
            message, body = await protocol.read()
            # 101 is final: the connection is another protocol's.
            if message.code >= 200 or message.code == 101:
                return Response(message.code, message.headers, body)

    async def read_body(self, response: Response) -> bytes:
        """The first 2 KiB of the body, or what has come of them in time. Ends the call.

        Reads a short body to its end, so that the connection can be kept; closes the connection otherwise.
        """
        try:
            if response.body.is_eof():
                return response.body.read_nowait()[:_KEPT_BODY_BYTES]
            return await _beginning_of(response.body)
        except (aiohttp.ClientError, OSError):
            return b""
        finally:
            self._end(is_whole=response.body.is_eof())

    def abort(self) -> None:
        """Aborts the connection: closing would wait for a receiver that does not read what was sent."""
        self._stop_writing()
        if self._protocol is not None and self._protocol.transport is not None:
            self._protocol.transport.abort()
        if self._connection is not None:
            self._connection.close()

    def _end(self, *, is_whole: bool) -> None:
        protocol, connection = self._protocol, self._connection
        assert protocol is not None, "there is a response"
        assert connection is not None, "there is a response"
        transport = protocol.transport
        is_stuck = transport is None or transport.is_closing() or transport.get_write_buffer_size() > 0
        # The kernel takes a large body also for a receiver that reads nothing: the next request would wait.
        is_stuck = is_stuck or (self._is_large and transport is not None and _has_unread(transport))
        if is_stuck or self._stop_writing():
            # The response came before all was sent.
            self.abort()
        elif is_whole:
            connection.release()
        else:
            connection.close()

    def _stop_writing(self) -> bool:
        """Whether there was more to write."""
        return self._writing is not None and self._writing.cancel()


def _has_unread(transport: asyncio.Transport) -> bool:
    """Has the receiver's kernel still to acknowledge something?"""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        descriptor = transport.get_extra_info("socket").fileno()
        queued = fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4))
        return int.from_bytes(queued, sys.byteorder) > 0
    return False


async def _write_pieces(protocol: HeadReader, body: memoryview) -> None:
    # Where the connection is lost, the reader of the response says so.
    with contextlib.suppress(aiohttp.ClientError, OSError):
        for start in range(0, len(body), _PIECE_BYTES):
            await protocol.drained()
            if protocol.transport is None or protocol.transport.is_closing():
                return
            protocol.transport.write(body[start : start + _PIECE_BYTES])


async def _beginning_of(body: StreamReader) -> bytes:
    kept = bytearray()
    left = _BODY_LIMIT_BYTES
    with contextlib.suppress(TimeoutError, aiohttp.ClientError, OSError):
        async with asyncio.timeout(_BODY_WAIT_S):
            while left > 0 and (chunk := await body.read(left)):
                left -= len(chunk)
                kept += chunk[: _KEPT_BODY_BYTES - len(kept)]
    return bytes(kept)
