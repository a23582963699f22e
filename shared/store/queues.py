"""Queues: the pending notifications of each channel, oldest first, one Redis stream each.

An entry stays in the stream until it is acked, and acks remove from the front only.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import Any

from shared import telemetry
from shared.model.channels import CloseReason, Lease
from shared.model.errors import NoLongerOwner, StoreUnavailable
from shared.model.events import Event, Notification, Trail
from shared.model.idempotency import Deadline
from shared.redis.connection import Command
from shared.redis.pipeline import Argument, RedisCommands
from shared.store import keyspace
from shared.store.event_identity import identity_of
from shared.store.shared_appends import QUEUED, AppendReply, SharedAppend

BEGINNING = "0-0"

APPEND_LOT = 100
"""Events in one append. Redis serves nothing else while it runs the script: more go in several."""
# A wakeup carries 32 KiB of entries: what several requests append together shall travel so.
_SHARED_BYTES = 24 * 1024
RECEIPTS_LOT = 500
NOT_OWNER = -1
# The fields that every entry has, with their names.
_USUAL_VALUES = 12


class Appended(StrEnum):
    """The result of an append."""

    QUEUED = "queued"
    ABSENT = "absent"
    STALE = "stale"
    """The channel's bindings have another version."""
    LATE = "late"
    """The deadline of the request has passed."""


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


@dataclass(frozen=True, slots=True)
class ExpiryResult:
    """The number of notifications dropped; when the oldest one left was queued; the channel's owner or ''."""

    dropped: int
    oldest_ms: int | None
    owner: str


