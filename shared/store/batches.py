"""Batches: the front of a webhook's queue, taken together, and taken again as it was until it is acked.

Where a batch ends stands in Redis, not with whoever sends it: a retry has the same notifications under the
same id, also when another dispatcher makes it.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

import orjson

from shared import telemetry
from shared.model.callbacks import Callback
from shared.model.channels import CloseReason, Lease
from shared.model.deliveries import Delivery
from shared.model.errors import NoLongerOwner
from shared.model.events import Notification
from shared.redis.pipeline import RedisCommands
from shared.store import keyspace
from shared.store.queues import QueueLimits, next_entry_id, notification_of, oldest_entry_id

_NOTED = 100
_NOTED_TTL_MS = 7 * 24 * 3600 * 1000


@dataclass(frozen=True, slots=True)
class TakenBatch:
    """The front of a queue, and where it is to go. `failed` tells how often it did not get there."""

    notifications: list[Notification]
    callback: Callback
    setup: str
    serialization: bytes
    signing_secret: str
    failed: int


class Idle(StrEnum):
    """Why nothing is sent now: nothing is pending, or it is not the time."""

    NOTHING = "nothing"
    NOT_YET = "waits"


class Failed(StrEnum):
    """What follows from a delivery that failed."""

    LATER = "later"
    CHANGED = "changed"
    ENDED = "ended"
    STALE = "stale"


def _wall_clock_ms() -> int:
    return time.time_ns() // 1_000_000


class Batches:
    """Takes, acks and puts back batches, for the owners of webhook channels. Times are in ms."""

    def __init__(
        self, redis: RedisCommands, *, limits: QueueLimits, now_ms: Callable[[], int] = _wall_clock_ms
    ) -> None:
        self._redis = redis
        self._limits = limits
        self._now_ms = now_ms

    async def take(self, lease: Lease, *, count: int, size_bytes: int) -> TakenBatch | Idle:
        """Up to `count` notifications of about `size_bytes`, at least one; or why none is to be sent now.

        Raises NoLongerOwner.
        """
        i, now = lease.channel, self._now_ms()
        names = keyspace.of_a_queue(i)
        held_by = (lease.owner, lease.generation)
        oldest = oldest_entry_id(self._limits, now_ms=now)
        word, *found = await self._redis.script("batch_take", names, *held_by, count, size_bytes, oldest, now)
        if word in _CLOSE_REASONS:
            raise NoLongerOwner(close_reason=_CLOSE_REASONS[word])
        if word != b"taken":
            telemetry.dropped_from_queue(over=0, old=found[0])
            return Idle(word.decode())
        setup, url, headers, serialization, secret, failed, dropped, *entries = found
        telemetry.dropped_from_queue(over=0, old=dropped)
        return TakenBatch(
            notifications=[notification_of(*entry) for entry in entries],
            callback=Callback(url.decode(), orjson.loads(headers)),
            setup=setup.decode(),
            serialization=serialization,
            signing_secret=secret.decode(),
            failed=int(failed),
        )

    async def ack(self, lease: Lease, *, until: str, delivery: Delivery) -> int | None:
        """Forgets everything up to and including `until`; tells how many that were, None if not the owner."""
        held_by = (lease.owner, lease.generation)
        noted = (orjson.dumps(delivery), _NOTED, _NOTED_TTL_MS)
        count = await self._redis.script(
            "batch_ack", _names(lease), *held_by, until, next_entry_id(until), *noted
        )
        return None if count < 0 else int(count)

    async def fail(
        self, lease: Lease, *, taken: TakenBatch, delivery: Delivery, next_attempt_ms: int, expiry_ms: int
    ) -> tuple[Failed, int]:
        """Puts the batch back until its next try, and gives the lease back; the channel may be over instead.

        Tells what follows, and how many notifications were lost if the channel ended.
        """
        tried = (lease.owner, lease.generation, taken.setup, taken.failed + 1)
        times = (self._now_ms(), next_attempt_ms, expiry_ms)
        notes = (orjson.dumps(replace(delivery, next_attempt_ms=next_attempt_ms)), orjson.dumps(delivery))
        kept = (_NOTED, _NOTED_TTL_MS)
        word, *lost = await self._redis.script("batch_fail", _names(lease), *tried, *times, *notes, *kept)
        return Failed(word.decode()), int(lost[0]) if lost else 0


_CLOSE_REASONS = {
    b"revoked": CloseReason.KEY_REVOKED,
    b"deleted": CloseReason.CHANNEL_DELETED,
    b"lost": CloseReason.TAKEN_OVER,
}


def _names(lease: Lease) -> list[str]:
    i = lease.channel
    return [*keyspace.of_a_queue(i)[1:], keyspace.deliveries(i)]
