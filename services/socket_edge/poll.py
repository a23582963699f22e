"""One open long poll that holds its channel's lease: the transport that takes one message, and no more.

A poll is open until it is decided what it answers. What a message holds is acked only when the peer's
kernel has confirmed every byte of it, on a connection that is still there: short of a word from the client,
there is no better credential. Where the client names what it has handled (`after`), only its word acks.
"""

import asyncio
from dataclasses import replace

from shared import telemetry
from shared.delivery.loop import DeliveryLoop, Window
from shared.model.channels import CloseReason, Kind, Lease
from shared.model.events import Notification
from shared.runtime.http.protocol import Connection
from shared.store.queues import BEGINNING, Queues
from shared.wire.pelion.messages import Message, message
from shared.wire.pelion.pulling import Pull
from shared.wire.pelion.serialization import Serialization, stored

# A peer that reads nothing for so long is cut; one that gets on, however slowly, is not.
STALLED_S = 5.0
_FIRST_LOOK_S = 0.001
_LONGEST_PAUSE_S = 0.25
_NOTHING = Window(count=0, size_bytes=0)
_DIALECT = {"dialect": "pelion"}


class Poll:
    """A request that waits for notifications, and its lease."""

    kind = Kind.PULL

    def __init__(
        self, *, lease: Lease, queues: Queues, connection: Connection, most: Window, asked: Pull
    ) -> None:
        self.lease = lease
        self.loop = DeliveryLoop(queues, lease, self)
        self.close_reason: CloseReason | None = None
        self.message: Message | None = None
        self.last_uid = ""
        self.decided = asyncio.Event()
        self.over = asyncio.Event()
        self._connection = connection
        self._most = most
        self._asked = asked
        # What the client has handled is to be acked before anything is read.
        self._begun = asked.after is None
        self._wanted = Serialization()
        self._is_doubtful = False
        self._acked = BEGINNING

    @property
    def is_open(self) -> bool:
        """Is it still to be decided what it answers?"""
        return not self.decided.is_set()

    @property
    def is_live(self) -> bool:
        """Is it open, and its client still there?"""
        return self.is_open and not self._connection["has_hung_up"]()

    def begin(self) -> None:
        """Reads from now on."""
        self._begun = True
        self.loop.wake()

    def give_up(self) -> None:
        """Nothing came."""
        self.decided.set()

    # As a transport

    @property
    def window(self) -> Window:
        return self._most if self._begun and self.is_open else _NOTHING

    @property
    def acked_until(self) -> str:
        return self._acked

    def deliver(self, batch: list[Notification]) -> str | None:
        if not self.is_open:
            return None
        if self._asked.after is not None:
            self._wanted = replace(self._wanted, uid=True, deregistrations_as_object=True)
        most = min(self._most.count, self._wanted.chunk)
        made = message(batch, limit_bytes=self._most.size_bytes, limit_count=most, wanted=self._wanted)
        if made is None:
            return None
        self.message = made
        self.last_uid = batch[made.count - 1].event_id
        self.decided.set()
        return made.last_entry_id

    def adopt(self, serialization: bytes) -> None:
        self._wanted = stored(serialization)

    def rewind(self) -> None:
        # Other notifications may come to stand where those of the message stood.
        self._is_doubtful = True
        self._acked = BEGINNING

    async def end(self, close_reason: CloseReason) -> None:
        if self.is_open:
            self.close_reason = close_reason
            self.decided.set()

    async def abort(self) -> None:
        self._connection["abort"]()

    # As a request

    async def until_read(self) -> None:
        """Waits until the peer has what was just written, or is gone, or has stalled, and is cut."""
        assert self.message is not None
        # Open after the writing, it was open before: every byte went its way.
        if not (self._connection["is_open"]() and await _is_read(self._connection)):
            self.close_reason = CloseReason.CLIENT_GONE
            return
        telemetry.sent.add(self.message.count, _DIALECT)
        if self._asked.after is None and not self._is_doubtful:
            self._acked = self.message.last_entry_id

    @property
    def outcome(self) -> str:
        if self.close_reason is not None:
            return self.close_reason
        return "nothing" if self.message is None else "delivered"

    @property
    def facts(self) -> dict[str, str | int]:
        """What the one line in the log tells of it."""
        return {
            "channel": self.lease.channel,
            "owner": self.lease.owner,
            "outcome": self.outcome,
            "count": self.message.count if self.message else 0,
        }


async def _is_read(connection: Connection) -> bool:
    """Has the peer's kernel everything? False when nobody will know, or when it stalled, and was cut."""
    now_s = asyncio.get_running_loop().time
    pause_s, least, stalled_at_s = _FIRST_LOOK_S, None, 0.0
    while unread := connection["unread_bytes"]():
        if least is None or unread < least:
            least, stalled_at_s = unread, now_s() + STALLED_S
        elif now_s() > stalled_at_s:
            connection["abort"]()
            return False
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
    return unread is not None