class Queues:
    """Appends to queues; reads and acks them for their owners."""

    def __init__(self, redis: RedisCommands, *, limits: QueueLimits = QueueLimits()) -> None:
        self._redis = redis
        self._limits = limits
        # The channels of which lots are being dropped.
        self._trimming: set[str] = set()
        # The last append to each channel that waits to be sent, and the first of them all.
        self._joinable: dict[str, SharedAppend] = {}
        self._first: Command | None = None

    def begin_append(
        self,
        api_key_id: str,
        events: Sequence[Event],
        *,
        bindings_version: str = "",
        traceparent: str = "",
        deadline: Deadline | None = None,
        again: str = "",
        step: str = "",
    ) -> asyncio.Future[Any]:
        """Appends up to `APPEND_LOT` events in order, all or none, and wakes the channel's owner.

        The channel refuses another version of its bindings than its own; '' is for events that no binding
        matched. Each entry keeps `traceparent`, and whether its event wants a receipt. `again` marks
        them as queued once more; a `step` of the channel's replay is made with them, or nothing is. Returns
        the reply for `end_append`.
        """
        assert len(events) <= APPEND_LOT, f"{len(events)} events; one append takes {APPEND_LOT}"
        limits = self._limits
        until_ms = step if deadline is None else deadline.ms
        if again:
            traceparent = f"{traceparent};{again}"
        arguments: list[Argument] = [limits.size_bytes, limits.lifetime_ms, traceparent, bindings_version]
        arguments.append(until_ms)
        for e in events:
            rare = _rare(e) if e.receipt or e.attributes else ""
            arguments += (e.id, e.topic, e.data, e.name, e.time, rare)
        names = keyspace.channel_names(api_key_id)[1:]
        if step:
            names.append(keyspace.replay(api_key_id))
        if self._joinable:
            # A later append must not overtake this one.
            self._joinable.pop(api_key_id, None)
        return self._redis.script("queue_append", names, *arguments)

    def append_then(
        self,
        on_reply: Callable[[Any], None],
        api_key_id: str,
        events: Sequence[Event],
        *,
        bindings_version: str,
        traceparent: str,
        size_bytes: int,
    ) -> None:
        """`begin_append` by callback, for events of so many bytes without receipts. The callback gets the
        reply for `end_append`, or an exception.

        Requests that arrive while the pipeline waits share an append to a channel, in the order of arrival,
        and each gets its own reply.
        """
        joinable = self._joinable
        if self._first is not None and self._first.is_closed:
            # Sent, and with it all others, or nearly all.
            joinable.clear()
            self._first = None
        groups: list[Argument] = []
        for e in events:
            groups += (e.id, e.topic, e.data, e.name, e.time, e.attributes)
        last, count = joinable.get(api_key_id), len(events)
        if last is not None and last.add(
            on_reply,
            groups,
            version=bindings_version,
            traceparent=traceparent,
            events=count,
            size_bytes=size_bytes,
        ):
            return
        limits = self._limits
        arguments = (limits.size_bytes, limits.lifetime_ms, traceparent, bindings_version, "", *groups)
        names = keyspace.channel_names(api_key_id)[1:]
        command = self._redis.script_then(on_reply, "queue_append", names, *arguments)
        if command is not None:
            self._first = self._first or command
            joinable[api_key_id] = SharedAppend(
                command,
                version=bindings_version,
                traceparent=traceparent,
                events=APPEND_LOT - count,
                size_bytes=_SHARED_BYTES - size_bytes,
            )

    def end_append(self, reply: AppendReply) -> Appended:
        if isinstance(reply, bytes):
            return Appended.QUEUED
        status, *rest = reply
        if status != QUEUED:
            return Appended(status.decode())
        over, more_in = rest
        if over:
            telemetry.dropped_from_queue(over=over, old=0)
        if more_in:
            self._trim_later(keyspace.id_in(more_in))
        return Appended.QUEUED

    async def drop_expired(self, api_key_id: str) -> ExpiryResult:
        """Drops what is too old from a queue that nothing is appended to or read from, and what is above its
        limit."""
        dropped, more = 0, 1
        while more:
            over, old, more, first, owner = await self._begin_trim(api_key_id)
            telemetry.dropped_from_queue(over=over, old=old)
            dropped += over + old
        return ExpiryResult(dropped, parse_entry_id(first.decode())[0] if first else None, owner.decode())

    def _begin_trim(self, api_key_id: str) -> asyncio.Future[Any]:
        """Drops a lot."""
        limits, names = self._limits, keyspace.channel_names(api_key_id)[1:]
        return self._redis.script("queue_trim", names, limits.size_bytes, limits.lifetime_ms)

    def _trim_later(self, api_key_id: str) -> None:
        """Drops lots until none is left. If Redis fails meanwhile, the next append or the reaper goes on."""
        if api_key_id not in self._trimming:
            self._trimming.add(api_key_id)
            self._begin_trim(api_key_id).add_done_callback(partial(self._on_trimmed, api_key_id))

    def _on_trimmed(self, api_key_id: str, trimming: asyncio.Future[Any]) -> None:
        more = False
        try:
            over, old, more, *_ = trimming.result()
            telemetry.dropped_from_queue(over=over, old=old)
        except (StoreUnavailable, asyncio.CancelledError):
            self._joinable.pop(api_key_id, None)
        finally:
            self._trimming.discard(api_key_id)
        if more:
            self._trim_later(api_key_id)

    async def read(self, lease: Lease, *, after: str, count: int, size_bytes: int) -> Batch:
        """Up to `count` notifications behind `after`, about `size_bytes` of them but at least one.

        One read returns 384 at most. A count of 0 only checks the lease. Raises NoLongerOwner.
        """
        return await self._read(lease, after, count, size_bytes, reclaims=0)

    async def reclaim(self, lease: Lease) -> None:
        """Checks the lease, and writes the claim again if Redis has lost it. Raises NoLongerOwner."""
        await self._read(lease, BEGINNING, 0, 0, reclaims=1)

    async def _read(self, lease: Lease, after: str, count: int, size_bytes: int, *, reclaims: int) -> Batch:
        names = keyspace.channel_names(lease.channel)
        owner = (lease.owner, lease.previous, lease.generation)
        status, fields = await front_of_queue(
            self._redis,
            "queue_read",
            names,
            *(*owner, after, count, size_bytes, reclaims),
            *(self._limits.lifetime_ms, lease.claimed_ms),
        )
        if status == b"rewound":
            return Batch([], more=True, rewound=True)
        if status != b"read":
            # A native channel goes with its record.
            ended = b"deleted" if lease.is_native and status == b"revoked" else status
            raise NoLongerOwner(close_reason=LOST_LEASE[ended])
        more, serialization, tail, *entries = fields
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
        count = 0
        while (reply := await self.begin_ack(lease, until=until)) < NOT_OWNER:
            count += acked_in_part(reply)
        return None if reply == NOT_OWNER else count + reply

    def begin_ack(self, lease: Lease, *, until: str) -> asyncio.Future[int]:
        """As `ack_until`, but one lot of them at most. Returns the future of the number acked.

        It is `NOT_OWNER`, or less when there are more to ack: see `acked_in_part`.
        """
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
        status, *fields = await self._redis.script(
            "queue_ack_event",
            keyspace.channel_names(lease.channel)[1:],
            lease.owner,
            event_id,
            count,
            size_bytes,
        )
        match status:
            case b"not_owner":
                return None
            case b"found":
                return await self.ack_until(lease, until=fields[0].decode())
        return int(fields[0]) if fields else 0

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
        for start in range(0, len(notifications), RECEIPTS_LOT):
            lot = notifications[start : start + RECEIPTS_LOT]
            names = [keyspace.receipt(lease.channel, identity_of(n)) for n in lot]
            await self._redis.script("receipt_mark_sent", names, *(n.entry_id for n in lot))


