"""A webhook with several requests at once, and its owner, for tests of the store."""

from dataclasses import replace
from typing import Any

from shared.model.batch_limits import Lesson
from shared.model.channels import Kind, Lease
from shared.model.deliveries import Delivery
from shared.model.webhooks import WebhookPolicy
from shared.store import keyspace
from shared.store.batches import AfterAttempt, Batches, TakenBatch
from shared.store.parallel_batches import EntryFailure, ParallelBatches
from shared.store.queues import QueueLimits
from tests.store.native import HOOK, create
from tests.store.stores import (
    EDGE,
    HOUR_MS,
    NOW_MS,
    RedisClock,
    Stores,
)

POLICY = WebhookPolicy(max_in_flight=20, give_up_after_s=60, disable_after_s=600)
IN_ORDER = replace(POLICY, max_in_flight=1)
DAY_MS = 24 * HOUR_MS
NOTICE = '{"reason":"failed-for-too-long"}'
_NO_LESSON = Lesson()


class Hook:
    """A webhook with several requests at once, and its owner."""

    def __init__(self, stores: Stores, clock: RedisClock, channel: str) -> None:
        self.stores = stores
        self.channel = channel
        self.batches = ParallelBatches(clock.calls_of(stores), limits=QueueLimits())
        self.in_order = Batches(clock.calls_of(stores), limits=QueueLimits())
        self.lease = Lease(channel, "", "", "")
        self.is_fresh = True

    async def claim(self, edge: str = EDGE) -> None:
        self.lease = await self.stores.leases.claim_unheld(self.channel, owner=f"{edge}/1")
        self.is_fresh = True

    async def take(self, count: int = 100, *, retries: int = 100) -> Any:
        is_fresh, self.is_fresh = self.is_fresh, False
        return await self.batches.take(
            self.lease, count=count, retries=retries, size_bytes=10**6, is_fresh=is_fresh
        )

    async def taken(self, count: int = 100, *, retries: int = 100) -> list[TakenBatch]:
        found = await self.take(count, retries=retries)
        assert isinstance(found, list), found
        return found

    async def ack(self, taken: TakenBatch) -> int | None:
        return await self.batches.ack(self.lease, taken, delivery=attempt(200))

    async def fail(
        self,
        taken: TakenBatch,
        *,
        backoff_ms: int = 1000,
        lesson: Lesson = _NO_LESSON,
        is_gone: bool = False,
        asked_ms: int | None = None,
    ) -> AfterAttempt:
        failure = EntryFailure(is_gone=is_gone, asked_ms=asked_ms, hold_ms=5000, notice=NOTICE)
        return await self.batches.fail(
            self.lease, taken, delivery=attempt(500), backoff_ms=backoff_ms, failure=failure, lesson=lesson
        )

    @property
    def left(self) -> list[str]:
        """The event ids in the queue."""
        entries = self.stores.direct.xrange(keyspace.queue(self.channel))
        return [fields[b"id"].decode() for _, fields in entries]

    @property
    def marks(self) -> int:
        return int(self.stores.direct.zcard(keyspace.taken(self.channel)))

    @property
    def pending_bytes(self) -> int:
        """An upper bound, as an append judges it."""
        total, before = self.stores.direct.hmget(keyspace.channel(self.channel), "total", "first_total")
        return int(total) - int(before)


def attempt(status: int) -> Delivery:
    return Delivery(at_ms=NOW_MS, webhook_id="msg_1", count=1, status=status, error="", took_ms=5)


def ids(taken: list[TakenBatch]) -> list[str]:
    return [batch.notifications[0].event_id for batch in taken]


async def hook_of(
    stores: Stores, clock: RedisClock, policy: WebhookPolicy = POLICY, *, queued: int = 0, **more: Any
) -> Hook:
    channel = await create(stores, kind=Kind.WEBHOOK, policy=policy, **more)
    if queued:
        await stores.queued(channel, queued)
    hook = Hook(stores, clock, channel)
    await hook.claim()
    return hook


async def change(hook: Hook, policy: WebhookPolicy) -> None:
    found = await hook.stores.account_channels.read(hook.channel)
    assert found is not None
    changes = hook.stores.account_channels
    await changes.change_webhook(found, lambda _: (HOOK, policy))
