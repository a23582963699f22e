"""The leases of long polls between two polls of one client.

A client polls again as soon as it has a response. To release the lease and claim it again would cost Redis as
much as all else that a poll does. So the edge keeps it for a moment, and the next poll goes on from where the
last one ended; its first read checks the lease as any read does. Another that wants the channel meanwhile
sends its owner a wakeup, and the lease is released at once.
"""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any

from shared.model.channels import Lease
from shared.runtime.loops import end

KEPT_S = 1.0
"""Longer than a client takes from a response to its next poll."""


@dataclass(frozen=True, slots=True)
class KeptLease:
    """A lease, and the entry up to which its last poll has delivered; all up to there is acked."""

    lease: Lease
    cursor: str
    serialization: bytes


class KeptLeases:
    """Those of one edge. `release` releases a lease, now or when Redis is back."""

    def __init__(self, release: Callable[[Lease], Coroutine[Any, Any, None]]) -> None:
        self._release = release
        self._kept: dict[str, tuple[KeptLease, asyncio.TimerHandle]] = {}
        self._releasing: set[asyncio.Task[None]] = set()
        self._is_closed = False

    def keep(self, lease: Lease, *, cursor: str, serialization: bytes) -> bool:
        """Keeps it for a second; False when the edge is stopping, and it must be released instead."""
        if self._is_closed:
            return False
        # It is a claim of its own no longer: the owner before it knows.
        kept = KeptLease(replace(lease, previous=""), cursor, serialization)
        timer = asyncio.get_running_loop().call_later(KEPT_S, self.give_up, lease.channel)
        self._kept[lease.channel] = kept, timer
        return True

    def take(self, channel: str) -> KeptLease | None:
        """The lease for the next poll, which has it from now on. Redis may have given it to another since."""
        found = self._kept.pop(channel, None)
        if found is None:
            return None
        kept, timer = found
        timer.cancel()
        return kept

    def give_up(self, channel: str) -> None:
        """Releases it, if it is kept: another poll may wait for it."""
        kept = self.take(channel)
        if kept is not None:
            task = asyncio.create_task(self._release(kept.lease))
            self._releasing.add(task)
            task.add_done_callback(self._releasing.discard)

    def give_up_all(self) -> None:
        """Redis may have lost writes, or wakeups."""
        for channel in list(self._kept):
            self.give_up(channel)

    async def close(self, *, within_s: float) -> None:
        """Releases all, and keeps none from now on."""
        self._is_closed = True
        self.give_up_all()
        if self._releasing:
            await asyncio.wait(self._releasing, timeout=within_s)
        await end(*self._releasing)
