"""One visit of a webhook channel."""

import asyncio
import contextlib
import math
from collections.abc import Iterator

from shared.model.channels import Lease


class Visit:
    """One visit of a channel.

    `is_idle`: it waits for something that a shutdown need not wait for. `waits_since_s`, by the event loop's
    clock: for a place.
    """

    def __init__(self, channel: str, *, follows_failure: bool, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.channel = channel
        self.follows_failure = follows_failure
        self.is_woken = False
        """There may be more than the visit has seen."""
        self.lease: Lease | None = None
        self.is_idle = False
        self.waits_since_s = math.inf
        self.task: asyncio.Task[None] | None = None
        self._waiting: asyncio.Future[None] | None = None

    def wake(self) -> None:
        """There may be more."""
        self.is_woken = True
        self._end_wait()

    def forget_wakeups(self) -> None:
        """The visit is about to see what there is."""
        self.is_woken = False

    async def is_woken_within(self, limit_s: float | None) -> bool:
        """Waits until it is woken, or the time is over. One task waits at a time."""
        if self.is_woken:
            return True
        loop = self._loop
        # No wait_for and no timeout: this comes with each batch, and a future and a timer do.
        self._waiting = loop.create_future()
        timer = None if limit_s is None else loop.call_later(limit_s, self._end_wait)
        try:
            await self._waiting
        finally:
            self._waiting = None
            if timer is not None:
                timer.cancel()
        return self.is_woken

    def _end_wait(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    @contextlib.contextmanager
    def idle(self) -> Iterator[None]:
        self.is_idle = True
        try:
            yield
        finally:
            self.is_idle = False
