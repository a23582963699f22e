"""A transport that joins the writes of one turn of the event loop.

uvicorn writes the head of a response and then its body, and uvloop sends each at once. That second system
call costs more than everything else about a short response.
"""

import asyncio
from typing import Any


class WriteCoalescer:
    """Wraps a transport. Only writing and closing differ from it."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self.transport = transport
        self.is_closing = transport.is_closing
        self._loop = loop
        self.parts: list[bytes] = []
        """Writes that wait for the end of the turn."""
        self.written_bytes = 0
        """Of the whole connection, also what came too late to be sent."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.transport, name)

    def write(self, data: bytes) -> None:
        if not self.parts:
            self._loop.call_soon(self._flush)
        self.parts.append(data)
        self.written_bytes += len(data)

    def write_at_once(self, data: bytes) -> None:
        """Writes what nothing follows that it could be joined with."""
        if self.parts:
            self.write(data)
            return
        self.written_bytes += len(data)
        self.transport.write(data)

    def close(self) -> None:
        self._flush()
        self.transport.close()

    def abort(self) -> None:
        self.parts.clear()
        self.transport.abort()

    def get_write_buffer_size(self) -> int:
        return sum(map(len, self.parts)) + self.transport.get_write_buffer_size()

    def _flush(self) -> None:
        parts, self.parts = self.parts, []
        if parts and not self.transport.is_closing():
            self.transport.write(b"".join(parts))
