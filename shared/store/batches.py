"""Batches: the front of a webhook's queue, delivered in one request.

Redis keeps where a batch ends until it is acked: a retry sends the same notifications under the same id, also
when another dispatcher makes it. It also keeps how large a batch may be for its receiver (`batch_limits.py`).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import orjson

from shared.model.batch_limits import BatchLimits, Lesson, failed_attempts_after
from shared.model.callbacks import Callback
from shared.model.channels import Lease
from shared.model.deliveries import AttemptOutcome, Delivery
from shared.model.errors import NoLongerOwner
from shared.model.events import Notification
from shared.model.webhooks import WebhookPolicy
from shared.redis.pipeline import Argument, RedisCommands
from shared.store import keyspace
from shared.store.attempts import fields_of
from shared.store.queues import (
    LOST_LEASE,
    NOT_OWNER,
    QueueLimits,
    Queues,
    acked_in_part,
    front_of_queue,
    next_entry_id,
    notification_of,
)
from shared.store.webhook_policies import policy_of

_NO_LIMITS = BatchLimits()
_NO_LESSON = Lesson()


# Not frozen, as all that is made for each request: that takes three times as long.
@dataclass(slots=True)
class TakenBatch:
    """The front of a queue, the webhook's configuration, and the failed attempts since the last ack.

    `policy` is a native webhook's; those of API keys have none. `is_in_trouble`: its account got a notice
    of that, and gets another when an attempt succeeds. `mark` and `failed_in_a_row` are of a webhook with
    several requests at once: by the first, Redis knows what was taken; the second counts the attempts of all
    entries that have failed since one succeeded, and `failed_attempts` those of this one.
    """

    notifications: list[Notification]
    callback: Callback
    config_version: str
    serialization: bytes
    signing_secrets: tuple[str, ...] = field(repr=False)
    failed_attempts: int
    limits: BatchLimits = _NO_LIMITS
    policy: WebhookPolicy | None = None
    is_in_trouble: bool = False
    mark: str = ""
    failed_in_a_row: int = 0

    @property
    def is_retry(self) -> bool:
        return self.failed_attempts > 0


@dataclass(frozen=True, slots=True)
class Paced:
    """A webhook's rate: nothing may be sent for so long."""

    wait_ms: int


class NoBatch(StrEnum):
    """Why there is nothing to send now.

    NOT_DUE: the backoff is not over, the API key has expired, or the channel is paused or disabled. PARALLEL:
    the webhook has several requests at once, which `ParallelBatches` takes. IN_ORDER: it has not.
    """

    EMPTY = "empty"
    NOT_DUE = "not_due"
    PARALLEL = "parallel"
    IN_ORDER = "in_order"


@dataclass(frozen=True, slots=True)
class Acked:
    """How many notifications were acked. `is_empty`: the queue had no others, so there is nothing to take."""

    count: int
    is_empty: bool = False


class AfterFailure(StrEnum):
    """What follows a failed attempt."""

    RETRY = "retry"
    DROPPED = "dropped"
    """The batch was a single notification, which is gone. The next attempt is for what is behind it."""
    CONFIG_CHANGED = "config_changed"
    ENDED = "ended"
    EXHAUSTED = "exhausted"
    """A native webhook has given up what was sent. The next attempt is for what is behind it."""
    DISABLED = "disabled"
    NOT_OWNER = "not_owner"


@dataclass(frozen=True, slots=True)
class AfterAttempt:
    """What follows a failed attempt: the time of the next one in ms, if there is one; how many notifications
    were lost with a channel that ended or were given up; and why a webhook is disabled."""

    result: AfterFailure
    next_ms: int = 0
    lost: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Failure:
    """What a failed attempt of a native webhook means, beside its lesson.

    `first` and `last` are the entries that it sent. `notice`: the account's notice if that is given up; ''
    for none.
    """

    is_gone: bool
    backoff_after_ms: int
    first: str
    last: str
    notice: str


