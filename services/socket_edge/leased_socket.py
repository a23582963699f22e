"""One socket that holds its channel's lease: the transport that its queue is drained into.

A write to a socket proves nothing, so the hold keeps one ping in flight, whose payload stands for everything
written so far. The pong that carries it back proves that the client's own WebSocket stack has read all of it;
only then is it acked. What is written and not confirmed is bounded, in number and in bytes; a client that
takes long to confirm is given less at once, so that even a very slow one gets on.
"""

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

from starlette.types import Send

from services.socket_edge.keepalive import Keepalive
from shared import telemetry
from shared.delivery.loop import AckScheduler, DeliveryLoop, Window
from shared.model.channels import CloseReason, Kind
from shared.model.events import Notification
from shared.runtime.websocket.protocol import Control
from shared.store.leases import Claimed
from shared.store.queues import BEGINNING, Queues
from shared.wire.close_reasons import close_frame
from shared.wire.pelion.frames import Frame, frames
from shared.wire.pelion.serialization import Serialization, stored

logger = logging.getLogger(__name__)

SMALLEST_FRAME_BYTES = 1024
# The part of the limits that may be under way: at first, and at least.
_FIRST_SHARE = 1 / 256
_SMALLEST_SHARE = 1 / 1024
_NOTHING = Window(count=0, size_bytes=0)
_DIALECT = {"dialect": "pelion"}


@dataclass(frozen=True, slots=True)
class Limits:
    """What may be under way on one socket, and in one frame."""

    frame_bytes: int
    frame_count: int
    in_flight_count: int
    in_flight_bytes: int
    ping_timeout_s: float


@dataclass(frozen=True, slots=True)
class Position:
    """How far a socket has got: the last entry, and how much that was in all."""

    entry: str = BEGINNING
    count: int = 0
    size_bytes: int = 0
    frames: int = 0

    def then(self, frame: Frame) -> "Position":
        size = self.size_bytes + len(frame.text)
        return Position(frame.last_entry_id, self.count + frame.count, size, self.frames + 1)


@dataclass(frozen=True, slots=True)
class _Ping:
    payload: bytes
    stands_for: Position
    sent_s: float


