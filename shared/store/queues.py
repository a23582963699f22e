"""Queues: the pending notifications of each channel, oldest first, one Redis stream each.

An entry stays in the stream until it is acked, and acks remove from the front only.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from shared import clock, telemetry
from shared.model.channels import CloseReason, Lease
from shared.model.errors import NoLongerOwner
from shared.model.events import Event, Notification, Trail
from shared.redis.pipeline import Argument, RedisCommands
from shared.store import keyspace

BEGINNING = "0-0"

APPEND_LOT = 100
"""Events in one append. Redis serves nothing else while it runs the script: more go in several."""


class Appended(StrEnum):
    """The result of an append."""

    QUEUED = "queued"
    ABSENT = "absent"
    STALE = "stale"
    """The channel's bindings have another version."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Part of a queue behind an entry. `more`: notifications follow it.

    `rewound`: the queue ends before that entry, so Redis has lost writes. `tail`: the last entry appended,
    pending or not; `BEGINNING` before the first.
    """

    notifications: list[Notification]
    more: bool
    rewound: bool = False
    serialization: bytes | None = field(default=None, compare=False)
    tail: str = field(default=BEGINNING, compare=False)


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """The most bytes in a queue and the longest lifetime of a notification; the oldest are dropped first."""

    size_bytes: int = 50 * 1024 * 1024
    lifetime_ms: int = 24 * 3600 * 1000

    def oldest_entry_id(self, *, now_ms: int) -> str:
        """The smallest id that is not too old: ids begin with their time in ms."""
        return f"{max(0, now_ms - self.lifetime_ms)}-0"


@dataclass(frozen=True, slots=True)
class ExpiryResult:
    """The number of notifications dropped; when the oldest one left was queued; the channel's owner or ''."""

    dropped: int
    oldest_ms: int | None
    owner: str


