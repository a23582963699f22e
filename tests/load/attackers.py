"""A worker's role: loads an installation at the expense of its neighbours, until its bench ends it."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from urllib.parse import urlsplit

from tests.load.connections import HttpConnection, upgrade
from tests.load.messages import Target, head, template
from tests.load.publishers import EVENTS_PATH

_RETRY_S = 0.05
# 10,922 masked empty pings: 64 KiB.
_PINGS = b"\x89\x80\x00\x00\x00\x00" * 10_922


class Attackers:
    """Runs any number of loops at once. `end` stops them all, and says how each request ended."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []
        self._counts: Counter[str] = Counter()

    async def publish(
        self, *, gateway: str, secret: str, target: Target, size: int, lanes: int, pause_s: float = 0.0
    ) -> None:
        """Each lane publishes one event after the other; `pause_s` is between two of them."""
        event = template(target, size=size).event(0, 0, 0)
        request = head("POST", gateway + EVENTS_PATH, token=secret)
        request += b"Content-Length: %d\r\n\r\n" % len(event) + event

        async def send(connection: HttpConnection) -> None:
            reply = await connection.request(request)
            self._counts[str(reply.status)] += 1
            await asyncio.sleep(pause_s)

        self._begin(lanes, partial(self._on_connections, gateway, send))

    async def flood(self, *, edges: Sequence[str], sockets: int) -> None:
        """Each socket sends empty pings as fast as the edge takes them, and never authenticates."""
        for edge in edges:
            self._begin(sockets, partial(self._flood, edge))

    async def end(self) -> dict[str, int]:
        """The number of replies by status, and of flooding sockets that were opened, since the begin."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._tasks.clear()
        counts, self._counts = self._counts, Counter()
        return dict(counts)

    async def close(self) -> None:
        await self.end()

    def _begin(self, count: int, once: Callable[[], Awaitable[None]]) -> None:
        async def again() -> None:
            while True:
                with contextlib.suppress(OSError, EOFError):
                    await once()
                await asyncio.sleep(_RETRY_S)

        self._tasks += [asyncio.create_task(again()) for _ in range(count)]

    async def _on_connections(self, url: str, send: Callable[[HttpConnection], Awaitable[None]]) -> None:
        connection = await HttpConnection.open(url)
        try:
            while connection.open_now:
                await send(connection)
        finally:
            connection.close()

    async def _flood(self, edge: str) -> None:
        parts = urlsplit(edge)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        try:
            writer.write(upgrade(edge))
            await reader.readuntil(b"\r\n\r\n")
            self._counts["sockets"] += 1
            while not reader.at_eof():
                writer.write(_PINGS)
                await writer.drain()
        finally:
            writer.transport.abort()
