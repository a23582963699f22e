"""The notifications a channel is still pending, oldest first: one Redis stream for each channel.

An entry stays in the stream until it is acked, and acking is always from the front.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeAlias

from shared import telemetry
from shared.model.channels import CloseReason, Lease
from shared.model.errors import NoLongerOwner
from shared.model.events import Event, Notification, Trail
from shared.redis.pipeline import RedisCommands
from shared.store import keyspace

BEGINNING = "0-0"

# For which channel, and what.
_Wanted: TypeAlias = tuple[str, Sequence[Event]]


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


@dataclass(frozen=True, slots=True)
class Left:
    """What a queue is after its old notifications went: how many, since when the rest waits, for whom."""

    dropped: int
    oldest_ms: int | None
    owner: str


def _wall_clock_ms() -> int:
    return time.time_ns() // 1_000_000


class Queues:
    """Appends to queues; reads and acks them for their owners."""

    def __init__(
        self,
        redis: RedisCommands,
        *,
        limits: QueueLimits = QueueLimits(),
        now_ms: Callable[[], int] = _wall_clock_ms,
    ) -> None:
        self._redis = redis
        self._limits = limits
        self._now_ms = now_ms

    async def append(self, api_key_id: str, events: Sequence[Event], *, traceparent: str = "") -> Appended:
        """Queues the events in order, all or none, and wakeups whoever holds the channel.

        `traceparent` travels with each of them, as does the wish for a receipt.
        """
        [appended] = await self.append_all([(api_key_id, events)], traceparent=traceparent)
        return appended

    async def append_all(self, wanted: Sequence[_Wanted], *, traceparent: str = "") -> list[Appended]:
        """The same to several channels at once: what is for one is queued in one step."""
        oldest = self._oldest()
        calls = [self._append(api_key_id, events, oldest, traceparent) for api_key_id, events in wanted]
        # They are under way together.
        answers = [await call for call in calls]
        for word, *found in answers:
            if word == b"queued":
                over, old = found
                telemetry.dropped_from_queue(over=over, old=old)
        return [Appended(word.decode()) for word, *_ in answers]

    def _append(
        self, api_key_id: str, events: Sequence[Event], oldest: str, traceparent: str
    ) -> asyncio.Future[Any]:
        names = keyspace.of_a_queue(api_key_id)
        values = [part for e in events for part in (e.id, e.topic, e.data, e.name, e.time, _hash(e))]
        return self._redis.script(
            "queue_append", names, self._limits.size_bytes, oldest, traceparent, *values
        )

    async def drop_expired(self, api_key_id: str) -> Left:
        """Drops what is too old from a queue that nobody touches."""
        i = api_key_id
        names = [keyspace.channel(i), keyspace.queue(i), keyspace.receipts(i), keyspace.lease(i)]
        old, head, owner = await self._redis.script("queue_expire", names, self._oldest())
        telemetry.dropped_from_queue(over=0, old=old)
        return Left(int(old), parse_entry_id(head.decode())[0] if head else None, owner.decode())

    def _oldest(self) -> str:
        return oldest_entry_id(self._limits, now_ms=self._now_ms())

    async def read(self, lease: Lease, *, after: str, count: int, size_bytes: int) -> Batch:
        """Up to `count` notifications behind `after`, about `size_bytes` of them but at least one.

        With count 0 it only looks whether the lease holds. Raises NoLongerOwner.
        """
        return await self._look(lease, after, count, size_bytes, reclaims=0)

    async def reclaim(self, lease: Lease) -> Batch:
        """Looks whether the lease holds, and writes the claim again if Redis lost it in a crash.

        Nothing is read; `more` asks for a peek. Raises NoLongerOwner.
        """
        await self._look(lease, BEGINNING, 0, 0, reclaims=1)
        return Batch([], more=True)

    async def _look(self, lease: Lease, after: str, count: int, size_bytes: int, *, reclaims: int) -> Batch:
        names = keyspace.of_a_queue(lease.channel)
        held_by = (lease.owner, lease.previous, lease.generation)
        word, *found = await self._redis.script(
            "queue_read", names, *held_by, after, count, size_bytes, reclaims, self._oldest()
        )
        if word == b"rewound":
            return Batch([], more=True, rewound=True)
        if word != b"held":
            raise NoLongerOwner(close_reason=_CLOSE_REASONS[word])
        more, dropped, serialization, *entries = found
        telemetry.dropped_from_queue(over=0, old=dropped)
        batch = [notification_of(*entry) for entry in entries]
        return Batch(batch, more=bool(more), serialization=serialization)

    async def has_reached(self, lease: Lease, entry: str) -> bool:
        """Has the queue held this entry, by its own account? False when Redis lost it in a crash.

        Of what was acked all before it is gone, too; what was lost may have entries before it.
        """
        if entry == BEGINNING:
            return True
        last, head, is_there = await self._redis.script("queue_ends", [keyspace.queue(lease.channel)], entry)
        if head:
            return bool(is_there) or parse_entry_id(head.decode()) > parse_entry_id(entry)
        return parse_entry_id(last.decode()) >= parse_entry_id(entry)

    async def ack_until(self, lease: Lease, *, until: str) -> int | None:
        """Forgets everything up to and including `until`; tells how many that were, None if not the owner."""
        i = lease.channel
        names = [keyspace.lease(i), keyspace.queue(i), keyspace.receipts(i)]
        gone = await self._redis.script("queue_ack", names, lease.owner, next_entry_id(until))
        return None if gone < 0 else int(gone)

    async def ack_until_event(
        self, lease: Lease, event_id: str, *, count: int, size_bytes: int
    ) -> int | None:
        """Forgets everything up to and including the first notification of this event.

        It looks among the front `count`, or about `size_bytes`. Tells how many that were, 0 when it does not
        stand there, None if not the owner.
        """
        i = lease.channel
        names = [keyspace.lease(i), keyspace.queue(i), keyspace.receipts(i)]
        gone = await self._redis.script("queue_ack_event", names, lease.owner, event_id, count, size_bytes)
        return None if gone < 0 else int(gone)

    async def refuse(self, lease: Lease, *, frame_limit_bytes: int, until: str, single_entry: str) -> str:
        """Remembers a frame that the client found too long; `single_entry` is '' if it held several.

        Answers 'remembered', 'dropped' (the single notification, after three times) or 'stale'.
        """
        i = lease.channel
        names = [keyspace.channel(i), keyspace.lease(i), keyspace.queue(i), keyspace.receipts(i)]
        held_by = (lease.owner, lease.generation)
        word: bytes = await self._redis.script(
            "queue_refuse", names, *held_by, frame_limit_bytes, until, single_entry
        )
        return word.decode()

    async def mark_sent(self, lease: Lease, notifications: Sequence[Notification]) -> None:
        """Writes on the receipts of these that they were sent; the first time counts."""
        names = [keyspace.receipt(lease.channel, n.event_id) for n in notifications]
        await self._redis.script("receipt_mark_sent", names, *(n.entry_id for n in notifications))


_CLOSE_REASONS = {
    b"revoked": CloseReason.KEY_REVOKED,
    b"deleted": CloseReason.CHANNEL_DELETED,
    b"taken": CloseReason.TAKEN_OVER,
}


def parse_entry_id(entry: str) -> tuple[int, int]:
    """Where an entry stands: later ones compare as greater."""
    ms, _, sequence = entry.partition("-")
    return int(ms), int(sequence)


def next_entry_id(entry: str) -> str:
    """The first place behind an entry."""
    ms, _, sequence = entry.partition("-")
    return f"{ms}-{int(sequence) + 1}"


def oldest_entry_id(limits: QueueLimits, *, now_ms: int) -> str:
    """The first place in a queue that is not too old: places begin with their time in ms."""
    return f"{max(0, now_ms - limits.lifetime_ms)}-0"


def _hash(event: Event) -> str:
    return keyspace.hash_of(event.id) if event.receipt else ""


def notification_of(entry: bytes, values: Sequence[bytes]) -> Notification:
    """An entry of a queue as Redis gives it."""
    # The field names are always the same, in the order in which queue_append.lua writes them. The trail is
    # behind the running total, and only where a publisher asked for something.
    trail = values[13] if len(values) > 12 else b""
    return notification_at(entry, values[1], values[3], values[5], values[7], values[9], trail)


def notification_at(
    entry: bytes, event_id: bytes, topic: bytes, data: bytes, name: bytes, time: bytes, trail: bytes
) -> Notification:
    """The notification that stands there, of the texts that Redis holds."""
    return Notification(
        entry.decode(),
        event_id.decode(),
        topic.decode(),
        data,
        name.decode(),
        time.decode(),
        _trail(trail.decode()) if trail else None,
    )


def _trail(stored: str) -> Trail:
    return Trail(receipt=stored.startswith("r"), traceparent=stored.removeprefix("r"))
