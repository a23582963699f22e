"""Batches of one for webhooks that have several requests at once: taken, acked and retried each by itself.

What is taken is marked in Redis until it is acked or given up: an owner that takes over finds what another
one has left, and the retries that wait.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from shared.model.batch_limits import BatchLimits, Lesson, failed_attempts_after
from shared.model.callbacks import Callback
from shared.model.channels import Lease
from shared.model.deliveries import AttemptOutcome, Delivery
from shared.model.errors import NoLongerOwner
from shared.redis.pipeline import RedisCommands
from shared.store import keyspace
from shared.store.attempts import fields_of
from shared.store.batches import AfterAttempt, AfterFailure, NoBatch, Paced, TakenBatch
from shared.store.queues import LOST_LEASE, NOT_OWNER, QueueLimits, front_of_queue, notification_of
from shared.store.webhook_policies import policy_of


@dataclass(frozen=True, slots=True)
class Waiting:
    """Nothing is due now; `next_ms` is when something is, if that is known."""

    next_ms: int | None


@dataclass(frozen=True, slots=True)
class EntryFailure:
    """What a failed attempt of one entry means, beside its lesson.

    `asked_ms`: for how long the receiver wants no request at all. `hold_ms`: for how long no new entry is
    taken if the receiver seems to be down. `notice`: the account's notice if the entry is given
    up; '' for none.
    """

    is_gone: bool
    asked_ms: int | None
    hold_ms: int
    notice: str


class ParallelBatches:
    """Takes, acks and retries entries for the owners of webhook channels with several requests at once."""

    def __init__(
        self,
        redis: RedisCommands,
        *,
        limits: QueueLimits,
        on_attempts: Callable[[str, int], None] = lambda _account, _grown: None,
    ) -> None:
        """Calls `on_attempts` with an account and the bytes by which its webhooks' attempts have grown."""
        self._redis = redis
        self._limits = limits
        self._on_attempts = on_attempts

    async def take(
        self, lease: Lease, *, count: int, retries: int, size_bytes: int, is_fresh: bool
    ) -> list[TakenBatch] | NoBatch | Paced | Waiting:
        """Up to `count` entries, 100 at most, `retries` of which may be retries. Raises NoLongerOwner.

        `is_fresh`: the owner has no request under way. IN_ORDER when the webhook has one request at a time.
        """
        names = [*keyspace.channel_names(lease.channel), keyspace.taken(lease.channel)]
        status, fields = await front_of_queue(
            self._redis,
            "entry_take",
            names,
            *(lease.owner, lease.generation, count, retries, size_bytes),
            *("1" if is_fresh else "", self._limits.lifetime_ms),
        )
        match status:
            case b"taken":
                return _taken(fields)
            case b"waiting":
                return Waiting(int(fields[0]) if fields[0] else None)
            case b"paced":
                return Paced(int(fields[0]))
        if status in LOST_LEASE:
            raise NoLongerOwner(close_reason=LOST_LEASE[status])
        return NoBatch(status.decode())

    async def ack(
        self, lease: Lease, taken: TakenBatch, *, delivery: Delivery, account: str = ""
    ) -> int | None:
        """Acks an entry; returns 1, or 0 when it is gone, and None if not the owner.

        Keeps the attempt, whose bytes are those of `account`.
        """
        attempt = fields_of(delivery, AttemptOutcome.SUCCESS)
        owner = (lease.owner, lease.generation)
        count, grown = await self._redis.script("entry_ack", _names(lease), *owner, taken.mark, *attempt)
        self._on_attempts(account, int(grown))
        return None if count == NOT_OWNER else int(count)

    async def fail(
        self,
        lease: Lease,
        taken: TakenBatch,
        *,
        delivery: Delivery,
        backoff_ms: int,
        failure: EntryFailure,
        lesson: Lesson,
        account: str = "",
    ) -> AfterAttempt:
        """Plans the retry of an entry, gives it up, or disables its webhook. Keeps the lease.

        Keeps the attempt, whose bytes are those of `account`.
        """
        policy = taken.policy
        assert policy is not None, "a native webhook has a policy"
        status, found, grown, lost = await self._redis.script(
            "entry_fail",
            _names(lease),
            *(lease.owner, lease.generation, taken.config_version, taken.mark),
            *(failed_attempts_after(taken.failed_attempts, taken.limits, lesson), backoff_ms),
            *(lesson.refused_times, "1" if lesson.drops else "", "1" if failure.is_gone else ""),
            *(policy.give_up_after_s * 1000, policy.disable_after_s * 1000),
            "" if failure.asked_ms is None else failure.asked_ms,
            *(policy.max_in_flight, failure.hold_ms, failure.notice, delivery.took_ms),
            *fields_of(delivery, AttemptOutcome.FAILURE),
        )
        self._on_attempts(account, int(grown))
        result = AfterFailure(status.decode())
        if result is AfterFailure.DISABLED:
            return AfterAttempt(result, reason=found.decode())
        return AfterAttempt(result, next_ms=int(found), lost=int(lost))


def _taken(fields: Sequence[Any]) -> list[TakenBatch]:
    config_version, url, headers, secrets, in_a_row, policy, trouble, *entries = fields
    callback = Callback(url.decode(), orjson.loads(headers))
    found = []
    for mark, entry_id, values in entries:
        _, failed_attempts, _, refusals, _ = mark.split()
        refused_entry = entry_id.decode() if int(refusals) else ""
        found.append(
            TakenBatch(
                notifications=[notification_of(entry_id, values)],
                callback=callback,
                config_version=config_version.decode(),
                serialization=b"",
                signing_secrets=tuple(secrets.decode().split()),
                failed_attempts=int(failed_attempts),
                limits=BatchLimits(refused_entry=refused_entry, refused_times=int(refusals)),
                policy=policy_of(policy),
                is_in_trouble=trouble == b"1",
                mark=mark.decode(),
                failed_in_a_row=int(in_a_row),
            )
        )
    return found


def _names(lease: Lease) -> list[str]:
    names = keyspace.channel_names(lease.channel)[1:]
    return [*names, keyspace.attempts(lease.channel), keyspace.taken(lease.channel)]
