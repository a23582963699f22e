"""A webhook with several requests at once under random steps: nothing is lost, doubled or counted wrongly."""

import random
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from shared.model.batch_limits import Lesson
from shared.store import keyspace
from shared.store.batches import AfterFailure, NoBatch, TakenBatch
from shared.store.queues import QueueLimits
from shared.store.webhooks import Webhooks
from tests.store.parallel import IN_ORDER, Hook, attempt, change, hook_of
from tests.store.stores import EDGE, OTHER_EDGE, AppendingQueues, RedisClock, Stores, events

SEEDS = range(12)
STEPS = 120
POLICY = replace(IN_ORDER, max_in_flight=5)


class Scene:
    """The hook, what is under way at its owner, and what must still arrive."""

    def __init__(self, stores: Stores, hook: Hook, clock: RedisClock, chance: random.Random) -> None:
        self.stores = stores
        self.hook = hook
        self.clock = clock
        self.chance = chance
        self.published = 0
        self.under_way: dict[str, TakenBatch] = {}
        self.stale: list[tuple[Hook, TakenBatch]] = []
        self.left: dict[str, dict[bytes, bytes]] = {}
        self.is_exact = True
        self.queues = AppendingQueues(stores.calls, limits=QueueLimits(size_bytes=20_000))

    async def append(self) -> None:
        count = self.chance.randrange(1, 6)
        sizes = self.chance.choice((10, 200, 1500))
        numbers = range(self.published, self.published + count)
        receipted = [
            each._replace(receipt=number % 3 == 0)
            for number, each in enumerate(events(*numbers, size_bytes=sizes))
        ]
        await self.queues.append(self.hook.channel, receipted)
        self.published += count
        before, self.left = self.left, self.queued()
        # The oldest are dropped when the queue is full.
        self.is_exact = self.is_exact and set(before) <= set(self.left)

    async def take(self) -> None:
        found = await self.hook.take(self.chance.randrange(1, 6), retries=self.chance.randrange(0, 6))
        # From then on the bound is exact again.
        self.is_exact = self.is_exact or found is NoBatch.EMPTY
        for batch in found if isinstance(found, list) else []:
            entry = batch.notifications[0].entry_id
            assert entry in self.left, "it is pending"
            assert entry not in self.under_way, "it is taken once"
            self.under_way[entry] = batch

    async def ack(self) -> None:
        if self.under_way:
            entry = self.chance.choice(list(self.under_way))
            acked = await self.hook.ack(self.under_way.pop(entry))
            assert acked == (entry in self.left)
            self.left.pop(entry, None)

    async def fail(self) -> None:
        if not self.under_way:
            return
        entry = self.chance.choice(list(self.under_way))
        batch = self.under_way.pop(entry)
        refused = Lesson(refused_entry=entry, refused_times=batch.limits.refused_times + 1)
        after = await self.hook.fail(
            batch,
            backoff_ms=self.chance.choice((0, 1000, 30_000)),
            lesson=self.chance.choice((Lesson(), Lesson(), refused)),
            is_gone=self.chance.random() < 0.03,
            asked_ms=self.chance.choice((None, None, 5000)),
        )
        if after.result in (AfterFailure.EXHAUSTED, AfterFailure.DROPPED):
            assert after.lost == (entry in self.left)
            self.left.pop(entry, None)
        if after.result is AfterFailure.DISABLED:
            await self.stores.account_channels.resume(self.hook.channel)

    async def be_replaced(self) -> None:
        old = Hook(self.stores, self.clock, self.hook.channel)
        old.lease = self.hook.lease
        self.stale += [(old, batch) for batch in self.under_way.values()]
        self.under_way.clear()
        await self.stores.leases.release(self.hook.lease)
        await self.hook.claim(EDGE if self.hook.lease.owner.startswith(OTHER_EDGE) else OTHER_EDGE)

    async def stale_answer(self) -> None:
        """The owner's names repeat here, so one that has the lease again is left out."""
        if self.stale:
            old, batch = self.stale.pop()
            if old.lease.owner != self.hook.lease.owner:
                assert await old.ack(batch) is None
                assert (await old.fail(batch)).result is AfterFailure.NOT_OWNER

    async def wait(self) -> None:
        self.clock.ahead_ms += self.chance.choice((1, 1000, 8000, 40_000))

    async def hurry(self) -> None:
        match self.chance.randrange(3):
            case 0:
                await Webhooks(self.stores.calls, self.stores.wakeups).retry_now(self.hook.channel)
            case 1:
                await self.stores.account_channels.resume(self.hook.channel)
            case _:
                await change(self.hook, replace(POLICY, timeout_s=self.chance.randrange(1, 60)))

    async def purge(self) -> None:
        found = await self.stores.account_channels.read(self.hook.channel)
        assert found is not None
        assert await self.stores.account_channels.purge(found) == len(self.left)
        self.left.clear()

    async def deliver_some_in_order(self) -> None:
        """One request at a time for a while, as a dispatcher changes to it: with nothing under way."""
        for entry in list(self.under_way):
            await self.hook.fail(self.under_way.pop(entry), backoff_ms=10)
        await change(self.hook, IN_ORDER)
        if self.chance.random() < 0.5:
            self.hook.is_fresh = True
            assert await self.hook.take() is NoBatch.IN_ORDER
        for _ in range(self.chance.randrange(4)):
            batch = await self.hook.in_order.take(self.hook.lease, count=1, size_bytes=1)
            if isinstance(batch, TakenBatch):
                [entry] = [each.entry_id for each in batch.notifications]
                assert entry == next(iter(self.left)), "the oldest"
                await self.hook.in_order.ack(self.hook.lease, until=entry, delivery=attempt(200))
                del self.left[entry]
                self.is_exact = False
        await change(self.hook, POLICY)
        # As each run of a dispatcher begins.
        self.hook.is_fresh = True

    def queued(self) -> dict[str, dict[bytes, bytes]]:
        entries = self.stores.direct.xrange(keyspace.queue(self.hook.channel))
        return {entry.decode(): fields for entry, fields in entries}

    def check(self) -> None:
        queued = self.queued()
        assert list(queued) == list(self.left), "what is pending"
        record = self.stores.direct.hgetall(keyspace.channel(self.hook.channel))
        marks = [
            mark.split()[0].decode()
            for mark in self.stores.direct.zrange(keyspace.taken(self.hook.channel), 0, -1)
        ]
        assert len(marks) == len(set(marks))
        if until := record.get(b"taken_until"):
            assert {entry for entry in queued if place(entry) <= place(until.decode())} <= set(marks)
        if queued:
            counted = int(record[b"total"]) - int(record[b"first_total"])
            size = sum(map(size_of, queued.values()))
            assert counted >= size
            assert counted == size or not self.is_exact


