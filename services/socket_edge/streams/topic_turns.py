"""Whose turn it is when topics have thousands of readers, or many topics read at once: in turn by account.

A turn of the event loop calls a hundred readers, so that one topic does not hold up another one.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from shared.model.errors import StoreUnavailable
from shared.model.streams import Mark, Resumed, Start
from shared.runtime.loops import end
from shared.runtime.round_robin import RoundRobin
from shared.store.streams import READ_LOT

logger = logging.getLogger(__name__)

READERS_PER_TURN = 100
READERS_AT_ONCE = 256
"""So many are called for the wakeups of one read: to plan a turn costs as much as to call a few readers."""
READS = 16
"""So many reads of streams are under way at once."""
PAGE_BYTES = 256 * 1024
# A primary that does not respond must not keep the others' reads waiting: such a read loses its place.
_SLOW_S = 0.25
_WAITING_LIMIT_BYTES = 32 * 1024 * 1024


class Worker(Protocol):
    """Has calls to make, in lots."""

    account_id: str

    def work(self, most: int) -> int:
        """Makes up to so many calls, and returns how many."""

    @property
    def has_work(self) -> bool:
        """Whether calls are left."""


class Turns:
    """Calls of many readers, in lots with other work in between."""

    def __init__(self) -> None:
        self.left = READERS_AT_ONCE
        """How many readers may still be called at once; more wait for their turn."""
        self._busy: RoundRobin[Worker] = RoundRobin()
        self._is_planned = False

    def add(self, worker: Worker) -> None:
        """The worker had nothing to do, and now has."""
        self._busy.add(worker.account_id, worker)
        if not self._is_planned:
            self._is_planned = True
            asyncio.get_running_loop().call_soon(self._serve)

    def _serve(self) -> None:
        left = READERS_PER_TURN
        try:
            while self._busy and left > 0:
                worker = self._busy.pop()
                left -= max(1, worker.work(left))
                if worker.has_work:
                    self._busy.add(worker.account_id, worker)
        finally:
            self._is_planned = bool(self._busy)
            if self._is_planned:
                asyncio.get_running_loop().call_soon(self._serve)


class StreamReader(Protocol):
    """Reads streams, as `shared.store.stream_reads` does."""

    async def resume(
        self, account_id: str, topic: str, since: Mark | Start, *, count: int, size_bytes: int
    ) -> Resumed:
        """Checks a mark, and reads what is behind it. Raises StoreUnavailable."""


class Reads:
    """Reads of streams, a bounded number at once."""

    def __init__(self, streams: StreamReader, *, most: int = READS) -> None:
        self._streams = streams
        self._most = most
        self._busy = 0
        self._waiting: RoundRobin[Callable[[], Coroutine[Any, Any, None]]] = RoundRobin()
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, account_id: str, read: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Begins the read when its account's turn has come."""
        self._waiting.add(account_id, read)
        self._serve()

    async def page(self, account_id: str, topic: str, since: Mark | Start) -> Resumed | None:
        """A page of a stream; None if there is none now. To be called within a read that has begun."""
        try:
            page = await self._streams.resume(account_id, topic, since, count=READ_LOT, size_bytes=PAGE_BYTES)
        except StoreUnavailable:
            return None
        except Exception:
            logger.exception("stream.read-failed")
            return None
        if page.until == page.offset and not page.is_at_end:
            # It would be read for ever.
            logger.error("stream.read-failed", extra={"facts": {"why": "nothing behind the mark"}})
            return None
        return page

    async def stop(self) -> None:
        """Ends what is under way; what waits begins with the next read."""
        most, self._most = self._most, 0
        await end(*self._tasks)
        self._most = most

    def _serve(self) -> None:
        while self._waiting and self._busy < self._most:
            self._busy += 1
            task = asyncio.get_running_loop().create_task(self._run(self._waiting.pop()))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _run(self, read: Callable[[], Coroutine[Any, Any, None]]) -> None:
        has_place = True

        def give_back() -> None:
            nonlocal has_place
            if has_place:
                has_place = False
                self._busy -= 1
                self._serve()

        timer = asyncio.get_running_loop().call_later(_SLOW_S, give_back)
        try:
            await read()
        finally:
            timer.cancel()
            give_back()


class Memory:
    """What all topics of an edge may keep of events that wait, together."""

    def __init__(self, limit_bytes: int = _WAITING_LIMIT_BYTES) -> None:
        self._left_bytes = limit_bytes

    def take(self, size_bytes: int) -> bool:
        """Takes so many bytes; False, and nothing is taken, when they are not there."""
        if size_bytes > self._left_bytes:
            return False
        self._left_bytes -= size_bytes
        return True

    def give_back(self, size_bytes: int) -> None:
        self._left_bytes += size_bytes
