"""A Pelion client's socket, which holds its channel's lease and is the transport of its delivery loop.

A write proves nothing. A pong confirms everything that was written before its ping: the client's WebSocket
stack has read it. Only then is it acknowledged. A ping goes with each write while the edge has pings to spare
(spare_pings.py), since a client may close as soon as it has read. Beyond that one ping is in flight at most,
and a busy socket confirms many frames with one. The window bounds what is in flight, in number and in bytes.
It is smaller for a slow client, so that even a very slow one makes progress.
"""

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from starlette.types import Scope, Send

from services.socket_edge.held import WITHOUT_LEASE, HeldSocket, LeaseHolder, PingInFlight, Position
from shared import telemetry
from shared.delivery.loop import DeliveryLoop, Window
from shared.model.channels import CloseReason, Kind
from shared.model.errors import StoreUnavailable
from shared.model.events import Notification
from shared.store.leases import Claimed
from shared.store.queues import BEGINNING, parse_entry_id
from shared.wire.pelion.messages import frames
from shared.wire.pelion.serialization import DEFAULT, stored

if TYPE_CHECKING:
    from services.socket_edge.edge import Edge

logger = logging.getLogger(__name__)

SMALLEST_FRAME_BYTES = 1024
# The share of the limits that may be in flight: at first, and at least.
_FIRST_SHARE = 1 / 256
_SMALLEST_SHARE = 1 / 1024
# What it reads and encodes in one turn of the event loop: half a millisecond.
_READ_SHARE = Window(count=128, size_bytes=64 * 1024)
_NOTHING = Window(count=0, size_bytes=0)
_DIALECT = {"dialect": "pelion"}
_SENT = telemetry.sent.series(_DIALECT)
_FRAMES = telemetry.frames.series(_DIALECT)
_MESSAGE_TOO_BIG = 1009
_PINGS_PER_TURN = 128
# How many pings may be in flight on one socket, and how old the oldest may be then: whether a client still
# reads is judged by what was unread at the newest ping.
_PINGS_IN_FLIGHT = 16
_OLDEST_IN_FLIGHT_S = 1.0


