"""Fetches: consumers of native pull channels take from the queue, and ack or nack what they took.

Each fetch has a token, and Redis refuses an ack of any but the last one that got something (fencing).
"""

import secrets
from dataclasses import dataclass, field
from enum import StrEnum

from shared import telemetry
from shared.model.account_channels import ACK_TIMEOUT_MS
from shared.model.events import Notification
from shared.redis.pipeline import RedisCommands
from shared.store import keyspace
from shared.store.event_identity import identity_of
from shared.store.queues import QueueLimits, next_entry_id, notification_of

FETCH_BYTES = 256 * 1024


class Refused(StrEnum):
    """Why a fetch, an ack or a nack was refused."""

    ABSENT = "absent"
    OTHER_KIND = "other_kind"
    PAUSED = "paused"
    BUSY = "busy"
    """Another fetch got something, and its time is not over."""
    ENDED = "ended"
    """Another fetch got something since, or the channel was purged."""
    BEYOND = "beyond"
    """The fetch did not get this entry, or has given it back."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a fetch got, in order, until `ack_by_ms`. `again_in_ms`: when what was nacked comes again."""

    lease: str = ""
    notifications: list[Notification] = field(default_factory=list)
    ack_by_ms: int = 0
    again_in_ms: int = 0


class Fetches:
    """Takes from the queues of pull channels."""

    def __init__(self, redis: RedisCommands, *, limits: QueueLimits) -> None:
        self._redis = redis
        self._limits = limits

    async def fetch(self, channel: str, *, count: int) -> Fetched | Refused:
        """Up to `count` notifications, 100 and about `FETCH_BYTES` at most, but at least one."""
        lease = secrets.token_hex(16)
        names = keyspace.channel_names(channel)[1:]
        limits = (count, FETCH_BYTES, self._limits.lifetime_ms, ACK_TIMEOUT_MS)
        status: bytes = b"dropped"
        while status == b"dropped":
            status, *fields = await self._redis.script("channel_fetch", names, lease, *limits)
            if status == b"dropped":
                telemetry.dropped_from_queue(over=0, old=fields[0])
        if status == b"empty":
            return Fetched(again_in_ms=int(fields[0]))
        if status != b"fetched":
            return Refused(status.decode())
        ack_by_ms, *entries = fields
        return Fetched(lease, [notification_of(*entry) for entry in entries], int(ack_by_ms))

    async def ack(self, channel: str, *, lease: str, until: str) -> int | Refused:
        """Acks everything up to and including `until`; the number acked."""
        names = keyspace.channel_names(channel)[1:]
        status, *fields = await self._redis.script(
            "channel_fetch_ack", names, lease, until, next_entry_id(until)
        )
        return int(fields[0]) if status == b"acked" else Refused(status.decode())

    async def nack(self, channel: str, *, lease: str, entry: str, delay_ms: int = 0) -> Refused | None:
        """Gives back `entry` and what is behind it: it comes again, in order, after the delay."""
        names = keyspace.channel_names(channel)[1:3]
        [status] = await self._redis.script("channel_fetch_nack", names, lease, entry, delay_ms)
        return None if status == b"nacked" else Refused(status.decode())

    async def mark_sent(self, channel: str, notifications: list[Notification]) -> None:
        """Marks the receipts of these as sent; the first time counts."""
        wanted = [each for each in notifications if each.trail is not None and each.trail.receipt]
        if wanted:
            names = [keyspace.receipt(channel, identity_of(each)) for each in wanted]
            await self._redis.script("receipt_mark_sent", names, *(each.entry_id for each in wanted))

    async def pending(self, channel: str) -> int:
        """How many notifications the queue holds."""
        return int(await self._redis.command("XLEN", keyspace.queue(channel)))
