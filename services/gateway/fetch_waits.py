"""Fetches that wait for events: one read of all their queues' lengths in 250 ms, in one pipeline.

A waiting fetch has no task of its own here, and no connection to Redis. A queue that has something wakes one
fetch in each round: all at once would get a 409 but one.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from shared.runtime.http.responses import Problem, too_many

LOOK_S = 0.25
MOST_OF_ACCOUNT = 100


class FetchWaits:
    """The waiting fetches of one gateway. `pending(channel)` is the length of a queue."""

    def __init__(
        self, pending: Callable[[str], Awaitable[int]], *, most: int, look_s: float = LOOK_S
    ) -> None:
        self._pending = pending
        self._most = most
        self._look_s = look_s
        self._places = Counter[str]()
        self._waiting: defaultdict[str, list[asyncio.Future[None]]] = defaultdict(list)
        self._looking: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()

    @property
    def is_stopping(self) -> bool:
        return self._stopping.is_set()

    @contextmanager
    def place(self, account: str) -> Iterator[None]:
        """A place for one waiting fetch. Raises Problem when there is none."""
        if self._places[account] >= MOST_OF_ACCOUNT:
            raise too_many(f"{MOST_OF_ACCOUNT} fetches of this account wait here; repeat it without wait_s")
        if self._places.total() >= self._most:
            message = "too many fetches wait at this replica; repeat it without wait_s"
            raise Problem(503, message, headers={"retry-after": "1"})
        self._places[account] += 1
        try:
            yield
        finally:
            self._places[account] -= 1
            if not self._places[account]:
                del self._places[account]

    async def wait(self, channel: str, *, within_s: float, gone: asyncio.Future[Any]) -> None:
        """Returns when the queue has something, the time is over, the client has gone, or the gateway stops.

        Raises what the read of the lengths raised.
        """
        woken = asyncio.get_running_loop().create_future()
        self._waiting[channel].append(woken)
        if self._looking is None:
            self._looking = asyncio.create_task(self._look())
        try:
            await self._first_of(woken, gone, within_s=within_s)
        finally:
            self._forget(channel, woken)
        if woken.done():
            woken.result()

    async def pause(self, *, within_s: float, gone: asyncio.Future[Any]) -> None:
        """The same without a look at the queue."""
        await self._first_of(gone, within_s=within_s)

    async def end(self) -> None:
        """Ends all waits, now and from now on: the gateway stops."""
        self._stopping.set()

    async def _first_of(self, *futures: asyncio.Future[Any], within_s: float) -> None:
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait([*futures, stopping], timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()

    def _forget(self, channel: str, woken: asyncio.Future[None]) -> None:
        if woken in self._waiting[channel]:
            self._waiting[channel].remove(woken)
        if not self._waiting[channel]:
            del self._waiting[channel]

    async def _look(self) -> None:
        """Looks until no fetch waits."""
        while True:
            await asyncio.sleep(self._look_s)
            channels = list(self._waiting)
            if not channels:
                self._looking = None
                return
            try:
                sizes = await asyncio.gather(*map(self._pending, channels))
            except Exception as error:
                self._fail(error)
                continue
            for channel, size in zip(channels, sizes, strict=True):
                if size:
                    self._wake_one(channel)

    def _wake_one(self, channel: str) -> None:
        for woken in self._waiting.get(channel, ()):
            if not woken.done():
                woken.set_result(None)
                return

    def _fail(self, error: Exception) -> None:
        for waiting in self._waiting.values():
            for woken in waiting:
                if not woken.done():
                    woken.set_exception(error)
