"""Batches: the front of a webhook's queue, delivered in one request.

Redis keeps where a batch ends until it is acked: a retry sends the same notifications under the same id, also
when another dispatcher makes it. It also keeps how large a batch may be for its receiver (`batch_limits.py`).
"""

from dataclasses import dataclass, field
from enum import StrEnum

import orjson

from shared import telemetry
from shared.model.batch_limits import BatchLimits, Lesson, failed_attempts_after
from shared.model.callbacks import Callback
from shared.model.channels import Lease
from shared.model.deliveries import Delivery
from shared.model.errors import NoLongerOwner
from shared.model.events import Notification
from shared.model.webhooks import WebhookPolicy
from shared.redis.pipeline import RedisCommands
from shared.store import keyspace
from shared.store.queues import (
    LOST_LEASE,
    NOT_OWNER,
    QueueLimits,
    Queues,
    acked_in_part,
    next_entry_id,
    notification_of,
)
from shared.store.webhook_policies import policy_of

# How many attempts are kept, and for how long.
_ATTEMPTS = (100, 7 * 24 * 3600 * 1000)
_NO_LIMITS = BatchLimits()
_NO_LESSON = Lesson()


@dataclass(frozen=True, slots=True)
class TakenBatch:
    """The front of a queue, the webhook's configuration, and the failed attempts since the last ack.

    `policy` is a native webhook's; those of API keys have none.
    """

    notifications: list[Notification]
    callback: Callback
    config_version: str
    serialization: bytes
    signing_secrets: tuple[str, ...] = field(repr=False)
    failed_attempts: int
    limits: BatchLimits = _NO_LIMITS
    policy: WebhookPolicy | None = None


class NoBatch(StrEnum):
    """Why there is nothing to send now.

    NOT_DUE: the backoff is not over, the API key has expired, or the channel is paused.
    """

    EMPTY = "empty"
    NOT_DUE = "not_due"


class AfterFailure(StrEnum):
    """What follows a failed attempt."""

    RETRY = "retry"
    DROPPED = "dropped"
    """The batch was a single notification, which is gone. The next attempt is for what is behind it."""
    CONFIG_CHANGED = "config_changed"
    ENDED = "ended"
    NOT_OWNER = "not_owner"


class Batches:
    """Takes and acks batches for the owners of webhook channels, and schedules retries."""

    def __init__(self, redis: RedisCommands, *, limits: QueueLimits) -> None:
        self._redis = redis
        self._limits = limits
        self._queues = Queues(redis, limits=limits)

    async def take(self, lease: Lease, *, count: int, size_bytes: int) -> TakenBatch | NoBatch:
        """Up to `count` notifications of about `size_bytes`, but at least one. Raises NoLongerOwner.

        A batch has 384 at most, or 128 while receipts are tracked.
        """
        names, owner = keyspace.channel_names(lease.channel), (lease.owner, lease.generation)
        status: bytes = b"dropped"
        while status == b"dropped":
            status, *fields = await self._redis.script(
                "batch_take", names, *owner, count, size_bytes, self._limits.lifetime_ms
            )
            if status == b"dropped":
                telemetry.dropped_from_queue(over=0, old=fields[0])
        if status in LOST_LEASE:
            raise NoLongerOwner(close_reason=LOST_LEASE[status])
        if status != b"taken":
            return NoBatch(status.decode())
        config_version, url, headers, serialization, signing_secrets, failed_attempts, policy, *rest = fields
        limits, entries = rest[:5], rest[5:]
        return TakenBatch(
            notifications=[notification_of(*entry) for entry in entries],
            callback=Callback(url.decode(), orjson.loads(headers)),
            config_version=config_version.decode(),
            serialization=serialization,
            signing_secrets=tuple(signing_secrets.decode().split()),
            failed_attempts=int(failed_attempts),
            limits=_limits(*limits),
            policy=policy_of(policy),
        )

    async def ack(
        self, lease: Lease, *, until: str, delivery: Delivery, batch_limit: int | None = None
    ) -> int | None:
        """Acks everything up to and including `until`; returns the number acked, None if not the owner.

        `batch_limit` replaces the channel's, if it has one and that may grow: 0 removes it.
        """
        entries, attempt = (until, next_entry_id(until)), orjson.dumps(delivery)
        count = await self._redis.script(
            "batch_ack",
            _names(lease),
            lease.owner,
            lease.generation,
            *entries,
            attempt,
            *_ATTEMPTS,
            "" if batch_limit is None else batch_limit,
        )
        if count < NOT_OWNER:
            rest = await self._queues.ack_until(lease, until=until)
            return acked_in_part(count) + (rest or 0)
        return None if count == NOT_OWNER else int(count)

    async def fail(
        self,
        lease: Lease,
        *,
        taken: TakenBatch,
        delivery: Delivery,
        backoff_ms: int,
        expiry_ms: int,
        lesson: Lesson = _NO_LESSON,
    ) -> tuple[AfterFailure, int]:
        """Schedules the next attempt, or ends a channel that has failed for `expiry_ms`; releases the lease.

        Writes the lesson, and drops what it says is to be dropped. Returns what follows, with the time of the
        next attempt in ms, or with the number of notifications that were lost for a channel that ended.
        """
        failed_attempts = failed_attempts_after(taken.failed_attempts, taken.limits, lesson)
        attempt = (lease.owner, lease.generation, taken.config_version, failed_attempts)
        record = orjson.dumps(delivery)
        assert record.endswith(b'"next_attempt_ms":null}'), "the script writes the time there"
        learned = (
            lesson.refused_entry if lesson.drops else "",
            lesson.body_limit_bytes or "",
            lesson.batch_limit or "",
            lesson.timed_out,
            lesson.refused_entry,
            lesson.refused_times,
        )
        status, *found = await self._redis.script(
            "batch_fail", _names(lease), *attempt, backoff_ms, expiry_ms, record, *_ATTEMPTS, *learned
        )
        return AfterFailure(status.decode()), int(found[0]) if found else 0


def _names(lease: Lease) -> list[str]:
    return [*keyspace.channel_names(lease.channel)[1:], keyspace.deliveries(lease.channel)]


def _limits(
    body_limit: bytes, batch_limit: bytes, timed_out: bytes, refused_entry: bytes, refused_times: bytes
) -> BatchLimits:
    return BatchLimits(
        body_limit_bytes=int(body_limit) if body_limit else None,
        batch_limit=int(batch_limit) if batch_limit else None,
        timed_out=timed_out.decode(),
        refused_entry=refused_entry.decode(),
        refused_times=int(refused_times),
    )