class Batches:
    """Takes and acks batches for the owners of webhook channels, and schedules retries."""

    def __init__(
        self,
        redis: RedisCommands,
        *,
        limits: QueueLimits,
        on_attempts: Callable[[str, int], None] = lambda _account, _grown: None,
    ) -> None:
        """Calls `on_attempts` with an account and the bytes by which its webhooks' attempts have grown."""
        self._redis = redis
        self._on_attempts = on_attempts
        self._limits = limits
        self._queues = Queues(redis, limits=limits)

    async def take(self, lease: Lease, *, count: int, size_bytes: int) -> TakenBatch | NoBatch | Paced:
        """Up to `count` notifications of about `size_bytes`, but at least one. Raises NoLongerOwner.

        A batch has 384 at most, or 128 while receipts are tracked.
        """
        names, owner = keyspace.channel_names(lease.channel), (lease.owner, lease.generation)
        status, fields = await front_of_queue(
            self._redis, "batch_take", names, *owner, count, size_bytes, self._limits.lifetime_ms
        )
        if status in LOST_LEASE:
            raise NoLongerOwner(close_reason=LOST_LEASE[status])
        if status == b"paced":
            return Paced(int(fields[0]))
        if status != b"taken":
            return NoBatch(status.decode())
        config_version, url, headers, serialization, signing_secrets, failed_attempts, policy, *rest = fields
        limits, trouble, entries = rest[:5], rest[5], rest[6:]
        return TakenBatch(
            notifications=[notification_of(*entry) for entry in entries],
            callback=Callback(url.decode(), orjson.loads(headers)),
            config_version=config_version.decode(),
            serialization=serialization,
            signing_secrets=tuple(signing_secrets.decode().split()),
            failed_attempts=int(failed_attempts),
            limits=_limits(*limits),
            policy=policy_of(policy),
            is_in_trouble=trouble == b"1",
        )

    async def ack(
        self,
        lease: Lease,
        *,
        until: str,
        delivery: Delivery,
        batch_limit: int | None = None,
        account: str = "",
    ) -> Acked | None:
        """Acks everything up to and including `until`; None if not the owner.

        Keeps the attempt, whose bytes are those of `account`.
        `batch_limit` replaces the channel's, if it has one and that may grow: 0 removes it.
        """
        count, grown, is_last = await self._redis.script(
            "batch_ack",
            _names(lease),
            lease.owner,
            lease.generation,
            *(until, next_entry_id(until)),
            "" if batch_limit is None else batch_limit,
            *fields_of(delivery, AttemptOutcome.SUCCESS),
        )
        self._on_attempts(account, int(grown))
        if count < NOT_OWNER:
            rest = await self._queues.ack_until(lease, until=until)
            return Acked(acked_in_part(count) + (rest or 0))
        return None if count == NOT_OWNER else Acked(int(count), is_empty=bool(is_last))

    async def fail(
        self,
        lease: Lease,
        *,
        taken: TakenBatch,
        delivery: Delivery,
        backoff_ms: int,
        expiry_ms: int,
        lesson: Lesson = _NO_LESSON,
        account: str = "",
    ) -> tuple[AfterFailure, int]:
        """Schedules the next attempt, or ends a channel that has failed for `expiry_ms`; releases the lease.

        Writes the lesson, drops what it says is to be dropped, and keeps the attempt, whose bytes are those
        of `account`. Returns what follows, with the time of the next attempt in ms, or with the number of
        notifications that were lost for a channel that ended.
        """
        result, found, *_ = await self._fail(lease, taken, delivery, backoff_ms, lesson, expiry_ms, account)
        return result, int(found)

    async def fail_native(
        self,
        lease: Lease,
        *,
        taken: TakenBatch,
        delivery: Delivery,
        backoff_ms: int,
        failure: Failure,
        lesson: Lesson = _NO_LESSON,
        account: str = "",
    ) -> AfterAttempt:
        """The same for a native webhook, which is disabled instead of ended. What it gives up is dropped."""
        more = _of_native(taken, failure, took_ms=delivery.took_ms)
        result, found, *dropped = await self._fail(
            lease, taken, delivery, backoff_ms, lesson, 0, account, *more
        )
        if result is AfterFailure.DISABLED:
            return AfterAttempt(result, reason=found.decode())
        return AfterAttempt(result, next_ms=int(found), lost=sum(dropped))

    async def _fail(
        self,
        lease: Lease,
        taken: TakenBatch,
        delivery: Delivery,
        backoff_ms: int,
        lesson: Lesson,
        expiry_ms: int,
        account: str,
        *more: Argument,
    ) -> tuple[Any, ...]:
        """The result, what the script says of it, and how many were given up, if any."""
        failed_attempts = failed_attempts_after(taken.failed_attempts, taken.limits, lesson)
        attempt = (lease.owner, lease.generation, taken.config_version, failed_attempts)
        learned = (
            lesson.refused_entry if lesson.drops else "",
            lesson.body_limit_bytes or "",
            lesson.batch_limit or "",
            lesson.timed_out,
            lesson.refused_entry,
            lesson.refused_times,
        )
        arguments = (
            *attempt,
            backoff_ms,
            expiry_ms,
            *learned,
            *fields_of(delivery, AttemptOutcome.FAILURE),
            *more,
        )
        status, found, grown, *dropped = await self._redis.script("batch_fail", _names(lease), *arguments)
        self._on_attempts(account, int(grown))
        return AfterFailure(status.decode()), found, *map(int, dropped)


def _of_native(taken: TakenBatch, failure: Failure, *, took_ms: int) -> tuple[Argument, ...]:
    policy = taken.policy
    assert policy is not None, "a native webhook has a policy"
    return (
        "1" if failure.is_gone else "",
        policy.give_up_after_s * 1000,
        policy.disable_after_s * 1000,
        failure.backoff_after_ms,
        failure.first,
        failure.last,
        next_entry_id(failure.last),
        failure.notice,
        took_ms,
    )


def _names(lease: Lease) -> list[str]:
    return [*keyspace.channel_names(lease.channel)[1:], keyspace.attempts(lease.channel)]


def _limits(
    body_limit: bytes, batch_limit: bytes, timed_out: bytes, refused_entry: bytes, refused_times: bytes
) -> BatchLimits:
    if not (body_limit or batch_limit or timed_out or refused_entry):
        return _NO_LIMITS
    return BatchLimits(
        body_limit_bytes=int(body_limit) if body_limit else None,
        batch_limit=int(batch_limit) if batch_limit else None,
        timed_out=timed_out.decode(),
        refused_entry=refused_entry.decode(),
        refused_times=int(refused_times),
    )
