"""The loop that empties a channel's queue into a transport: ack, peek, deliver, until nothing is left.

The queue is the buffer: what a transport has no room for stays in Redis. AckScheduler follows what the transport
has confirmed, whenever it does; both go to Redis together.
"""

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import Protocol

from shared import telemetry
from shared.model.channels import CloseReason, Lease
from shared.model.errors import NoLongerOwner, StoreUnavailable
from shared.model.events import Notification
from shared.store.inline_entries import InlineEntries
from shared.store.queues import BEGINNING, Batch, Queues, parse_entry_id

logger = logging.getLogger(__name__)

_RETRY_S = 1.0
# Long enough for the confirmations of many channels, short enough that little is repeated after a crash.
ACK_INTERVAL_S = 0.02


@dataclass(frozen=True, slots=True)
class Window:
    """How much a transport takes now."""

    count: int
    size_bytes: int

    def holds(self, notifications: list[Notification]) -> bool:
        """Does it take all of these?"""
        if len(notifications) > self.count:
            return False
        return sum(len(notification.data) for notification in notifications) <= self.size_bytes


class Transport(Protocol):
    """Where notifications go."""

    @property
    def window(self) -> Window:
        """How much it takes now; a count of 0 is none."""

    @property
    def acked_until(self) -> str:
        """The entry up to and including which the receiver surely has everything; `BEGINNING` if none."""

    def deliver(self, batch: list[Notification]) -> str | None:
        """Takes what comes next in the queue, or the first part of it, without waiting for the receiver.

        Answers the last entry taken; None when it took nothing.
        """

    def adopt(self, serialization: bytes) -> None:
        """How the channel's owner wants its notifications encoded from now on; b"" is the default."""

    def rewind(self) -> None:
        """Redis lost entries that were delivered: what was asked about them means nothing any more."""

    async def end(self, close_reason: CloseReason) -> None:
        """The lease is gone: hang up."""


class AckScheduler:
    """Acks for all drains of a process together: at once after a pause, else once in a while.

    Nobody waits for it: until then a crash or a takeover may repeat what the client has had.
    """

    def __init__(self, *, every_s: float = ACK_INTERVAL_S) -> None:
        self._every_s = every_s
        self._next_s = 0.0
        self._waiting: dict[DeliveryLoop, None] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, drain: "DeliveryLoop") -> None:
        """It has confirmed something."""
        if not self._waiting:
            loop = asyncio.get_running_loop()
            at_s = max(loop.time(), self._next_s)
            self._next_s = at_s + self._every_s
            loop.call_at(at_s, self._begin)
        self._waiting[drain] = None

    def _begin(self) -> None:
        waiting, self._waiting = self._waiting, {}
        # What is begun in one turn of the event loop is one round trip.
        for drain in waiting:
            task = asyncio.get_running_loop().create_task(drain.ack())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)


