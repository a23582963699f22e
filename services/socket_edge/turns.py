"""Whose turn it is, when many connections of an edge have something to do at once: in turn by account.

One account may have thousands of sockets that all get an event, or all reconnect. Another account's event
waits for one lot of those, and not for all of them.
"""

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from shared.runtime.round_robin import RoundRobin
from shared.store.inline_entries import InlineEntries

if TYPE_CHECKING:
    from services.socket_edge.held import HeldConnection

READERS = 16
"""So many connections read their queues at once. What each has read takes half a millisecond to deliver."""
# A primary that does not respond must not keep the others' reads waiting: such a read loses its place.
_SLOW_S = 0.02

SMALL = 32
"""So many wakeups are handled at once, without a look at their accounts."""
_LOT_S = 0.004
# Entries that wait take memory: beyond the limit their connections are woken instead, and read them.
_WAITING_LIMIT_BYTES = 16 * 1024 * 1024
_ENTRIES_BYTES = 1024


class ReadingPlaces:
    """The places of connections that read from Redis: in use, and awaited."""

    def __init__(self, count: int = READERS) -> None:
        self._count = count
        # The oldest first: since when it has its place.
        self._readers: dict[HeldConnection, float] = {}
        self._waiting: RoundRobin[tuple[HeldConnection, asyncio.Future[None]]] = RoundRobin()
        self._timer: asyncio.TimerHandle | None = None

    def take_free(self, connection: "HeldConnection") -> bool:
        """Takes a place at once; False if there is none, or others wait."""
        if len(self._readers) >= self._count or self._waiting:
            return False
        self._readers[connection] = time.monotonic()
        return True

    async def take(self, connection: "HeldConnection") -> None:
        """Takes a place, when its account's turn has come."""
        place = asyncio.get_running_loop().create_future()
        self._waiting.add(connection.account_id, (connection, place))
        self._serve()
        try:
            await place
        except asyncio.CancelledError:
            if not place.cancelled():
                self.give_back(connection)
            raise

    def give_back(self, connection: "HeldConnection") -> None:
        """The connection has read and delivered. Does nothing without a place."""
        self._readers.pop(connection, None)
        if self._waiting:
            self._serve()

    def _serve(self) -> None:
        now_s = time.monotonic()
        while self._waiting and self._has_place(now_s):
            connection, place = self._waiting.pop()
            # It may have been cancelled while it waited.
            if not place.done():
                self._readers[connection] = now_s
                place.set_result(None)
        if self._waiting and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_SLOW_S, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._serve()

    def _has_place(self, now_s: float) -> bool:
        if len(self._readers) < self._count:
            return True
        oldest, since_s = next(iter(self._readers.items()))
        if now_s - since_s < _SLOW_S:
            return False
        del self._readers[oldest]
        return True


class WakeupTurns:
    """Wakeups that are handled in lots of a few milliseconds, with other work in between."""

    def __init__(self) -> None:
        self._waiting: RoundRobin[Callable[[], None]] = RoundRobin()
        self._woken: set[HeldConnection] = set()
        self._waiting_bytes = 0
        self._is_planned = False

    def __len__(self) -> int:
        return len(self._waiting)

    def wake(self, connection: "HeldConnection") -> None:
        """Wakes the connection in its turn: once, however often it is called until then."""
        if connection not in self._woken:
            self._woken.add(connection)
            self._add(connection, lambda: self._wake(connection))

    def deliver(self, connection: "HeldConnection", entries: InlineEntries) -> None:
        """Delivers the entries in the connection's turn."""
        size_bytes = _ENTRIES_BYTES + sum(len(each.data) for each in entries.notifications)
        if connection in self._woken or self._waiting_bytes + size_bytes > _WAITING_LIMIT_BYTES:
            self.wake(connection)
            return
        self._waiting_bytes += size_bytes
        self._add(connection, lambda: self._deliver(connection, entries, size_bytes))

    def _add(self, connection: "HeldConnection", handle: Callable[[], None]) -> None:
        self._waiting.add(connection.account_id, handle)
        if not self._is_planned:
            self._is_planned = True
            asyncio.get_running_loop().call_soon(self._serve)

    def _serve(self) -> None:
        ends_s = time.perf_counter() + _LOT_S
        try:
            while self._waiting and time.perf_counter() < ends_s:
                self._waiting.pop()()
        finally:
            self._is_planned = bool(self._waiting)
            if self._is_planned:
                asyncio.get_running_loop().call_soon(self._serve)

    def _wake(self, connection: "HeldConnection") -> None:
        self._woken.discard(connection)
        if connection.is_held:
            connection.wake()

    def _deliver(self, connection: "HeldConnection", entries: InlineEntries, size_bytes: int) -> None:
        self._waiting_bytes -= size_bytes
        if connection.is_held and connection.loop is not None:
            connection.loop.deliver_inline(entries)
