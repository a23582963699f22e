"""Batches: the front of a webhook's queue, delivered in one request.

Redis keeps where a batch ends until it is acked: a retry sends the same notifications under the same id, also
when another dispatcher makes it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

import orjson

from shared import clock, telemetry
from shared.model.callbacks import Callback
from shared.model.channels import Lease
from shared.model.deliveries import Delivery
from shared.model.errors import NoLongerOwner
from shared.model.events import Notification
from shared.redis.pipeline import RedisCommands
from shared.store import keyspace
from shared.store.queues import LOST_LEASE, QueueLimits, next_entry_id, notification_of

# How many attempts are kept, and for how long.
_ATTEMPTS = (100, 7 * 24 * 3600 * 1000)


@dataclass(frozen=True, slots=True)
class TakenBatch:
    """The front of a queue, the webhook's configuration, and the failed attempts since the last ack."""

    notifications: list[Notification]
    callback: Callback
    config_version: str
    serialization: bytes
    signing_secret: str
    failed_attempts: int


class NoBatch(StrEnum):
    """Why there is nothing to send now. NOT_DUE: the backoff is not over, or the API key has expired."""

    EMPTY = "empty"
    NOT_DUE = "not_due"


class AfterFailure(StrEnum):
    """What follows a failed attempt."""

    RETRY = "retry"
    CONFIG_CHANGED = "config_changed"
    ENDED = "ended"
    NOT_OWNER = "not_owner"


class Batches:
    """Takes and acks batches for the owners of webhook channels, and schedules retries."""

    def __init__(
        self, redis: RedisCommands, *, limits: QueueLimits, now_ms: Callable[[], int] = clock.now_ms
    ) -> None:
        self._redis = redis
        self._limits = limits
        self._now_ms = now_ms

    async def take(self, lease: Lease, *, count: int, size_bytes: int) -> TakenBatch | NoBatch:
        """Up to `count` notifications of about `size_bytes`, but at least one. Raises NoLongerOwner."""
        names, now_ms = keyspace.channel_names(lease.channel), self._now_ms()
        oldest = self._limits.oldest_entry_id(now_ms=now_ms)
        status, *fields = await self._redis.script(
            "batch_take", names, lease.owner, lease.generation, count, size_bytes, oldest, now_ms
        )
        if status in LOST_LEASE:
            raise NoLongerOwner(close_reason=LOST_LEASE[status])
        if status != b"taken":
            telemetry.dropped_from_queue(over=0, old=fields[0])
            return NoBatch(status.decode())
        config_version, url, headers, serialization, secret, failed_attempts, dropped, *entries = fields
        telemetry.dropped_from_queue(over=0, old=dropped)
        return TakenBatch(
            notifications=[notification_of(*entry) for entry in entries],
            callback=Callback(url.decode(), orjson.loads(headers)),
            config_version=config_version.decode(),
            serialization=serialization,
            signing_secret=secret.decode(),
            failed_attempts=int(failed_attempts),
        )

    async def ack(self, lease: Lease, *, until: str, delivery: Delivery) -> int | None:
        """Acks everything up to and including `until`; returns the number acked, None if not the owner."""
        entries, attempt = (until, next_entry_id(until)), orjson.dumps(delivery)
        count = await self._redis.script(
            "batch_ack", _names(lease), lease.owner, lease.generation, *entries, attempt, *_ATTEMPTS
        )
        return None if count < 0 else int(count)

    async def fail(
        self, lease: Lease, *, taken: TakenBatch, delivery: Delivery, next_attempt_ms: int, expiry_ms: int
    ) -> tuple[AfterFailure, int]:
        """Schedules the next attempt, or ends a channel that has failed for `expiry_ms`; releases the lease.

        Returns what follows, and how many notifications were lost if the channel ended.
        """
        attempt = (lease.owner, lease.generation, taken.config_version, taken.failed_attempts + 1)
        times = (self._now_ms(), next_attempt_ms, expiry_ms)
        records = (orjson.dumps(replace(delivery, next_attempt_ms=next_attempt_ms)), orjson.dumps(delivery))
        status, *lost = await self._redis.script(
            "batch_fail", _names(lease), *attempt, *times, *records, *_ATTEMPTS
        )
        return AfterFailure(status.decode()), int(lost[0]) if lost else 0


def _names(lease: Lease) -> list[str]:
    return [*keyspace.channel_names(lease.channel)[1:], keyspace.deliveries(lease.channel)]
