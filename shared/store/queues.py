"""The notifications a channel is still owed, oldest first: one Redis stream for each channel.

An entry stays in the stream until it is settled, and settling is always from the front.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from shared import telemetry
from shared.model.channels import Ending, Lease
from shared.model.errors import NoLongerOwner
from shared.model.events import Event, Notification
from shared.store import keyspace
from shared.store.calls import Calls

BEGINNING = "0-0"


class Appended(StrEnum):
    """What became of an append."""

    QUEUED = "queued"
    ABSENT = "absent"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class Batch:
    """The front of a queue after some place. `more`: is there anything behind it already?

    `rewound`: the queue ends before that place, so Redis has lost what stood there.
    """

    notifications: list[Notification]
    more: bool
    rewound: bool = False
    serialization: bytes | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """What a queue keeps: at most so many bytes, none older than so long; the oldest go first."""

    size_bytes: int = 50 * 1024 * 1024
    lifetime_ms: int = 24 * 3600 * 1000

    @classmethod
    def of(cls, size_bytes: int, lifetime_s: float) -> "QueueLimits":
        return cls(size_bytes=size_bytes, lifetime_ms=round(lifetime_s * 1000))


def _wall_clock_ms() -> int:
    return time.time_ns() // 1_000_000


class Queues:
    """Appends to queues; reads and settles them for their owners."""

    def __init__(
        self,
        calls: Calls,
        *,
        limits: QueueLimits = QueueLimits(),
        now_ms: Callable[[], int] = _wall_clock_ms,
    ) -> None:
        self._calls = calls
        self._limits = limits
        self._now_ms = now_ms

    async def append(self, api_key_id: str, events: Sequence[Event]) -> tuple[Appended, str]:
        """Queues the events in order, all or none; tells what became of it, and the owner to nudge or ''."""
        i = api_key_id
        names = [keyspace.api_key(i), keyspace.channel(i), keyspace.lease(i), keyspace.queue(i)]
        values = [part for e in events for part in (e.id, e.topic, e.data, e.name, e.time)]
        limits = (self._limits.size_bytes, self._oldest())
        word, *found = await self._calls.script("queue_append", names, *limits, *values)
        if word != b"queued":
            return Appended(word.decode()), ""
        owner, over, old = found
        telemetry.dropped_from_queue(over=over, old=old)
        return Appended.QUEUED, owner.decode()

    async def forget_old(self, api_key_id: str) -> int:
        """Drops what is too old from a queue that nobody touches; tells how many."""
        names = [keyspace.channel(api_key_id), keyspace.queue(api_key_id)]
        old = int(await self._calls.script("queue_age", names, self._oldest()))
        telemetry.dropped_from_queue(over=0, old=old)
        return old

    def _oldest(self) -> str:
        """The first place in a queue that is not too old: places begin with their time in ms."""
        return f"{max(0, self._now_ms() - self._limits.lifetime_ms)}-0"

    async def peek(self, lease: Lease, *, after: str, count: int, size_bytes: int) -> Batch:
        """Up to `count` notifications behind `after`, about `size_bytes` of them but at least one.

        With count 0 it only looks whether the lease holds. Raises NoLongerOwner.
        """
        return await self._look(lease, after, count, size_bytes, reclaims=0)

    async def look_again(self, lease: Lease) -> Batch:
        """Looks whether the lease holds, and writes the claim again if Redis lost it in a crash.

        Nothing is read; `more` asks for a peek. Raises NoLongerOwner.
        """
        await self._look(lease, BEGINNING, 0, 0, reclaims=1)
        return Batch([], more=True)

    async def _look(self, lease: Lease, after: str, count: int, size_bytes: int, *, reclaims: int) -> Batch:
        i = lease.channel
        names = [keyspace.api_key(i), keyspace.channel(i), keyspace.lease(i), keyspace.queue(i)]
        held_by = (lease.owner, lease.previous, lease.incarnation)
        word, *found = await self._calls.script(
            "queue_peek", names, *held_by, after, count, size_bytes, reclaims, self._oldest()
        )
        if word == b"rewound":
            return Batch([], more=True, rewound=True)
        if word != b"held":
            raise NoLongerOwner(ending=_ENDINGS[word])
        more, dropped, serialization, *entries = found
        telemetry.dropped_from_queue(over=0, old=dropped)
        batch = [_notification(*entry) for entry in entries]
        return Batch(batch, more=bool(more), serialization=serialization)

    async def has_reached(self, lease: Lease, entry: str) -> bool:
        """Has the queue held this entry, by its own account? False when Redis lost it in a crash.

        Of what was settled all before it is gone, too; what was lost may have entries before it.
        """
        if entry == BEGINNING:
            return True
        last, head, is_there = await self._calls.script("queue_ends", [keyspace.queue(lease.channel)], entry)
        if head:
            return bool(is_there) or _place(head.decode()) > _place(entry)
        return _place(last.decode()) >= _place(entry)

    async def settle(self, lease: Lease, *, until: str) -> int | None:
        """Forgets everything up to and including `until`; tells how many that were, None if not the owner."""
        names = [keyspace.lease(lease.channel), keyspace.queue(lease.channel)]
        ms, _, sequence = until.partition("-")
        gone = await self._calls.script("queue_settle", names, lease.owner, f"{ms}-{int(sequence) + 1}")
        return None if gone < 0 else int(gone)

    async def settle_event(self, lease: Lease, event_id: str, *, count: int, size_bytes: int) -> int | None:
        """Forgets everything up to and including the first notification of this event.

        It looks among the front `count`, or about `size_bytes`. Tells how many that were, 0 when it does not
        stand there, None if not the owner.
        """
        names = [keyspace.lease(lease.channel), keyspace.queue(lease.channel)]
        gone = await self._calls.script("queue_settle_event", names, lease.owner, event_id, count, size_bytes)
        return None if gone < 0 else int(gone)

    async def refuse(self, lease: Lease, *, frame_limit_bytes: int, until: str, single_entry: str) -> str:
        """Remembers a frame that the client found too long; `single_entry` is '' if it held several.

        Answers 'remembered', 'dropped' (the single notification, after three times) or 'stale'.
        """
        i = lease.channel
        names = [keyspace.channel(i), keyspace.lease(i), keyspace.queue(i)]
        held_by = (lease.owner, lease.incarnation)
        word: bytes = await self._calls.script(
            "queue_refuse", names, *held_by, frame_limit_bytes, until, single_entry
        )
        return word.decode()


_ENDINGS = {
    b"revoked": Ending.KEY_REVOKED,
    b"deleted": Ending.CHANNEL_DELETED,
    b"taken": Ending.TAKEN_OVER,
}


def _place(entry: str) -> tuple[int, int]:
    ms, _, sequence = entry.partition("-")
    return int(ms), int(sequence)


def _notification(entry: bytes, values: Sequence[bytes]) -> Notification:
    # The field names are always the same, in the order in which queue_append.lua writes them.
    return Notification(
        entry=entry.decode(),
        event_id=values[1].decode(),
        topic=values[3].decode(),
        data=values[5],
        name=values[7].decode(),
        time=values[9].decode(),
    )
