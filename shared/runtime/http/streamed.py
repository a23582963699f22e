"""A response whose end is not known when it begins: its parts go straight to the transport.

The application sends the head by ASGI's `send`, so that every layer adds its headers. What follows would cost
a coroutine in each of these layers; here it is one call, of bytes that many responses may share. The layers
themselves end with the head: their frames would take more memory than all else of a response that is quiet.
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from shared.runtime.http.write_coalescing import WriteCoalescer
from shared.runtime.send_queue import is_broken, unread_bytes

if TYPE_CHECKING:
    from shared.runtime.http.protocol import HttpProtocol

_LAST_CHUNK = b"0\r\n\r\n"
_HAS_ENDED = asyncio.Event()
_HAS_ENDED.set()


def chunk(data: bytes) -> bytes:
    """The data as a chunk of HTTP/1.1. It must not be empty: that would end the response."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class StreamedResponse:
    """Made before the head is sent, which must say `connection: close`: with it the connection ends too."""

    __slots__ = ("_cycle", "_plain", "_protocol", "_transport", "is_chunked")

    def __init__(self, protocol: "HttpProtocol", cycle: RequestResponseCycle) -> None:
        # HTTP/1.0 knows no chunks: there the response ends with the connection.
        self.is_chunked = cycle.scope["http_version"] != "1.0"
        """Whether each part must be a `chunk`."""
        if not self.is_chunked:
            cycle.chunked_encoding = False
        self._protocol = protocol
        self._cycle = cycle
        self._transport = cast(WriteCoalescer, cycle.transport)
        self._plain = self._transport.transport

    def detach(self, on_lost: Callable[[], None]) -> bool:
        """The head is sent, and the application returns: what follows is written by `write`, until `end`.

        `on_lost` is called when the connection is lost. False if it is lost already; then nothing is called.
        """
        if not self.is_open:
            return False
        self._protocol.on_lost = on_lost
        # What uvicorn asks of an application that returns before its response is complete.
        self._cycle.disconnected = True
        # An event of its own takes 800 bytes, and no task waits for it any more.
        self._cycle.message_event = _HAS_ENDED
        # Kept until the end otherwise: a head may have 64 KiB.
        if self._protocol.headers is self._cycle.scope["headers"]:
            self._protocol.headers = []
        self._cycle.scope["headers"] = []
        # The connection's methods, for an application that has returned.
        self._cycle.scope["extensions"] = {}
        return True

    def bound(self, size_bytes: int) -> None:
        """From so many bytes in the buffer on `until_room` waits, until it is nearly empty."""
        self._plain.set_write_buffer_limits(high=size_bytes)

    @property
    def is_open(self) -> bool:
        """Would data written now be sent?"""
        return not self._plain.is_closing()

    @property
    def written_bytes(self) -> int:
        """Of the whole connection."""
        return self._transport.written_bytes

    def write(self, part: bytes) -> int:
        """Writes to a response whose head is sent, unless its client has gone.

        Returns how many bytes wait, since the kernel has not taken them.
        """
        plain = self._plain
        if plain.is_closing():
            return 0
        self._transport.write_at_once(part)
        return plain.get_write_buffer_size()

    def buffered_bytes(self) -> int:
        """What the kernel has not taken."""
        return self._transport.get_write_buffer_size()

    def read_bytes(self) -> int | None:
        """How much of the connection's bytes the peer's kernel has acknowledged; None if that is unknown."""
        if not self.is_open or is_broken(self._plain):
            return None
        return self.written_bytes - unread_bytes(self._plain)

    async def until_room(self) -> None:
        """Until the buffer is not over its bound, or the connection is lost."""
        await self._cycle.flow.drain()

    async def end(self, *, within_s: float) -> bool:
        """Ends the response. A client that does not read the rest in time is dropped: then it is False."""
        if self.is_chunked:
            self.write(_LAST_CHUNK)
        has_read = True
        if self.is_open and self.buffered_bytes():
            self._plain.set_write_buffer_limits(high=0)
            try:
                async with asyncio.timeout(within_s):
                    await self._cycle.flow.drain()
            except TimeoutError:
                self._transport.abort()
                has_read = False
        # What uvicorn does at the end of a response.
        self._cycle.response_complete = True
        self._transport.close()
        self._protocol.on_response_complete()
        return has_read