async def front_of_queue(
    redis: RedisCommands, script: str, names: Sequence[str], *arguments: Argument
) -> tuple[bytes, list[Any]]:
    """The status and the fields of a script that reads a queue. One that drops what is too old runs again."""
    while True:
        status, *fields = await redis.script(script, names, *arguments)
        if status != b"dropped":
            return status, fields
        telemetry.dropped_from_queue(over=0, old=fields[0])


def acked_in_part(reply: int) -> int:
    """The number in a reply of `begin_ack` that is less than `NOT_OWNER`."""
    return -2 - reply


# Why an owner has lost its lease, by the status of a script.
LOST_LEASE = {
    b"revoked": CloseReason.KEY_REVOKED,
    b"deleted": CloseReason.CHANNEL_DELETED,
    b"taken_over": CloseReason.TAKEN_OVER,
    b"paused": CloseReason.PAUSED,
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
    if len(values) == _USUAL_VALUES:
        return notification_at(entry_id, values[1], values[3], values[5], values[7], values[9], b"")
    rare = dict(zip(values[_USUAL_VALUES::2], values[_USUAL_VALUES + 1 :: 2], strict=True))
    trail, attributes = rare.get(b"trail", b""), rare.get(b"attributes", b"")
    return notification_at(entry_id, values[1], values[3], values[5], values[7], values[9], trail, attributes)


def notification_at(
    entry_id: bytes,
    event_id: bytes,
    topic: bytes,
    data: bytes,
    name: bytes,
    time: bytes,
    trail: bytes,
    attributes: bytes = b"",
) -> Notification:
    traced, _, again = trail.decode().partition(";")
    return Notification(
        entry_id.decode(),
        event_id.decode(),
        topic.decode(),
        data,
        name.decode(),
        time.decode(),
        Trail(receipt=traced.startswith("r"), traceparent=traced.removeprefix("r")) if traced else None,
        attributes=attributes,
        again=again,
    )


def _rare(event: Event) -> Argument:
    """What few events have, as the script takes it: the hash for a receipt, then the attributes."""
    hashed = keyspace.hash_of(identity_of(event)).encode() if event.receipt else b""
    return hashed + event.attributes
