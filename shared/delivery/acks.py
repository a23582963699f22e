"""The acks of all delivery loops of a process, sent to Redis together."""

import asyncio
from collections.abc import Callable, Iterator
from itertools import islice
from typing import TypeAlias

_Flush: TypeAlias = Callable[[], None]
ACK_INTERVAL_S = 0.02
"""Long enough to collect the acks of many channels, short enough that a crash repeats little."""
# So many take two milliseconds; then the event loop gets its turn.
_LOT = 256


class AckScheduler:
    """Flushes acks at once after a pause, else every `every_s`.

    Nothing waits for a flush: a crash or a takeover before it repeats what the client already has.
    """

    def __init__(self, *, every_s: float = ACK_INTERVAL_S) -> None:
        self._every_s = every_s
        self._next_s = 0.0
        self._waiting: dict[_Flush, None] = {}

    def add(self, flush: _Flush) -> None:
        """Flushes a loop's acks with the next ones: once, however often it is added until then."""
        if not self._waiting:
            event_loop = asyncio.get_running_loop()
            at_s = max(event_loop.time(), self._next_s)
            self._next_s = at_s + self._every_s
            event_loop.call_at(at_s, self._begin)
        self._waiting[flush] = None

    def _begin(self) -> None:
        waiting, self._waiting = self._waiting, {}
        self._flush_lot(iter(waiting), len(waiting))

    def _flush_lot(self, flushes: Iterator[_Flush], count: int) -> None:
        # Calls of one turn of the event loop share a round trip to Redis.
        for flush in islice(flushes, _LOT):
            flush()
        if count > _LOT:
            asyncio.get_running_loop().call_soon(self._flush_lot, flushes, count - _LOT)