def place(entry: str) -> tuple[int, int]:
    ms, _, sequence = entry.partition("-")
    return int(ms), int(sequence)


def size_of(fields: dict[bytes, bytes]) -> int:
    return 220 + sum(len(fields.get(name, b"")) for name in (b"topic", b"data", b"name", b"trail"))


@pytest.mark.parametrize("seed", SEEDS)
async def test_random_steps(stores: Stores, seed: int) -> None:
    chance, clock = random.Random(seed), RedisClock(stores.direct)
    clock.ahead_ms = 0
    scene = Scene(stores, await hook_of(stores, clock, POLICY), clock, chance)
    steps: list[tuple[Callable[[], Awaitable[None]], int]] = [
        (scene.append, 10),
        (scene.take, 14),
        (scene.ack, 14),
        (scene.fail, 8),
        (scene.wait, 6),
        (scene.be_replaced, 2),
        (scene.stale_answer, 2),
        (scene.hurry, 2),
        (scene.deliver_some_in_order, 1),
        (scene.purge, 1),
    ]
    names, weights = zip(*steps, strict=True)
    for step in chance.choices(names, weights, k=STEPS):
        await step()
        scene.check()

    for entry in list(scene.under_way):
        await scene.hook.ack(scene.under_way.pop(entry))
        scene.left.pop(entry, None)
    while scene.left:
        clock.ahead_ms += 60_000
        await scene.take()
        assert len(scene.under_way) <= 5 + len(scene.left)
        while scene.under_way:
            await scene.ack()
        scene.check()
    assert await scene.hook.take() is NoBatch.EMPTY
    assert scene.hook.marks == 0