class LeasedSocket:
    """A socket and its lease."""

    kind = Kind.WEBSOCKET

    def __init__(
        self,
        *,
        send: Send,
        control: Control,
        claimed: Claimed,
        queues: Queues,
        acks: AckScheduler,
        limits: Limits,
        keepalive: "Keepalive[LeasedSocket]",
        close_codes: int,
    ) -> None:
        self.lease = claimed.lease
        self.close_reason: CloseReason | None = None
        self.loop = DeliveryLoop(queues, claimed.lease, self, acks=acks)
        self._send = send
        self._write = control["write"]
        self._unread_bytes = control["unread_bytes"]
        self._limits = limits
        self._keepalive = keepalive
        self._close_codes = close_codes
        self._frame_bytes = min(limits.frame_bytes, claimed.frame_limit_bytes or limits.frame_bytes)
        # Up to here an earlier socket was refused a frame: one at a time, to learn which it is.
        self._careful_until = _place(claimed.careful_until or BEGINNING)
        self._share = _FIRST_SHARE
        self._wanted = Serialization()
        self._written = Position()
        self._acked = Position()
        self._last_frame_count = 0
        self._pings = 0
        self._ping: _Ping | None = None
        self._unread_when_pinged = 0
        self._parts = False
        self._news: asyncio.Event | None = None
        keepalive.rests(self, now_s=_now_s())

    # As a transport

    @property
    def window(self) -> Window:
        most = max(1, int(self._limits.in_flight_count * self._share))
        most_bytes = max(SMALLEST_FRAME_BYTES, int(self._limits.in_flight_bytes * self._share))
        count = most - (self._written.count - self._acked.count)
        size = most_bytes - (self._written.size_bytes - self._acked.size_bytes)
        waits = self._is_careful and self._written.frames > self._acked.frames
        if self.close_reason is not None or self._parts or count <= 0 or size <= 0 or waits:
            return _NOTHING
        return Window(count=count, size_bytes=size)

    @property
    def acked_until(self) -> str:
        return self._acked.entry

    def deliver(self, batch: list[Notification]) -> str | None:
        if self.close_reason is not None:
            return None
        before = written = self._written
        texts = list[bytes]()
        most = min(self._limits.frame_count, self._wanted.chunk)
        for frame in frames(batch, limit_bytes=self._frame_bytes, limit_count=most, wanted=self._wanted):
            texts.append(frame.text)
            written = written.then(frame)
            self._last_frame_count = frame.count
            if self._is_careful:
                break
        self._written = written
        try:
            if self._ping is None:
                self._write_with_ping(texts)
            else:
                self._write(texts, None)
        except OSError:
            # The client has gone; the endpoint hears of it by itself.
            self.close_reason = CloseReason.CLIENT_GONE
            return None
        telemetry.sent.add(written.count - before.count, _DIALECT)
        telemetry.frames.add(written.frames - before.frames, _DIALECT)
        return written.entry

    def adopt(self, serialization: bytes) -> None:
        self._wanted = stored(serialization)

    def rewind(self) -> None:
        self._ping = None
        self._keepalive.rests(self, now_s=_now_s())
        self._written = replace(self._written, entry=BEGINNING)
        self._acked = self._written

    async def part(self, *, within_s: float) -> None:
        """Says goodbye in good order: what is under way is confirmed and acked before, if it is in time.

        Its client will be elsewhere a moment later: what is not acked by then, it is sent again.
        """
        self._parts = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self.loop.rested()
                while self._written.count > self._acked.count:
                    self._news = asyncio.Event()
                    await self._news.wait()
                    await self.loop.rested()
        await self.end(CloseReason.STOPPING)

    async def end(self, close_reason: CloseReason) -> None:
        """Says goodbye; what is confirmed before the client's own close frame still counts."""
        if self.close_reason is not None:
            return
        try:
            asked_for = self._ping.stands_for if self._ping else self._acked
            if close_reason is CloseReason.STOPPING and self._written.count > asked_for.count:
                # The pong to this one comes before the client's close frame.
                self.ping()
            self.close_reason = close_reason
            code, reason = close_frame(close_reason, dialect="pelion", year=self._close_codes)
            await self._send({"type": "websocket.close", "code": code, "reason": reason})
        except OSError:
            self.close_reason = CloseReason.CLIENT_GONE

    # As a socket

    def ping(self) -> None:
        """One ping, for everything written so far; it takes the place of one still in flight.

        Raises OSError when the client has gone.
        """
        self._write_with_ping(())

    def heard_pong(self, payload: bytes) -> None:
        ping = self._ping
        if ping is None or payload != ping.payload:
            return
        self._ping = None
        news = ping.stands_for.count > self._acked.count
        self._acked = ping.stands_for
        now_s = _now_s()
        self._keepalive.rests(self, now_s=now_s)
        if news:
            took_s = now_s - ping.sent_s
            telemetry.client_ack_s.record(took_s, _DIALECT)
            self._adapt(took_s)
            self.loop.on_ack()
            if self._news is not None:
                self._news.set()
        if self.close_reason is None and self._written.count > self._acked.count:
            # One that has gone is heard of by the endpoint.
            with contextlib.suppress(OSError):
                self.ping()

    def _write_with_ping(self, texts: Sequence[bytes]) -> None:
        self._pings += 1
        now_s = _now_s()
        self._ping = _Ping(self._pings.to_bytes(8, "big"), self._written, now_s)
        self._write(texts, self._ping.payload)
        self._unread_when_pinged = self._unread_bytes() if self._written.count > self._acked.count else 0
        self._keepalive.owes(self, now_s=now_s)

    async def abort_if_stalled(self) -> None:
        """Its pong is overdue: drops the connection, unless the client has at least read something since."""
        unread = self._unread_bytes()
        if 0 < unread < self._unread_when_pinged:
            self._unread_when_pinged = unread
            self._keepalive.owes(self, now_s=_now_s())
            return
        self.close_reason = self.close_reason or CloseReason.STALLED
        self._keepalive.forget(self)
        await self.abort()

    def _adapt(self, took_s: float) -> None:
        """More at once for a client that confirms quickly, less for one that comes near the time-out."""
        if took_s < self._limits.ping_timeout_s / 10:
            self._share = min(self._share * 2, 1.0)
        elif took_s > self._limits.ping_timeout_s / 3:
            self._share = max(self._share / 2, _SMALLEST_SHARE)

    async def abort(self) -> None:
        await self._send({"type": "websocket.abort"})

    def over(self) -> None:
        """The connection is gone. A hold and its drain have each other: both would stay until the collector
        comes."""
        self._ping = None
        del self.loop

    @property
    def refused(self) -> tuple[int, str, str] | None:
        """After a 1009: (frame limit from now on, until which entry to be careful, the one refused or '').

        None when nothing was under way, so that it was no frame of ours that the client found too long.
        """
        under_way = self._written.frames - self._acked.frames
        if under_way == 0:
            return None
        is_single = under_way == 1 and self._last_frame_count == 1
        limit = self._frame_bytes if is_single else max(self._frame_bytes // 2, SMALLEST_FRAME_BYTES)
        until = max(self._written.entry, "-".join(map(str, self._careful_until)), key=_place)
        return limit, until, self._written.entry if is_single else ""

    @property
    def facts(self) -> dict[str, str | int]:
        """What the one line in the log tells of it."""
        return {
            "channel": self.lease.channel,
            "owner": self.lease.owner,
            "reason": self.close_reason or CloseReason.CLIENT_GONE,
            "sent": self._written.count,
            "confirmed": self._acked.count,
        }

    @property
    def _is_careful(self) -> bool:
        return _place(self._acked.entry) < self._careful_until


def _place(entry: str) -> tuple[int, int]:
    ms, _, sequence = entry.partition("-")
    return int(ms), int(sequence)


def _now_s() -> float:
    return asyncio.get_running_loop().time()
