"""One open long poll, which holds its channel's lease: a transport that takes one message.

A poll is open until its response is decided. The message is acknowledged only when the peer's kernel has
confirmed every byte of it, on a connection that is still there: HTTP has no better confirmation. Where the
client names what it has handled (`after`), only that acknowledges.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from msgspec.structs import replace

from services.socket_edge.held import WITHOUT_LEASE, LeaseHolder
from services.socket_edge.kept_leases import KeptLease
from shared import telemetry
from shared.delivery.loop import DeliveryLoop, Window
from shared.model.channels import CloseReason, Kind, Lease
from shared.model.events import Notification
from shared.runtime.http.protocol import Connection
from shared.store.queues import BEGINNING
from shared.wire.messages import Message
from shared.wire.pelion.messages import message
from shared.wire.pelion.pulling import Pull
from shared.wire.pelion.serialization import DEFAULT, stored

if TYPE_CHECKING:
    from services.socket_edge.edge import Edge

# A peer that reads nothing for so long is aborted; one that reads slowly is not.
STALLED_S = 5.0
_FIRST_PAUSE_S = 0.001
_LONGEST_PAUSE_S = 0.25
# A response is encoded in one turn of the event loop: two milliseconds. The next poll gets the rest.
_READ_COUNT = 512
_NOTHING = Window(count=0, size_bytes=0)
_LOST = (*WITHOUT_LEASE, CloseReason.PAUSED)
_DIALECT = {"dialect": "pelion"}


class Poll(LeaseHolder):
    """A request that waits for notifications, and its lease."""

    kind = Kind.PULL
    closes_at_a_pace = False

    keeps = False
    """The client is likely to poll again: its lease is kept for that."""
    _kept: KeptLease | None = None

    def __init__(
        self, edge: "Edge", lease: Lease, *, connection: Connection, pull: Pull, is_proxied: bool = False
    ) -> None:
        """`is_proxied`: the peer is a trusted proxy."""
        super().__init__(edge, lease.channel)
        self.lease = lease
        self.message: Message | None = None
        self.last_uid = ""
        self.decided = asyncio.Event()
        self._connection = connection
        self._is_proxied = is_proxied
        most_bytes = edge.settings.in_flight_bytes
        self._most = Window(count=edge.settings.batch_limit, size_bytes=most_bytes)
        share = Window(count=_READ_COUNT, size_bytes=most_bytes)
        self.loop = DeliveryLoop(edge.stores.queues, lease, self, places=edge.reading_places, share=share)
        self.pull = pull
        # With `after`: first what the client has handled is acknowledged, then the queue is read.
        self._begun = pull.after is None
        self._serialization, self._wanted = b"", DEFAULT
        self._was_rewound = False
        self._acked = BEGINNING

    @property
    def kept(self) -> KeptLease | None:
        """What the poll before has left: this one goes on from there."""
        return self._kept

    @kept.setter
    def kept(self, kept: KeptLease | None) -> None:
        self._kept = kept
        if kept is not None:
            self.loop.begin_behind(kept.cursor, kept.serialization)

    @property
    def is_kept_in_vain(self) -> bool:
        """The lease was kept from the poll before, and was lost before this one could read."""
        return self._kept is not None and not self.loop.has_read and self.close_reason in _LOST

    @property
    def is_open(self) -> bool:
        """Is its response still to be decided?"""
        return not self.decided.is_set()

    def begin(self) -> None:
        """Takes notifications from now on."""
        self._begun = True
        self.loop.wake()

    # As a transport

    @property
    def window(self) -> Window:
        """Nothing once the poll is ending or its client is gone: a read for nothing confirms no lease."""
        has_gone = self.pull.waits and self._connection["has_hung_up"]()
        takes = self._begun and self.is_open and not has_gone
        return self._most if takes else _NOTHING

    @property
    def acked_until(self) -> str:
        return self._acked

    def deliver(self, batch: list[Notification]) -> str | None:
        if not self.is_open:
            return None
        if self.pull.after is not None:
            cfg = replace(self._wanted.cfg, include_uid=True, deregistrations_as_object=True)
            self._wanted = replace(self._wanted, cfg=cfg)
        most = min(self._most.count, self._wanted.max_chunk_size)
        made = message(batch, limit_bytes=self._most.size_bytes, limit_count=most, wanted=self._wanted)
        if made is None:
            return None
        self.message = made
        self.last_uid = batch[made.count - 1].event_id
        self.decided.set()
        return made.last_entry_id

    def adopt(self, serialization: bytes) -> None:
        self._serialization = serialization
        self._wanted = stored(serialization)

    def rewind(self) -> None:
        # Redis may give the entry ids of the message to other notifications.
        self._was_rewound = True
        self._acked = BEGINNING

    # As a connection

    async def close(self, reason: CloseReason) -> None:
        if self.is_open:
            self.close_reason = reason
            self.decided.set()

    async def abort(self) -> None:
        self._connection["abort"]()

    async def finish(self) -> Callable[[], Awaitable[object]] | None:
        release = await super().finish()
        if release is None or not self.keeps or self.close_reason is not None:
            return release
        cursor = BEGINNING
        if self.pull.after is None:
            # What was delivered and not acked must come again.
            is_acked = self.message is None or self._acked == self.message.last_entry_id
            end = self.loop.end
            if end is None or not is_acked:
                return release
            cursor = end
        is_kept = self._edge.kept_leases.keep(self.lease, cursor=cursor, serialization=self._serialization)
        return None if is_kept else release

    # As a request

    async def until_decided(self, *, within_s: float) -> None:
        """Waits until there is a response; once the time is over, there is none."""
        # No timeout: it takes as long as the rest of the wait.
        timer = self._edge.event_loop.call_later(within_s, self.decided.set)
        try:
            await self.decided.wait()
        finally:
            timer.cancel()

    async def until_read(self) -> None:
        """Waits until the peer has what was just written, is gone, or has stalled and is aborted."""
        assert self.message is not None
        if not await self._is_read():
            self.close_reason = CloseReason.CLIENT_GONE
            return
        telemetry.sent.add(self.message.count, _DIALECT)
        if self.pull.after is None and not self._was_rewound:
            self._acked = self.message.last_entry_id

    async def _is_read(self) -> bool:
        if self._is_proxied:
            # HAProxy closes its connections with a reset, also after a response.
            return await _are_all_read(self._connection, self._connection["unacked_bytes"])
        # A connection that is open after the write was open before: every byte was sent.
        is_open = self._connection["is_open"]()
        return is_open and await _are_all_read(self._connection, self._connection["unread_bytes"])

    @property
    def outcome(self) -> str:
        if self.close_reason is not None:
            return self.close_reason
        return "nothing" if self.message is None else "delivered"

    @property
    def facts(self) -> dict[str, str | int]:
        """For the log line at its end."""
        return {
            "channel": self.lease.channel,
            "owner": self.lease.owner,
            "outcome": self.outcome,
            "count": self.message.count if self.message else 0,
        }


async def _are_all_read(connection: Connection, unread_bytes: Callable[[], int | None]) -> bool:
    """Has the peer's kernel read all bytes? False when that is unknown, or it stalled and was aborted."""
    now_s = asyncio.get_running_loop().time
    # The first time after one turn of the loop: a reset may follow the acknowledgement at once.
    pause_s, least, stalled_at_s = 0.0, None, 0.0
    while unread := unread_bytes():
        if not connection["is_open"]():
            # Nothing more will be acknowledged, but the last of it may have been since.
            return unread_bytes() == 0
        if least is None or unread < least:
            least, stalled_at_s = unread, now_s() + STALLED_S
        elif now_s() > stalled_at_s:
            connection["abort"]()
            return False
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * 2 or _FIRST_PAUSE_S, _LONGEST_PAUSE_S)
    return unread is not None