class LeasedSocket(LeaseHolder, HeldSocket):
    """A socket and its lease."""

    kind = Kind.WEBSOCKET
    closed_log = "socket.closed"
    _dialect = "pelion"

    def __init__(self, edge: "Edge", claimed: Claimed, *, scope: Scope, send: Send) -> None:
        super().__init__(edge, claimed.lease.channel, scope=scope, send=send)
        self.lease = claimed.lease
        self.loop = DeliveryLoop(
            edge.stores.queues,
            claimed.lease,
            self,
            acks=edge.acks,
            places=edge.reading_places,
            share=_READ_SHARE,
        )
        self._settings = settings = edge.settings
        self._frame_bytes = min(
            settings.frame_limit_bytes, claimed.frame_limit_bytes or settings.frame_limit_bytes
        )
        # An earlier socket was refused a frame before this entry: send one at a time, to learn which it is.
        self._careful_until = claimed.careful_until
        self._share = _FIRST_SHARE
        self._wanted = DEFAULT
        self._written = Position()
        self._acked = Position()
        # What the pong to the newest ping confirms.
        self._pinged = Position()
        # The window changes once in a round trip: only the pongs to later pings change it again.
        self._adapted_s = 0.0
        self._last_frame_count = 0
        self._is_draining = False
        self._progress: asyncio.Event | None = None

    # As a transport

    @property
    def window(self) -> Window:
        written, acked = self._written, self._acked
        most = max(1, int(self._settings.in_flight_limit * self._share))
        most_bytes = max(SMALLEST_FRAME_BYTES, int(self._settings.in_flight_bytes * self._share))
        count = most - (written.count - acked.count)
        size = most_bytes - (written.size_bytes - acked.size_bytes)
        if count <= 0 or size <= 0 or self.close_reason is not None or self._is_draining:
            return _NOTHING
        if self._careful_until and written.frames > acked.frames and self._is_careful:
            return _NOTHING
        return Window(count, size)

    @property
    def acked_until(self) -> str:
        return self._acked.entry

    def deliver(self, batch: list[Notification]) -> str | None:
        if self.close_reason is not None:
            return None
        most = min(self._settings.batch_limit, self._wanted.max_chunk_size)
        made = frames(batch, limit_bytes=self._frame_bytes, limit_count=most, wanted=self._wanted)
        if self._careful_until and self._is_careful:
            del made[1:]
        texts, count, size = list[bytes](), 0, 0
        for frame in made:
            texts.append(frame.text)
            count += frame.count
            size += len(frame.text)
        last, before = made[-1], self._written
        self._last_frame_count = last.count
        self._written = Position(
            last.last_entry_id, before.count + count, before.size_bytes + size, before.frames + len(made)
        )
        try:
            self._write_and_confirm(texts)
        except OSError:
            # The client has gone; the end of the connection is read elsewhere.
            self.close_reason = CloseReason.CLIENT_GONE
            return None
        _SENT.total += count
        _FRAMES.total += len(made)
        return last.last_entry_id

    def adopt(self, serialization: bytes) -> None:
        self._wanted = stored(serialization)

    def rewind(self) -> None:
        self._clear_pings()
        self._written = replace(self._written, entry=BEGINNING)
        self._acked = self._pinged = self._written

    # As a socket

    async def drain(self, *, within_s: float) -> None:
        """Closes once the client has acknowledged what was sent, or the time is over.

        What is not acknowledged by then is sent again elsewhere.
        """
        if not self.is_held:
            # It ended before this task began, and has no loop any more.
            return
        self._is_draining = True
        loop = self.loop
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await loop.wait_idle()
                self.ping_behind()
                while self._written.count > self._acked.count:
                    self._progress = asyncio.Event()
                    await self._progress.wait()
                    await loop.wait_idle()
        await self.close(CloseReason.STOPPING)

    async def close(self, reason: CloseReason) -> None:
        """Pongs that come before the client's own close frame still acknowledge, while the lease is there."""
        is_last_ping_due = reason not in WITHOUT_LEASE and self._written.count > self._pinged.count
        if self.close_reason is None and is_last_ping_due:
            # Its pong comes before the client's close frame.
            with contextlib.suppress(OSError):
                self.ping()
        await super().close(reason)

    def ping(self, texts: Sequence[bytes] = (), mark: Position | None = None) -> None:
        self._pinged = self._written
        super().ping(texts, self._written)
        self._edge.spare_pings.count(self._pinged_s)

    def _on_pong(self, ping: PingInFlight) -> None:
        assert ping.mark is not None
        is_progress = ping.mark.count > self._acked.count
        self._acked = ping.mark
        if is_progress:
            now_s = self._edge.event_loop.time()
            took_s = now_s - ping.sent_s
            telemetry.client_ack_s.record(took_s, _DIALECT)
            if ping.sent_s >= self._adapted_s:
                self._adapted_s = now_s
                self._adapt(took_s)
            self.loop.on_ack()
            if self._progress is not None:
                self._progress.set()
        if self.close_reason is None and self._written.count > self._pinged.count:
            # A client that has gone is noticed where its messages are read.
            with contextlib.suppress(OSError):
                self._write_and_confirm(())

    def _write_and_confirm(self, texts: Sequence[bytes]) -> None:
        """Writes the texts, with a ping if one is due; if it is too early for it, a timer sends it.

        Raises OSError when the client has gone.
        """
        edge = self._edge
        if self._is_ping_due(edge.event_loop.time()):
            self.ping(texts)
            return
        if texts:
            self._write(texts, None)
        # The pong to a ping in flight brings the next one.
        if not self._in_flight:
            if not edge.unconfirmed:
                edge.event_loop.call_later(edge.ping_spacing_s, _ping_all, edge)
            edge.unconfirmed[self] = None

    def _is_ping_due(self, now_s: float) -> bool:
        """At once while the edge has pings to spare; else if none is in flight.

        Then after the spacing; at once for half a window, and if a shutdown or the next frame waits for it.
        """
        edge = self._edge
        if in_flight := self._in_flight:
            is_quick = now_s - in_flight[0].sent_s < _OLDEST_IN_FLIGHT_S
            return is_quick and len(in_flight) < _PINGS_IN_FLIGHT and edge.spare_pings.are_left(now_s)
        written, acked, share = self._written, self._acked, self._share
        return (
            now_s - self._pinged_s >= edge.ping_spacing_s
            or written.count - acked.count >= self._settings.in_flight_limit * share / 2
            or written.size_bytes - acked.size_bytes >= self._settings.in_flight_bytes * share / 2
            or self._is_draining
            or bool(self._careful_until and self._is_careful)
            or edge.spare_pings.are_left(now_s)
        )

    def ping_behind(self) -> None:
        """Pings for what no ping stands for yet."""
        if not self._in_flight and self.close_reason is None and self._written.count > self._acked.count:
            with contextlib.suppress(OSError):
                self.ping()

    def _adapt(self, took_s: float) -> None:
        """Enlarges the window for a client that acknowledges quickly; shrinks it near the time-out."""
        if took_s < self._settings.ping_timeout_s / 10:
            self._share = min(self._share * 2, 1.0)
        elif took_s > self._settings.ping_timeout_s / 3:
            self._share = max(self._share / 2, _SMALLEST_SHARE)

    # At the end

    async def finish(self) -> Callable[[], Awaitable[object]] | None:
        release = await super().finish()
        if self.client_code == _MESSAGE_TOO_BIG and self.close_reason in (None, CloseReason.CLIENT_GONE):
            with contextlib.suppress(StoreUnavailable):
                await self._record_refusal()
        return release

    async def _record_refusal(self) -> None:
        """The client closed on a frame that was too long for it: the next socket sends shorter ones."""
        if (refused := self.refused) is None:
            return
        limit, until, single = refused
        outcome = await self._edge.stores.queues.refuse(
            self.lease, frame_limit_bytes=limit, until=until, single_entry=single
        )
        facts = {**self.facts, "frame_limit_bytes": limit, "entry": single, "outcome": outcome}
        logger.warning("frame.refused", extra={"facts": facts})
        if outcome == "dropped":
            telemetry.dropped.add(1, {"reason": "too-long-for-client"})

    @property
    def refused(self) -> tuple[int, str, str] | None:
        """After a 1009: (frame limit from now on, last entry to send singly, the refused entry or '').

        None when nothing was in flight: then the client refused no frame of ours.
        """
        in_flight = self._written.frames - self._acked.frames
        if in_flight == 0:
            return None
        is_single = in_flight == 1 and self._last_frame_count == 1
        limit = self._frame_bytes if is_single else max(self._frame_bytes // 2, SMALLEST_FRAME_BYTES)
        until = max(self._written.entry, self._careful_until or BEGINNING, key=parse_entry_id)
        return limit, until, self._written.entry if is_single else ""

    @property
    def facts(self) -> dict[str, str | int]:
        return {
            "channel": self.lease.channel,
            "owner": self.lease.owner,
            "reason": self.close_reason or CloseReason.CLIENT_GONE,
            "sent": self._written.count,
            "acked": self._acked.count,
        }

    @property
    def _is_careful(self) -> bool:
        if not self._careful_until:
            return False
        return parse_entry_id(self._acked.entry) < parse_entry_id(self._careful_until)


def _ping_all(edge: "Edge") -> None:
    """One timer for all sockets: each would cost as much as its ping."""
    unconfirmed = edge.unconfirmed
    lot = list(itertools.islice(unconfirmed, _PINGS_PER_TURN))
    for socket in lot:
        del unconfirmed[socket]
        socket.ping_behind()
    if unconfirmed:
        edge.event_loop.call_soon(_ping_all, edge)
