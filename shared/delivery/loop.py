"""The loop that empties a channel's queue into a transport: ack, read, deliver, until the queue is empty.

The queue is the buffer: what exceeds the transport's window stays in Redis. `state` has the loop's states.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from shared import telemetry
from shared.delivery.acks import AckScheduler
from shared.delivery.state import RUNNING, Event, State, next_state
from shared.delivery.tracing import DeliveryTracer
from shared.model.channels import CloseReason, Lease
from shared.model.errors import NoLongerOwner, StoreUnavailable
from shared.model.events import Notification
from shared.store.inline_entries import InlineEntries
from shared.store.queues import (
    BEGINNING,
    NOT_OWNER,
    Batch,
    Queues,
    acked_in_part,
    parse_entry_id,
)

logger = logging.getLogger(__name__)

_RETRY_S = 1.0
# Each notification asks for it, and an enum's member takes 0.1 µs to look up.
_IDLE = State.IDLE
_AT_REST = (State.IDLE, State.BEHIND)


@dataclass(slots=True)
class Window:
    """How much more a transport takes now. Not frozen: that takes three times as long to create."""

    count: int
    size_bytes: int


class Transport(Protocol):
    """Where notifications go."""

    @property
    def window(self) -> Window:
        """How much more it takes now: nothing if `count` is 0."""

    @property
    def acked_until(self) -> str:
        """The receiver has acknowledged everything up to this entry; `BEGINNING` if nothing."""

    def deliver(self, batch: list[Notification]) -> str | None:
        """Sends the batch, or the first part of it, without waiting for the receiver.

        Returns the last entry sent, None if none.
        """

    def adopt(self, serialization: bytes) -> None:
        """Encodes notifications as the channel's owner has now set; b"" is the default."""

    def rewind(self) -> None:
        """Forgets what was sent and acknowledged: Redis lost it, and other entries may get the same ids."""

    async def end(self, close_reason: CloseReason) -> None:
        """Hangs up."""


class Places(Protocol):
    """The places of transports that read from Redis, taken in turn by account."""

    def take_free(self, transport: Any, /) -> bool:
        """Takes a place at once; False if there is none, or others wait."""

    async def take(self, transport: Any, /) -> None:
        """Takes a place, when the transport's turn has come."""

    def give_back(self, transport: Any, /) -> None:
        """The transport has read and delivered."""