class Queues:
    """Appends to queues; reads and acks them for their owners."""

    def __init__(
        self,
        redis: RedisCommands,
        *,
        limits: QueueLimits = QueueLimits(),
        now_ms: Callable[[], int] = clock.now_ms,
    ) -> None:
        self._redis = redis
        self._limits = limits
        self._now_ms = now_ms

    def begin_append(
        self,
        api_key_id: str,
        events: Sequence[Event],
        *,
        bindings_version: str = "",
        traceparent: str = "",
        now_ms: int | None = None,
    ) -> asyncio.Future[Any]:
        """Appends up to `APPEND_LOT` events in order, all or none, and wakes the channel's owner.

        The channel refuses another version of its bindings than its own; '' is for events that no binding
        matched. Each entry keeps `traceparent`, and whether its event wants a receipt. Returns the reply for
        `end_append`.
        """
        assert len(events) <= APPEND_LOT, f"{len(events)} events; one append takes {APPEND_LOT}"
        oldest = self._limits.oldest_entry_id(now_ms=self._now_ms() if now_ms is None else now_ms)
        arguments: list[Argument] = [self._limits.size_bytes, oldest, traceparent, bindings_version]
        for e in events:
            arguments += (e.id, e.topic, e.data, e.name, e.time, keyspace.hash_of(e.id) if e.receipt else "")
        return self._redis.script("queue_append", keyspace.channel_names(api_key_id)[1:], *arguments)

    def end_append(self, reply: Sequence[Any]) -> Appended:
        status, *fields = reply
        if status != b"queued":
            return Appended(status.decode())
        over, old = fields
        if over or old:
            telemetry.dropped_from_queue(over=over, old=old)
        return Appended.QUEUED

    async def append(
        self, api_key_id: str, events: Sequence[Event], *, bindings_version: str = "", traceparent: str = ""
    ) -> Appended:
        """Appends any number of events, in order and in lots."""
        reply = await self.append_lots(
            api_key_id, events, bindings_version=bindings_version, traceparent=traceparent
        )
        return self.end_append(reply)

    async def append_lots(
        self, api_key_id: str, events: Sequence[Event], *, bindings_version: str = "", traceparent: str = ""
    ) -> Any:
        """As `begin_append`, for any number of events: all or none of each lot.

        Each lot waits for the one before it: a channel that refuses a lot must not take the next one. Returns
        the last reply; when the channel has refused a later lot, it has the ones before it.
        """
        reply: Any = None
        for start in range(0, len(events), APPEND_LOT):
            if start:
                self.end_append(reply)
            lot = events[start : start + APPEND_LOT]
            reply = await self.begin_append(
                api_key_id, lot, bindings_version=bindings_version, traceparent=traceparent
            )
            if reply[0] != b"queued":
                break
        return reply

    async def drop_expired(self, api_key_id: str) -> ExpiryResult:
        """Drops what is too old from a queue that nothing is appended to or read from."""
        names = keyspace.channel_names(api_key_id)[1:]
        old, first, owner = await self._redis.script("queue_expire", names, self._oldest())
        telemetry.dropped_from_queue(over=0, old=old)
        return ExpiryResult(int(old), parse_entry_id(first.decode())[0] if first else None, owner.decode())

    def _oldest(self) -> str:
        return self._limits.oldest_entry_id(now_ms=self._now_ms())

    async def read(self, lease: Lease, *, after: str, count: int, size_bytes: int) -> Batch:
        """Up to `count` notifications behind `after`, about `size_bytes` of them but at least one.

        A count of 0 only checks the lease. Raises NoLongerOwner.
        """
        return await self._read(lease, after, count, size_bytes, reclaims=0)

    async def reclaim(self, lease: Lease) -> None:
        """Checks the lease, and writes the claim again if a crash of Redis lost it. Raises NoLongerOwner."""
        await self._read(lease, BEGINNING, 0, 0, reclaims=1)

    async def _read(self, lease: Lease, after: str, count: int, size_bytes: int, *, reclaims: int) -> Batch:
        names = keyspace.channel_names(lease.channel)
        owner = (lease.owner, lease.previous, lease.generation)
        status, *fields = await self._redis.script(
            "queue_read", names, *owner, after, count, size_bytes, reclaims, self._oldest()
        )
        if status == b"rewound":
            return Batch([], more=True, rewound=True)
        if status != b"read":
            raise NoLongerOwner(close_reason=LOST_LEASE[status])
        more, dropped, serialization, tail, *entries = fields
        telemetry.dropped_from_queue(over=0, old=dropped)
        notifications = [notification_of(*entry) for entry in entries]
        return Batch(notifications, more=bool(more), serialization=serialization, tail=tail.decode())

    async def has_reached(self, lease: Lease, entry_id: str) -> bool:
        """Whether the queue has ever held this entry. False when a crash of Redis lost it.

        An entry that is gone was acked if everything before it is gone too; otherwise it was lost.
        """
        if entry_id == BEGINNING:
            return True
        names = [keyspace.channel(lease.channel), keyspace.queue(lease.channel)]
        tail, first, exists = await self._redis.script("queue_ends", names, entry_id)
        if first:
            return bool(exists) or parse_entry_id(first.decode()) > parse_entry_id(entry_id)
        return parse_entry_id(tail.decode()) >= parse_entry_id(entry_id)

    async def ack_until(self, lease: Lease, *, until: str) -> int | None:
        """Acks everything up to and including `until`; returns the number acked, None if not the owner."""
        count = await self.begin_ack(lease, until=until)
        return None if count < 0 else count

    def begin_ack(self, lease: Lease, *, until: str) -> asyncio.Future[int]:
        """As `ack_until`, but returns the future of the number acked, which is negative if not the owner."""
        return self._redis.script(
            "queue_ack", keyspace.channel_names(lease.channel)[1:], lease.owner, next_entry_id(until)
        )

    async def ack_until_event(
        self, lease: Lease, event_id: str, *, count: int, size_bytes: int
    ) -> int | None:
        """Acks everything up to and including the first notification of this event.

        Searches the first `count`, or about `size_bytes`. Returns the number acked, 0 when the event is not
        among them, None if not the owner.
        """
        acked = await self._redis.script(
            "queue_ack_event",
            keyspace.channel_names(lease.channel)[1:],
            lease.owner,
            event_id,
            count,
            size_bytes,
        )
        return None if acked < 0 else int(acked)

    async def refuse(self, lease: Lease, *, frame_limit_bytes: int, until: str, single_entry: str) -> str:
        """Records a frame that the client refused as too long; `single_entry` is '' if it held several.

        Returns 'remembered', 'dropped' (the single notification, the third time) or 'stale'.
        """
        names = keyspace.channel_names(lease.channel)[1:]
        frame = (frame_limit_bytes, until, single_entry)
        status: bytes = await self._redis.script("queue_refuse", names, lease.owner, lease.generation, *frame)
        return status.decode()

    async def mark_sent(self, lease: Lease, notifications: Sequence[Notification]) -> None:
        """Marks the receipts of these as sent; the first time counts."""
        names = [keyspace.receipt(lease.channel, n.event_id) for n in notifications]
        await self._redis.script("receipt_mark_sent", names, *(n.entry_id for n in notifications))


# Why an owner has lost its lease, by the status of a script.
LOST_LEASE = {
    b"revoked": CloseReason.KEY_REVOKED,
    b"deleted": CloseReason.CHANNEL_DELETED,
    b"taken_over": CloseReason.TAKEN_OVER,
}


def parse_entry_id(entry_id: str) -> tuple[int, int]:
    """Milliseconds and sequence: later entries compare as greater."""
    ms, _, sequence = entry_id.partition("-")
    return int(ms), int(sequence)


def next_entry_id(entry_id: str) -> str:
    """The smallest id after this one."""
    ms, _, sequence = entry_id.partition("-")
    return f"{ms}-{int(sequence) + 1}"


def notification_of(entry_id: bytes, values: Sequence[bytes]) -> Notification:
    """Parses an entry of a queue, fields in the order in which queue_append.lua writes them."""
    trail = values[13] if len(values) > 12 else b""
    return notification_at(entry_id, values[1], values[3], values[5], values[7], values[9], trail)


def notification_at(
    entry_id: bytes, event_id: bytes, topic: bytes, data: bytes, name: bytes, time: bytes, trail: bytes
) -> Notification:
    traced = trail.decode()
    return Notification(
        entry_id.decode(),
        event_id.decode(),
        topic.decode(),
        data,
        name.decode(),
        time.decode(),
        Trail(receipt=traced.startswith("r"), traceparent=traced.removeprefix("r")) if traced else None,
    )