class DeliveryLoop:
    """Drains one lease's queue into one transport, whenever it is woken."""

    def __init__(
        self, queues: Queues, lease: Lease, transport: Transport, *, acks: AckScheduler | None = None
    ) -> None:
        self._queues = queues
        self._lease = lease
        self._transport = transport
        self._sent = BEGINNING
        self._acked = BEGINNING
        self._task: asyncio.Task[None] | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._woken = False
        self._stopped = False
        self._lost = False
        self._doubtful = False
        # Is there anything behind what was sent, as far as we know? Before the first look: who knows.
        self._behind = True
        self._acks = acks
        self._serialization = b""
        self._traced = DeliveryTracer(lease.channel)

    def wake(self) -> None:
        """There may be something to do: a wakeup came, something was confirmed, Redis is back."""
        self._woken = True
        if self._task is None and not self._stopped:
            self._task = asyncio.get_running_loop().create_task(self._run())

    def offer(self, carried: InlineEntries) -> None:
        """Something was queued, and is here: passes it on at once, unless that would be out of turn."""
        last = carried.notifications[-1].entry_id
        is_ours = (carried.owner, carried.generation) == (self._lease.owner, self._lease.generation)
        if self._task is not None or self._doubtful or self._behind or not is_ours:
            self.wake()
            return
        # A look may have found it before the wakeup came.
        if self._stopped or parse_entry_id(last) <= parse_entry_id(self._sent):
            return
        room = self._transport.window
        if room.count == 0:
            # What is under way has to be confirmed first, and that wakes us.
            self._behind = True
            return
        is_next = carried.previous in ("", self._sent) and room.holds(carried.notifications)
        if not is_next or not self._passed_on(carried) or self._sent != last:
            self.wake()

    def _passed_on(self, carried: InlineEntries) -> bool:
        try:
            self._adopt(carried.serialization)
            self._deliver(carried.notifications)
        except Exception:
            # The look that follows meets it again, and says goodbye.
            logger.exception("delivery_loop.failed", extra={"facts": {"channel": self._lease.channel}})
            return False
        return True

    def on_ack(self) -> None:
        """The transport has confirmed more, and has room again."""
        if self._acks is None or self._behind or self._task is not None or self._doubtful:
            self.wake()
        else:
            self._acks.add(self)

    async def ack(self) -> None:
        """Acks what is confirmed by now, if nothing else is to be done."""
        confirmed = self._transport.acked_until
        if self._stopped or self._task is not None or self._doubtful or confirmed == self._acked:
            return
        try:
            if not await self._ack(confirmed):
                self.wake()
        except StoreUnavailable:
            self._redis_failed()

    def doubt(self) -> None:
        """Redis was away, and may have lost the last that it was told: look before acking anything.

        A queue that lost its end may get new entries in places that were confirmed before.
        """
        self._doubtful = True

    async def rested(self) -> None:
        """Waits until nothing that it was woken for is left to do."""
        while self._task is not None:
            await asyncio.wait([self._task])

    async def stop(self) -> None:
        """Sends nothing more, and acks what was confirmed by now. Raises StoreUnavailable."""
        self._stopped = True
        if self._retry is not None:
            self._retry.cancel()
        if self._task is not None:
            # Cancelling takes back a look that is still waiting: it must not follow the release.
            self._task.cancel()
            await asyncio.wait([self._task])
        confirmed = self._transport.acked_until
        if confirmed == self._acked or self._lost:
            return
        # In doubt nothing is acked unseen.
        if not self._doubtful or await self._queues.has_reached(self._lease, self._sent):
            await self._ack(confirmed)

    async def _run(self) -> None:
        try:
            while self._woken and not self._stopped:
                self._woken = False
                with telemetry.delivery_span(self._lease.channel):
                    await self._pass()
        except NoLongerOwner as lost:
            self._stopped = self._lost = True
            await self._transport.end(lost.close_reason)
        except StoreUnavailable:
            self._redis_failed()
        except Exception:
            logger.exception("delivery_loop.failed", extra={"facts": {"channel": self._lease.channel}})
            self._stopped = True
            await self._transport.end(CloseReason.UNEXPECTED)
        finally:
            self._task = None

    def _redis_failed(self) -> None:
        self._doubtful = True
        # Whoever hears that Redis is back wakes us; this is for the faults that nobody hears of.
        if self._retry is not None:
            self._retry.cancel()
        self._retry = asyncio.get_running_loop().call_later(_RETRY_S, self.wake)

    async def _pass(self) -> None:
        while True:
            batch = await self._look()
            if batch.rewound:
                self._transport.rewind()
                self._sent = self._acked = BEGINNING
                self._traced.forget()
                self._doubtful = True
                continue
            if batch.serialization is not None:
                self._adopt(batch.serialization)
            self._behind = batch.more
            if batch.notifications:
                want_receipt = self._deliver(batch.notifications)
                self._behind = batch.more or self._sent != batch.notifications[-1].entry_id
                if want_receipt:
                    # It was sent, whether or not a stop comes meanwhile.
                    await asyncio.shield(self._queues.mark_sent(self._lease, want_receipt))
            at_the_end = not batch.more or self._transport.window.count == 0
            if at_the_end and self._transport.acked_until == self._acked:
                return

    def _adopt(self, serialization: bytes) -> None:
        if serialization != self._serialization:
            self._serialization = serialization
            self._transport.adopt(serialization)

    def _deliver(self, batch: list[Notification]) -> list[Notification]:
        """Sends what the transport takes; gives those of it whose receipts are to say so."""
        followed = [notification for notification in batch if notification.trail]
        taken_ns = time.time_ns() if followed else 0
        self._sent = self._transport.deliver(batch) or self._sent
        sent = [n for n in followed if parse_entry_id(n.entry_id) <= parse_entry_id(self._sent)]
        if sent:
            self._traced.record_sent(sent, taken_ns=taken_ns)
        return [n for n in sent if n.trail and n.trail.receipt]

    async def _look(self) -> Batch:
        """Acks what is new, and reads what is next; one round trip for both."""
        if self._doubtful:
            return await self._look_in_doubt()
        room = self._transport.window
        peek = self._queues.read(self._lease, after=self._sent, count=room.count, size_bytes=room.size_bytes)
        confirmed = self._transport.acked_until
        if confirmed == self._acked:
            return await peek
        _, batch = await asyncio.gather(self._ack(confirmed), peek)
        return batch

    async def _look_in_doubt(self) -> Batch:
        """Finds out what Redis still knows: our claim, which it may have lost, and what was sent."""
        if not await self._queues.has_reached(self._lease, self._sent):
            batch = Batch([], more=True, rewound=True)
        else:
            batch = await self._queues.reclaim(self._lease)
            # What was acked may have come back; it is forgotten once more.
            self._acked = BEGINNING
        self._doubtful = False
        return batch

    async def _ack(self, confirmed: str) -> bool:
        """False: we are not the owner. Why, or that we are again, a look tells."""
        acked_ns = time.time_ns()
        count = await self._queues.ack_until(self._lease, until=confirmed)
        if count is None:
            return False
        self._acked = confirmed
        telemetry.record_acked(confirmed, count)
        self._traced.record_acked(confirmed, acked_ns=acked_ns)
        return True