class DeliveryLoop:
    """Delivers the queue of one lease to one transport, whenever it is woken."""

    def __init__(
        self,
        queues: Queues,
        lease: Lease,
        transport: Transport,
        *,
        acks: AckScheduler | None = None,
        places: Places | None = None,
        share: Window | None = None,
    ) -> None:
        """Without `acks` it acks at once, in a round trip of its own; without `places` it reads at once.

        `share` is the most that it reads, and delivers, in one turn of the event loop.
        """
        self._queues = queues
        self._lease = lease
        self._transport = transport
        self._acks = acks
        self._places = places
        self._share = share
        # Nothing is known of the queue before the first read.
        self._state = State.BEHIND
        # The last entry that the transport was given.
        self._sent = BEGINNING
        # Nothing up to this entry has to be read: it was sent, or was no longer pending.
        self._cursor = BEGINNING
        self._acked = BEGINNING
        # How far it had sent when it was last moved back.
        self._reached = BEGINNING
        self._serialization = b""
        self.has_read = False
        """Its lease was confirmed by a read."""
        self.on_acked: Callable[[str], None] | None = None
        """Hears up to which entry the queue has removed what the receiver acknowledged."""
        self._task: asyncio.Task[None] | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._tracer = DeliveryTracer(lease.channel)

    def wake(self) -> None:
        """Reads and acks soon: a wakeup came, the receiver acknowledged something, or Redis is back."""
        self._apply(Event.WAKEUP)
        if self._task is None and self._state in RUNNING:
            self._task = asyncio.get_running_loop().create_task(self._run())

    def begin_caught_up(self, tail: str, serialization: bytes) -> None:
        """Spares the first read: the claim has found nothing pending, and no wakeup was missed since."""
        self._cursor = tail
        self._adopt(serialization)
        self._apply(Event.NOTHING_PENDING)

    def begin_behind(self, cursor: str, serialization: bytes) -> None:
        """Goes on where an earlier loop of this lease has ended: everything up to `cursor` is acked."""
        self._cursor = cursor
        self._adopt(serialization)

    def go_on_behind(self, entry: str) -> None:
        """Reads on behind this entry: what was sent behind it is sent again. Or nothing up to it is, if the
        receiver has acknowledged it meanwhile.

        A read that runs brings nothing. The transport wakes the loop when it takes something.
        """
        self._reached = max(self._reached, self._sent, key=parse_entry_id)
        self._sent = self._cursor = entry
        self._tracer.forget_behind(entry)
        if self._state is _IDLE:
            # The next wakeup's entries are behind those.
            self._apply(Event.BLOCKED)

    @property
    def end(self) -> str | None:
        """Where a later loop of this lease may go on, once this one was stopped. None when that is unsure."""
        if self._state is not State.STOPPED or self._acked != self._transport.acked_until:
            return None
        return self._cursor

    def deliver_inline(self, entries: InlineEntries) -> None:
        """Delivers the entries of a wakeup at once if they are next in order; else wakes the loop."""
        lease, batch = self._lease, entries.notifications
        is_ours = entries.owner == lease.owner and entries.generation == lease.generation
        if self._state is not _IDLE or not is_ours:
            self.wake()
            return
        last, is_next = batch[-1].entry_id, (entries.previous or BEGINNING) == self._cursor
        if not is_next and parse_entry_id(last) <= parse_entry_id(self._cursor):
            # A read was faster than the wakeup.
            return
        window = self._transport.window
        if window.count == 0:
            # A read would bring nothing. The receiver's next ack wakes the loop.
            self._apply(Event.BLOCKED)
            return
        size_bytes, has_trail = 0, False
        for notification in batch:
            size_bytes += len(notification.data)
            has_trail = has_trail or notification.trail is not None
        if not is_next or len(batch) > window.count or size_bytes > window.size_bytes:
            self.wake()
            return
        try:
            if entries.serialization != self._serialization:
                self._adopt(entries.serialization)
            if has_trail:
                self._deliver(batch)
            elif (sent := self._transport.deliver(batch)) is not None:
                self._sent = self._cursor = sent
        except Exception:
            # The caller must go on. The read that follows meets the error again, and ends the transport.
            logger.exception("delivery_loop.failed", extra={"facts": {"channel": self._lease.channel}})
        if self._sent != last:
            self.wake()

    def on_ack(self) -> None:
        """The receiver has acknowledged more, and the window is larger."""
        if self._acks is not None and self._state is _IDLE:
            self._acks.add(self.flush_acks)
        else:
            self.wake()

    def flush_acks(self) -> None:
        """Acks what the receiver has acknowledged, unless a read or a resync does so."""
        acked_until = self._transport.acked_until
        if self._state not in _AT_REST or acked_until == self._acked:
            return
        acking = self._queues.begin_ack(self._lease, until=acked_until)
        acking.add_done_callback(partial(self._on_ack_reply, acked_until, time.time_ns()))

    def _on_ack_reply(self, until: str, acked_ns: int, acking: asyncio.Future[int]) -> None:
        if acking.cancelled():
            # The process ends.
            return
        try:
            count = acking.result()
        except StoreUnavailable:
            self._redis_failed(Event.RESYNC_REQUIRED)
            return
        if count < 0:
            # Not the owner: the read finds out why, or writes the claim again. Or there is more to ack.
            if count < NOT_OWNER:
                telemetry.acked.add(acked_in_part(count))
            self.wake()
        else:
            self._record_acked(until, count, acked_ns=acked_ns)

    def require_resync(self) -> None:
        """Acks nothing before it has read the queue again: Redis was away, and may have lost writes.

        A queue that lost its tail may give new entries the ids of old ones that the receiver acknowledged.
        """
        self._apply(Event.RESYNC_REQUIRED)

    async def wait_idle(self) -> None:
        """Waits until no read runs."""
        while self._task is not None:
            await asyncio.wait([self._task])

    async def stop(self) -> None:
        """Sends nothing more, and acks what the receiver has acknowledged. Raises StoreUnavailable."""
        self._apply(Event.STOP)
        if self._retry is not None:
            self._retry.cancel()
        if self._task is not None:
            # Take back a read that still waits: after the release it would write the claim again.
            self._task.cancel()
            await asyncio.wait([self._task])
            # A task that is cancelled before its first step runs no `finally`.
            self._task = None
        acked_until = self._transport.acked_until
        if acked_until == self._acked or self._state is State.LOST:
            return
        if self._state is State.STOPPED or await self._has_reached_all():
            await self._ack(acked_until)

    def _apply(self, event: Event) -> None:
        self._state = next_state(self._state, event)

    async def _run(self) -> None:
        try:
            with telemetry.delivery_span(self._lease.channel):
                while self._state in RUNNING:
                    await self._step()
        except NoLongerOwner as lost:
            self._apply(Event.LEASE_LOST)
            await self._transport.end(lost.close_reason)
        except StoreUnavailable:
            self._redis_failed(Event.REDIS_FAILED)
        except Exception:
            logger.exception("delivery_loop.failed", extra={"facts": {"channel": self._lease.channel}})
            self._apply(Event.STOP)
            await self._transport.end(CloseReason.UNEXPECTED)
        finally:
            self._task = None

    async def _step(self) -> None:
        """A read or a resync, in the transport's turn."""
        if (places := self._places) is None:
            await self._begin_step()
            return
        if not places.take_free(self._transport):
            await places.take(self._transport)
        try:
            # It may have been stopped while it waited.
            if self._state in RUNNING:
                await self._begin_step()
        finally:
            places.give_back(self._transport)

    def _begin_step(self) -> Coroutine[Any, Any, None]:
        self._apply(Event.BEGIN)
        return self._resync() if self._state is State.RESYNCING else self._read()

    def _redis_failed(self, event: Event) -> None:
        self._apply(event)
        # The subscription's reconnect wakes the loop; the timer is for errors that leave it connected.
        if self._retry is not None:
            self._retry.cancel()
        self._retry = asyncio.get_running_loop().call_later(_RETRY_S, self.wake)

    async def _read(self) -> None:
        """Acks what is new, reads what is next, and delivers it."""
        cursor = self._cursor
        batch = await self._ack_and_read()
        self.has_read = True
        if batch.rewound:
            self._rewind()
            return
        if self._cursor != cursor:
            # It was moved meanwhile: read again, from there.
            return
        if batch.serialization is not None:
            self._adopt(batch.serialization)
        if batch.notifications and (receipts := self._deliver(batch.notifications)):
            # Shield: they were sent, even if a stop comes meanwhile.
            await asyncio.shield(self._queues.mark_sent(self._lease, receipts))
        is_all = not batch.more and (
            not batch.notifications or self._sent == batch.notifications[-1].entry_id
        )
        if is_all:
            # What is appended next follows the tail, also if that is no longer pending.
            self._cursor = batch.tail
        can_read_more = batch.more and self._transport.window.count > 0
        if can_read_more or self._transport.acked_until != self._acked:
            return
        self._apply(Event.CAUGHT_UP if is_all else Event.BLOCKED)

    async def _ack_and_read(self) -> Batch:
        """One round trip for both."""
        window = self._transport.window
        count, size_bytes = window.count, window.size_bytes
        if (share := self._share) is not None:
            count, size_bytes = min(count, share.count), min(size_bytes, share.size_bytes)
        read = self._queues.read(self._lease, after=self._cursor, count=count, size_bytes=size_bytes)
        acked_until = self._transport.acked_until
        if acked_until == self._acked:
            return await read
        _, batch = await asyncio.gather(self._ack(acked_until), read)
        return batch

    async def _resync(self) -> None:
        """Checks what Redis still has: what was sent, and the claim, which is written again if it is lost."""
        if not await self._has_reached_all():
            self._rewind()
            return
        await self._queues.reclaim(self._lease)
        # Redis may have lost acks too: repeat them. Entries may have come between what was sent and the tail.
        self._acked = BEGINNING
        self._cursor = self._sent
        self._apply(Event.RESYNCED)

    async def _has_reached_all(self) -> bool:
        """Does Redis still know everything that was ever sent?"""
        last = max(self._reached, self._sent, key=parse_entry_id)
        return await self._queues.has_reached(self._lease, last)

    def _rewind(self) -> None:
        self._transport.rewind()
        self._sent = self._cursor = self._acked = self._reached = BEGINNING
        self._tracer.clear()
        self._apply(Event.RESYNC_REQUIRED)

    def _adopt(self, serialization: bytes) -> None:
        if serialization != self._serialization:
            self._serialization = serialization
            self._transport.adopt(serialization)

    def _deliver(self, batch: list[Notification]) -> list[Notification]:
        """Sends what the transport takes. Returns those of it that have a receipt."""
        with_trail = [notification for notification in batch if notification.trail]
        read_ns = time.time_ns() if with_trail else 0
        if (last := self._transport.deliver(batch)) is not None:
            self._sent = self._cursor = last
        sent = [n for n in with_trail if parse_entry_id(n.entry_id) <= parse_entry_id(self._sent)]
        if sent:
            self._tracer.record_sent(sent, read_ns=read_ns)
        return [n for n in sent if n.trail and n.trail.receipt]

    async def _ack(self, until: str) -> bool:
        """False if this is not the owner."""
        acked_ns = time.time_ns()
        count = await self._queues.ack_until(self._lease, until=until)
        if count is None:
            return False
        self._record_acked(until, count, acked_ns=acked_ns)
        return True

    def _record_acked(self, until: str, count: int, *, acked_ns: int) -> None:
        self._acked = until
        if self.on_acked is not None:
            self.on_acked(until)
        telemetry.record_acked(until, count)
        self._tracer.record_acked(until, acked_ns=acked_ns)
