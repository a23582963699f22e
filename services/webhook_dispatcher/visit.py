"""One visit of a webhook channel."""

import asyncio
import contextlib
import math
from collections.abc import Iterator

from shared.model.channels import Lease


class Visit:
    """One visit of a channel. `woken`: there may be more than the visit has seen.

    `is_idle`: it waits for something that a shutdown need not wait for. `waits_since_s`, by the event loop's
    clock: for a place.
    """

    def __init__(self, channel: str, *, follows_failure: bool) -> None:
        self.channel = channel
        self.follows_failure = follows_failure
        self.woken = asyncio.Event()
        self.lease: Lease | None = None
        self.is_idle = False
        self.waits_since_s = math.inf
        self.task: asyncio.Task[None] | None = None

    async def is_woken_within(self, limit_s: float | None) -> bool:
        with contextlib.suppress(TimeoutError):
            # No wait_for: it makes a task.
            async with asyncio.timeout(limit_s):
                await self.woken.wait()
        return self.woken.is_set()

    @contextlib.contextmanager
    def idle(self) -> Iterator[None]:
        self.is_idle = True
        try:
            yield
        finally:
            self.is_idle = False
