"""The loop that empties a channel's queue into a transport: settle, peek, deliver, until nothing is left.

The queue is the buffer: what a transport has no room for stays in Redis. Settling follows what the transport
has confirmed, whenever it does; both go to Redis together.
"""

import asyncio
import logging
from dataclasses import dataclass
from typing import Protocol

from shared import telemetry
from shared.model.channels import Ending, Lease
from shared.model.errors import NoLongerOwner, StoreUnavailable
from shared.model.events import Notification
from shared.store.queues import BEGINNING, Batch, Queues

logger = logging.getLogger(__name__)

_RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class Room:
    """How much a transport takes now."""

    count: int
    size_bytes: int


class Transport(Protocol):
    """Where notifications go."""

    @property
    def room(self) -> Room:
        """How much it takes now; a count of 0 is none."""

    @property
    def confirmed(self) -> str:
        """The entry up to and including which the receiver surely has everything; `BEGINNING` if none."""

    async def deliver(self, batch: list[Notification]) -> str | None:
        """Takes what comes next in the queue, or the first part of it, and must not wait for the receiver.

        Answers the last entry taken; None when it took nothing.
        """

    def adopt(self, serialization: bytes) -> None:
        """How the channel's owner wants its notifications encoded from now on; b"" is the default."""

    def rewind(self) -> None:
        """Redis lost entries that were delivered: what was asked about them means nothing any more."""

    async def end(self, ending: Ending) -> None:
        """The lease is gone: hang up."""


class Drain:
    """Drains one lease's queue into one transport, whenever it is woken."""

    def __init__(self, queues: Queues, lease: Lease, transport: Transport) -> None:
        self._queues = queues
        self._lease = lease
        self._transport = transport
        self._sent = BEGINNING
        self._settled = BEGINNING
        self._task: asyncio.Task[None] | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._woken = False
        self._stopped = False
        self._lost = False
        self._doubtful = False
        self._serialization = b""

    def wake(self) -> None:
        """There may be something to do: a nudge came, something was confirmed, Redis is back."""
        self._woken = True
        if self._task is None and not self._stopped:
            self._task = asyncio.get_running_loop().create_task(self._run())

    def doubt(self) -> None:
        """Redis was away, and may have lost the last that it was told: look before settling anything.

        A queue that lost its end may get new entries in places that were confirmed before.
        """
        self._doubtful = True

    async def rested(self) -> None:
        """Waits until nothing that it was woken for is left to do."""
        while self._task is not None:
            await asyncio.wait([self._task])

    async def stop(self) -> None:
        """Sends nothing more, and settles what was confirmed by now. Raises StoreUnavailable."""
        self._stopped = True
        if self._retry is not None:
            self._retry.cancel()
        if self._task is not None:
            # Cancelling takes back a look that is still waiting: it must not follow the release.
            self._task.cancel()
            await asyncio.wait([self._task])
        confirmed = self._transport.confirmed
        if confirmed == self._settled or self._lost:
            return
        # In doubt nothing is settled unseen.
        if not self._doubtful or await self._queues.has_reached(self._lease, self._sent):
            await self._settle(confirmed)

    async def _run(self) -> None:
        try:
            while self._woken and not self._stopped:
                self._woken = False
                with telemetry.drain_span(self._lease.channel):
                    await self._pass()
        except NoLongerOwner as lost:
            self._stopped = self._lost = True
            await self._transport.end(lost.ending)
        except StoreUnavailable:
            self._doubtful = True
            # Whoever hears that Redis is back wakes us; this is for the faults that nobody hears of.
            if self._retry is not None:
                self._retry.cancel()
            self._retry = asyncio.get_running_loop().call_later(_RETRY_S, self.wake)
        except Exception:
            logger.exception("drain.failed", extra={"facts": {"channel": self._lease.channel}})
            self._stopped = True
            await self._transport.end(Ending.UNEXPECTED)
        finally:
            self._task = None

    async def _pass(self) -> None:
        while True:
            batch = await self._look()
            if batch.rewound:
                self._transport.rewind()
                self._sent = self._settled = BEGINNING
                self._doubtful = True
                continue
            if batch.serialization is not None and batch.serialization != self._serialization:
                self._serialization = batch.serialization
                self._transport.adopt(batch.serialization)
            if batch.notifications:
                self._sent = await self._transport.deliver(batch.notifications) or self._sent
            at_the_end = not batch.more or self._transport.room.count == 0
            if at_the_end and self._transport.confirmed == self._settled:
                return

    async def _look(self) -> Batch:
        """Settles what is new, and reads what is next; one round trip for both."""
        if self._doubtful:
            return await self._look_in_doubt()
        room = self._transport.room
        peek = self._queues.peek(self._lease, after=self._sent, count=room.count, size_bytes=room.size_bytes)
        confirmed = self._transport.confirmed
        if confirmed == self._settled:
            return await peek
        _, batch = await asyncio.gather(self._settle(confirmed), peek)
        return batch

    async def _look_in_doubt(self) -> Batch:
        """Finds out what Redis still knows: our claim, which it may have lost, and what was sent."""
        if not await self._queues.has_reached(self._lease, self._sent):
            batch = Batch([], more=True, rewound=True)
        else:
            batch = await self._queues.look_again(self._lease)
            # What was settled may have come back; it is forgotten once more.
            self._settled = BEGINNING
        self._doubtful = False
        return batch

    async def _settle(self, confirmed: str) -> None:
        count = await self._queues.settle(self._lease, until=confirmed)
        # None: we are not the owner. Why, or that we are again, the look that travels with it tells.
        if count is not None:
            self._settled = confirmed
            telemetry.settled.add(count)
