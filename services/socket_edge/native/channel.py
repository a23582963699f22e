"""One durable channel that a native socket has open: its lease, and the transport of its delivery loop.

Only an ack by frame acknowledges, and it stands for everything before it. What is sent is in flight until
then. A nack gives back its entry and all behind it, perhaps for a while; a time-out has everything sent again
that is in flight. Both move the loop back, so the order stays: what is sent again comes before anything new.
"""

import asyncio
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeAlias

from services.socket_edge.claims import Claim
from services.socket_edge.held import LeaseHolder
from shared import telemetry
from shared.delivery.loop import DeliveryLoop, Window
from shared.model.account_channels import ChannelRecord, shown_id
from shared.model.channels import CloseReason
from shared.model.events import Notification
from shared.store.queues import BEGINNING, parse_entry_id
from shared.wire.cloudevents import structured
from shared.wire.native import replies

if TYPE_CHECKING:
    from services.socket_edge.edge import Edge

NATIVE_CHANNEL = "native-channel"
BUFFER_BYTES = 256 * 1024
"""While a socket buffers more for its client, its channels send nothing."""
# What it reads and encodes in one turn of the event loop.
_READ_SHARE = Window(count=128, size_bytes=64 * 1024)
_NOTHING = Window(count=0, size_bytes=0)
# These end the socket, and the channel with it.
_OF_THE_SOCKET = (CloseReason.STOPPING, CloseReason.REDIS_UNAVAILABLE)
# A timer may fire a little early.
_EARLY_S = 0.002
_DIALECT = {"dialect": "native"}
_SENT = telemetry.sent.series(_DIALECT)


OnRemoved: TypeAlias = Callable[[bool], None]
"""Gets whether the queue has removed it; False when that is unknown, and it may come again."""


class ChannelSocket(Protocol):
    """What a channel needs of the socket that has it open."""

    def write(self, *texts: bytes) -> bool:
        """Writes frames; False when the client has gone."""

    def buffered_bytes(self) -> int:
        """How many of the written bytes the kernel has not taken."""