class DeliveryTracer:
    """What was sent and is not acked, as far as anybody wants spans of it; most often nothing."""

    def __init__(self, channel: str) -> None:
        self._channel = channel
        # No deque: an empty one takes 760 bytes, and this one is empty nearly always, for each idle socket.
        self._under_way: list[tuple[Notification, str, int]] = []

    def record_sent(self, notifications: list[Notification], *, taken_ns: int) -> None:
        """TakenBatch from the queue then, and written by now."""
        written_ns = time.time_ns()
        for notification in notifications:
            traceparent = notification.trail.traceparent if notification.trail else ""
            if telemetry.is_recorded(traceparent):
                queued_ns = parse_entry_id(notification.entry_id)[0] * 1_000_000
                # Redis may have another idea of the time.
                self._span("queued", notification, traceparent, min(queued_ns, taken_ns), taken_ns)
                self._under_way.append((notification, traceparent, written_ns))

    def record_acked(self, until: str, *, acked_ns: int) -> None:
        """Everything up to there: confirmed then, and forgotten by the queue now."""
        while self._under_way and parse_entry_id(self._under_way[0][0].entry_id) <= parse_entry_id(until):
            notification, traceparent, written_ns = self._under_way.pop(0)
            self._span("sent", notification, traceparent, written_ns, acked_ns)
            self._span("acked", notification, traceparent, acked_ns, time.time_ns())

    def forget(self) -> None:
        self._under_way.clear()

    def _span(
        self, step: str, notification: Notification, traceparent: str, start_ns: int, end_ns: int
    ) -> None:
        telemetry.notification_span(
            step,
            traceparent=traceparent,
            channel=self._channel,
            event=notification.event_id,
            start_ns=start_ns,
            end_ns=end_ns,
        )