class NativeChannel(LeaseHolder):
    """The owner of a channel for as long as its socket has it open."""

    kind = NATIVE_CHANNEL
    # It ends with its socket, which is closed at a pace.
    closes_at_a_pace = False

    def __init__(
        self,
        edge: "Edge",
        claim: Claim,
        record: ChannelRecord,
        *,
        socket: ChannelSocket,
        ack_timeout_s: float,
        in_flight: int,
        on_closed: Callable[["NativeChannel"], None],
        wait_for_room: Callable[["NativeChannel"], None],
    ) -> None:
        """`on_closed` hears that it has ended by itself, `wait_for_room` that it waits for `has_room`."""
        super().__init__(edge, record.id)
        self.record = record
        self.account_id = claim.account_id
        self.shown_id = shown_id(record.id)
        self.lease = claim.claimed.lease
        self.loop = DeliveryLoop(
            edge.stores.queues,
            self.lease,
            self,
            acks=edge.acks,
            places=edge.reading_places,
            share=_READ_SHARE,
        )
        self.sent = self.acked = 0
        self._socket = socket
        self._ack_timeout_s = ack_timeout_s
        self._most = Window(min(in_flight, edge.settings.in_flight_limit), edge.settings.in_flight_bytes)
        self._on_closed = on_closed
        self._wait_for_room = wait_for_room
        self._waits_for_room = self._is_draining = False
        # What is in flight, the oldest first: how long each is, and when it was sent.
        self._in_flight: dict[str, tuple[int, float]] = {}
        self._in_flight_bytes = 0
        # What was in flight when the time-out came, until it is sent again: it lies behind what is in flight,
        # and an ack of it counts.
        self._overdue: dict[str, tuple[int, float]] = {}
        # The first entry that the client has given back, until it is sent again; and whether that must wait.
        self._given_back = ""
        self._is_held = False
        self._resumes_s = 0.0
        # What is sent up to this entry was sent before.
        self._again_until = ""
        self._acked_until = self._removed_until = BEGINNING
        # Who waits until the queue has removed what was acknowledged.
        self._unanswered: list[tuple[str, OnRemoved]] = []
        self.loop.on_acked = self._on_acked
        # When the client last acknowledged or gave back something, or got the first of what is in flight.
        self._progress_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._progress: asyncio.Event | None = None

    # As a transport

    @property
    def window(self) -> Window:
        most, count = self._most, self._most.count - len(self._in_flight)
        size_bytes = most.size_bytes - self._in_flight_bytes
        if self._is_held:
            # Nothing from the entry on that was given back.
            count = min(count, len(self._overdue))
        is_closed = self.close_reason is not None or self._is_draining
        if count <= 0 or size_bytes <= 0 or is_closed or self._waits_for_room:
            return _NOTHING
        return Window(count, size_bytes)

    @property
    def acked_until(self) -> str:
        return self._acked_until

    def deliver(self, batch: list[Notification]) -> str | None:
        if self.close_reason is not None:
            return None
        now_s = self._edge.event_loop.time()
        if not self._in_flight:
            self._progress_s = now_s
        texts, last = list[bytes](), ""
        for notification in batch:
            entry = notification.entry_id
            if self._is_held and not _is_before(entry, self._given_back):
                # What is overdue and did not come before it was dropped from the queue.
                self._overdue.clear()
                break
            event = structured(notification, account_id=self.account_id)
            text = replies.delivered(self.shown_id, entry, event, is_again=self._was_sent(entry))
            texts.append(text)
            self._in_flight[entry] = (len(text), now_s)
            self._in_flight_bytes += len(text)
            last = entry
        if not last:
            return None
        self._forget_overdue(last)
        if self._given_back and not _is_before(last, self._given_back):
            self._given_back = ""
        if not self._socket.write(*texts):
            # The client has gone; the end of the connection is read elsewhere.
            self.close_reason = CloseReason.CLIENT_GONE
            return None
        self.sent += len(texts)
        _SENT.total += len(texts)
        if self._socket.buffered_bytes() > BUFFER_BYTES:
            self._waits_for_room = True
            self._wait_for_room(self)
        self._plan()
        return last

    def adopt(self, serialization: bytes) -> None:
        """Events are CloudEvents here, whatever a Pelion client has set."""

    def rewind(self) -> None:
        # An ack that is on its way could name the entry of another event by now.
        self._in_flight.clear()
        self._overdue.clear()
        self._acked_until = self._removed_until = BEGINNING
        self.let_go(CloseReason.LOST_WRITES)

    def has_room(self) -> bool:
        """Goes on if little is buffered; whether it does."""
        if self._waits_for_room and self._socket.buffered_bytes() <= BUFFER_BYTES // 2:
            self._waits_for_room = False
            self.loop.wake()
        return not self._waits_for_room

    def _was_sent(self, entry: str) -> bool:
        if not self._again_until:
            return False
        if not _is_before(self._again_until, entry):
            return True
        self._again_until = ""
        return False

    def _forget_overdue(self, last: str) -> None:
        """What lies up to the last entry sent is in flight again, or was dropped from the queue."""
        while self._overdue and not _is_before(last, first := next(iter(self._overdue))):
            del self._overdue[first]

    # The client's acks

    def ack(self, entry: str) -> bool:
        """The client has handled everything up to this entry. False if it was not sent, or was given back."""
        if entry in self._in_flight:
            size_bytes, sent_s = self._take_acked(self._in_flight, entry)
            self._in_flight_bytes -= size_bytes
        elif entry in self._overdue:
            self.acked += len(self._in_flight)
            self._in_flight.clear()
            self._in_flight_bytes = 0
            _, sent_s = self._take_acked(self._overdue, entry)
            # What is acknowledged is not sent again.
            self.loop.go_on_behind(entry)
        else:
            return self._acked_until != BEGINNING and not _is_before(self._acked_until, entry)
        self._acked_until = entry
        telemetry.client_ack_s.record(self._moved() - sent_s, _DIALECT)
        self.loop.on_ack()
        return True

    def _take_acked(self, unacked: dict[str, tuple[int, float]], entry: str) -> tuple[int, float]:
        """Takes out everything up to this entry: how many bytes that is, and when the entry was sent."""
        taken_bytes = 0
        while True:
            first = next(iter(unacked))
            size_bytes, sent_s = unacked.pop(first)
            taken_bytes += size_bytes
            self.acked += 1
            if first == entry:
                return taken_bytes, sent_s

    def when_removed(self, entry: str, answer: OnRemoved) -> None:
        """Answers when the queue has removed everything up to this entry, or the channel is let go before."""
        self._unanswered.append((entry, answer))
        self._on_acked(self._removed_until)

    def _on_acked(self, until: str) -> None:
        self._removed_until = until
        if self._unanswered:
            unanswered, self._unanswered = self._unanswered, []
            for entry, answer in unanswered:
                if _is_before(until, entry):
                    self._unanswered.append((entry, answer))
                else:
                    answer(True)

    def nack(self, entry: str, *, delay_s: float) -> bool:
        """Sends this entry and all behind it again, after the delay. False if it was not sent, or is acked.

        What was given back with an entry before it changes nothing.
        """
        if entry in self._in_flight or entry in self._overdue:
            self._give_back(entry)
        elif not self._is_given_back(entry):
            return False
        elif entry != self._given_back:
            return True
        self._resumes_s = self._moved() + delay_s
        self._is_held = delay_s > 0
        if not self._is_held:
            self.loop.wake()
        self._plan()
        return True

    def _give_back(self, entry: str) -> None:
        unacked = {**self._in_flight, **self._overdue}
        entries = list(unacked)
        stays = entries[: entries.index(entry)]
        self._mark_sent(entries[-1])
        # Also what was overdue: its client is there.
        self._in_flight = {each: unacked[each] for each in stays}
        self._in_flight_bytes = sum(size_bytes for size_bytes, _ in self._in_flight.values())
        self._overdue.clear()
        self._given_back = entry
        self.loop.go_on_behind(stays[-1] if stays else self._acked_until)

    def _is_given_back(self, entry: str) -> bool:
        """Is it one of those that were sent, and are neither acknowledged nor with the client?"""
        unacked = self._overdue or self._in_flight
        last = next(reversed(unacked)) if unacked else self._acked_until
        return _is_before(last, entry) and not _is_before(self._again_until or BEGINNING, entry)

    def _mark_sent(self, last: str) -> None:
        self._again_until = max(self._again_until or BEGINNING, last, key=parse_entry_id)

    def _moved(self) -> float:
        """The client goes on; now."""
        self._progress_s = now_s = self._edge.event_loop.time()
        if self._waits_for_room:
            self.has_room()
        if self._progress is not None:
            self._progress.set()
        return now_s

    # Time

    def _plan(self) -> None:
        """Has `_on_time` called when something may be due. A timer that fires too early plans again."""
        due_s = self._progress_s + self._ack_timeout_s if self._in_flight else math.inf
        if self._is_held:
            due_s = min(due_s, self._resumes_s)
        if due_s == math.inf:
            return
        if self._timer is not None:
            if self._timer.when() <= due_s:
                return
            self._timer.cancel()
        self._timer = self._edge.event_loop.call_at(due_s, self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        if self.close_reason is not None or self._is_draining:
            return
        by_s = self._edge.event_loop.time() + _EARLY_S
        if self._is_held and self._resumes_s <= by_s:
            self._is_held = False
            self.loop.wake()
        if self._in_flight and self._progress_s + self._ack_timeout_s <= by_s:
            self._send_again()
        self._plan()

    def _send_again(self) -> None:
        """Nothing was acknowledged for the time-out: what is in flight may have been lost by its client."""
        self._overdue = {**self._in_flight, **self._overdue}
        self._mark_sent(next(reversed(self._overdue)))
        self._in_flight = {}
        self._in_flight_bytes = 0
        self.loop.go_on_behind(self._acked_until)
        self.loop.wake()

    # At the end

    async def until_acked(self) -> None:
        """Sends nothing more, and returns when nothing is in flight."""
        self._is_draining = True
        while self.is_held and self.close_reason is None:
            await self.loop.wait_idle()
            if not self._in_flight:
                return
            self._progress = asyncio.Event()
            await self._progress.wait()

    def let_go(self, reason: CloseReason) -> None:
        """The channel is its socket's no longer; a second call does nothing."""
        if self.close_reason is None:
            self.close_reason = reason
            self._on_closed(self)

    def leave(self) -> None:
        """Sends nothing more. What was acknowledged is acked with `finish`."""
        self.close_reason = self.close_reason or CloseReason.CLIENT_GONE
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._progress is not None:
            self._progress.set()

    async def close(self, reason: CloseReason) -> None:
        if reason not in _OF_THE_SOCKET:
            self.let_go(reason)

    async def abort(self) -> None:
        """Its socket is aborted too."""

    def on_removed(self) -> None:
        super().on_removed()
        unanswered, self._unanswered = self._unanswered, []
        for _, answer in unanswered:
            answer(False)

    @property
    def facts(self) -> dict[str, str | int]:
        """For the log line at its end."""
        return {
            "channel": self.lease.channel,
            "owner": self.lease.owner,
            "reason": self.close_reason or CloseReason.CLIENT_GONE,
            "sent": self.sent,
            "acked": self.acked,
        }


def _is_before(entry: str, other: str) -> bool:
    return parse_entry_id(entry) < parse_entry_id(other)
