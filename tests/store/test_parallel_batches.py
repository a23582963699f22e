"""Webhooks with several requests at once: entries are taken, acked, retried and given up by themselves."""

from dataclasses import replace
from typing import Any

import pytest

from shared.model.account_channels import ChannelSettings
from shared.model.batch_limits import Lesson
from shared.model.channels import Kind, Lease
from shared.model.deliveries import Delivery
from shared.model.errors import NoLongerOwner
from shared.model.webhooks import Format, NoticeOf, WebhookPolicy
from shared.store import keyspace
from shared.store.batches import AfterAttempt, AfterFailure, Batches, NoBatch, Paced, TakenBatch
from shared.store.due_webhooks import DueWebhook, DueWebhooks
from shared.store.parallel_batches import EntryFailure, ParallelBatches, Waiting
from shared.store.queues import QueueLimits
from shared.store.webhook_notices import WebhookNotices
from shared.store.webhooks import Webhooks
from tests.store.native import HOOK, create
from tests.store.stores import (
    EDGE,
    HOUR_MS,
    NOW_MS,
    OTHER_EDGE,
    AppendingQueues,
    RedisClock,
    Stores,
    events,
)

POLICY = WebhookPolicy(max_in_flight=20, give_up_after_s=60, disable_after_s=600)
IN_ORDER = replace(POLICY, max_in_flight=1)
DAY_MS = 24 * HOUR_MS
NOTICE = '{"reason":"failed-for-too-long"}'
_NO_LESSON = Lesson()


@pytest.fixture
def clock(stores: Stores) -> RedisClock:
    clock = RedisClock(stores.direct)
    clock.ahead_ms = 0
    return clock


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


async def test_each_entry_is_taken_once_and_acked_wherever_it_stands(
    stores: Stores, clock: RedisClock
) -> None:
    hook = await hook_of(stores, clock, queued=5)

    first, second = await hook.taken(2), await hook.taken(2)

    assert (ids(first), ids(second)) == (["0", "1"], ["2", "3"])
    assert (first[0].failed_attempts, first[0].is_retry, first[0].callback) == (0, False, HOOK)
    assert await hook.ack(second[0]) == 1
    assert hook.left == ["0", "1", "3", "4"]
    assert await hook.ack(first[0]) == 1
    assert await hook.ack(first[0]) == 0, "it is gone"
    assert hook.left == ["1", "3", "4"]
    found = await stores.account_channels.read(hook.channel)
    assert found is not None
    assert found.pending == 3
    assert ids(await hook.taken()) == ["4"]
    assert await hook.take() == Waiting(None)


async def test_a_queue_that_is_empty_leaves_nothing_behind(stores: Stores, clock: RedisClock) -> None:
    hook = await hook_of(stores, clock, queued=3)
    one, two, three = await hook.taken()
    for each in (two, three):
        await hook.ack(each)
    await hook.fail(one)
    clock.ahead_ms = 1000
    [one] = await hook.taken()
    await hook.ack(one)

    assert await hook.take() is NoBatch.EMPTY

    assert not stores.direct.exists(keyspace.taken(hook.channel))
    fields = stores.direct.hkeys(keyspace.channel(hook.channel))
    assert not {b"taken_until", b"first", b"first_total", b"failing_since_ms", b"failed_attempts"} & set(
        fields
    )
    await stores.queued(hook.channel, 1)
    assert len(await hook.taken()) == 1


async def test_a_failed_entry_waits_for_its_own_retry_and_the_others_go_on(
    stores: Stores, clock: RedisClock
) -> None:
    hook = await hook_of(stores, clock, queued=3)
    one, two = await hook.taken(2)

    assert await hook.fail(one) == AfterAttempt(AfterFailure.RETRY, next_ms=NOW_MS + 1000)
    await hook.ack(two)

    [three] = await hook.taken()
    assert ids([three]) == ["2"]
    await hook.ack(three)
    assert await hook.take() == Waiting(NOW_MS + 1000)
    clock.ahead_ms = 1000
    assert await hook.take(retries=0) == Waiting(None)
    [again] = await hook.taken()
    assert (ids([again]), again.failed_attempts, again.is_retry) == (["0"], 1, True)
    assert await hook.take() == Waiting(None), "it is under way"
    await hook.fail(again, backoff_ms=5000)
    assert await hook.take() == Waiting(NOW_MS + 6000)


async def test_another_owner_takes_what_was_under_way_and_what_waits(
    stores: Stores, clock: RedisClock
) -> None:
    hook = await hook_of(stores, clock, queued=6)
    one, two, three, four = await hook.taken(4)
    await hook.ack(two)
    await hook.fail(three)
    before = hook.lease

    await hook.claim(OTHER_EDGE)

    after = await hook.taken()
    assert ids(after) == ["0", "3", "4", "5"]
    assert await hook.take() == Waiting(NOW_MS + 1000)
    old = Hook(stores, clock, hook.channel)
    old.lease = before
    assert await old.ack(one) is None
    assert (await old.fail(four)).result is AfterFailure.NOT_OWNER
    with pytest.raises(NoLongerOwner):
        await old.take()
    clock.ahead_ms = 1000
    [again] = await hook.taken()
    assert (ids([again]), again.failed_attempts) == (["2"], 1)
    for each in (*after, again):
        assert await hook.ack(each) == 1
    assert (hook.left, hook.marks) == ([], 0)


async def test_a_release_and_a_claim_by_the_same_dispatcher_repeat_what_has_no_result(
    stores: Stores, clock: RedisClock
) -> None:
    hook = await hook_of(stores, clock, queued=2)
    assert ids(await hook.taken()) == ["0", "1"]
    await stores.leases.release(hook.lease)

    await hook.claim()

    assert ids(await hook.taken()) == ["0", "1"]


async def test_what_has_failed_for_its_time_is_given_up_alone(stores: Stores, clock: RedisClock) -> None:
    hook = await hook_of(stores, clock)
    await stores.queues.append(hook.channel, [each._replace(receipt=True) for each in events(1, 2)])
    one, two = await hook.taken()
    for clock.ahead_ms in (0, 20_000, 40_000, 59_999):
        assert (await hook.fail(one, backoff_ms=1)).result is AfterFailure.RETRY
        clock.ahead_ms += 1
        [one] = await hook.taken()

    assert await hook.fail(one) == AfterAttempt(
        AfterFailure.EXHAUSTED, next_ms=NOW_MS + clock.ahead_ms + 1000, lost=1
    )

    assert hook.left == ["2"]
    receipts = [stores.direct.hgetall(keyspace.receipt(hook.channel, each)) for each in ("1", "2")]
    assert (receipts[0][b"reason"], b"acked" in receipts[1]) == (b"exhausted", False)
    found = await stores.account_channels.read(hook.channel)
    assert found is not None
    assert (found.dropped, found.pending, found.state) == (1, 1, "failing")
    notices = WebhookNotices(stores.calls)
    told = await notices.read(hook.channel)
    assert told is not None
    assert [each.kind for each in told.notices] == [NoticeOf.EXHAUSTED]
    assert await hook.ack(two) == 1
    assert b"acked" in stores.direct.hgetall(keyspace.receipt(hook.channel, "2"))
    told = await notices.read(hook.channel)
    assert told is not None
    assert [each.kind for each in told.notices] == [NoticeOf.EXHAUSTED, NoticeOf.RECOVERED]


async def test_only_attempts_count_not_the_absence_of_dispatchers(stores: Stores, clock: RedisClock) -> None:
    hook = await hook_of(stores, clock, queued=1)
    [one] = await hook.taken()
    await hook.fail(one)

    for clock.ahead_ms in (DAY_MS, DAY_MS + 2000):
        [one] = await hook.taken()
        assert (await hook.fail(one)).result is AfterFailure.RETRY


async def test_what_is_refused_too_often_for_its_size_is_dropped(stores: Stores, clock: RedisClock) -> None:
    hook = await hook_of(stores, clock, queued=2)
    one, _ = await hook.taken()
    entry = one.notifications[0].entry_id
    for times in (1, 2):
        await hook.fail(one, backoff_ms=0, lesson=Lesson(refused_entry=entry, refused_times=times))
        [one] = await hook.taken()
        assert (one.limits.refused_entry, one.limits.refused_times) == (entry, times)

    after = await hook.fail(one, lesson=Lesson(refused_entry=entry, refused_times=3))

    assert (after.result, after.lost, hook.left) == (AfterFailure.DROPPED, 1, ["1"])


@pytest.mark.parametrize("is_gone", [True, False])
async def test_a_webhook_whose_attempts_all_fail_is_disabled_and_resumed(
    stores: Stores, clock: RedisClock, is_gone: bool
) -> None:
    policy = replace(POLICY, give_up_after_s=DAY_MS // 1000, disable_after_s=60)
    hook = await hook_of(stores, clock, policy, queued=3)
    one, two = await hook.taken(2)
    if not is_gone:
        for clock.ahead_ms in (0, 25_000, 50_000):
            assert (await hook.fail(one, backoff_ms=0)).result is AfterFailure.RETRY
            [one] = await hook.taken(1)
        clock.ahead_ms = 61_000

    after = await hook.fail(one, is_gone=is_gone)

    assert after.result is AfterFailure.DISABLED
    assert after.reason == ("gone" if is_gone else "failed-for-too-long")
    assert (await hook.fail(two, is_gone=is_gone)).result is AfterFailure.RETRY, "it is told once"
    told = await WebhookNotices(stores.calls).read(hook.channel)
    assert told is not None
    assert [each.kind for each in told.notices] == [NoticeOf.DISABLED]
    assert await hook.take() == Waiting(None)
    clock.ahead_ms += DAY_MS
    await stores.account_channels.resume(hook.channel)
    await hook.claim()

    found = await hook.taken()
    assert ids(found) == ["0", "1", "2"]
    assert [each.failed_attempts for each in found] == [0, 0, 0], "their times begin anew"
    assert (await hook.fail(found[0])).result is AfterFailure.RETRY


async def test_a_failure_under_older_settings_says_nothing(stores: Stores, clock: RedisClock) -> None:
    hook = await hook_of(stores, clock, queued=1)
    [one] = await hook.taken()
    await change(hook, POLICY)

    assert (await hook.fail(one, is_gone=True)).result is AfterFailure.CONFIG_CHANGED

    [again] = await hook.taken()
    assert (ids([again]), again.failed_attempts) == (["0"], 0)


@pytest.mark.parametrize("by", ["a change", "a retry", "a resume"])
async def test_everything_that_waits_is_due_at_once_after(stores: Stores, clock: RedisClock, by: str) -> None:
    count, ten_days = 250, 10 * DAY_MS // 1000
    policy = WebhookPolicy(max_in_flight=100, give_up_after_s=ten_days, disable_after_s=ten_days)
    hook = await hook_of(stores, clock, policy, queued=count)
    for number in range(count):
        [one] = await hook.taken(1)
        if number == count // 2:
            # So the receiver does not seem to be down.
            await hook.ack(one)
        else:
            await hook.fail(one, backoff_ms=DAY_MS, asked_ms=DAY_MS if number == count - 1 else None)
            clock.ahead_ms += 6000
    assert isinstance(await hook.take(), Waiting)

    match by:
        case "a change":
            await change(hook, replace(policy, timeout_s=3))
        case "a retry":
            assert await Webhooks(stores.calls, stores.wakeups).retry_now(hook.channel)
        case "a resume":
            assert await stores.account_channels.resume(hook.channel)

    found: list[TakenBatch] = []
    while len(found) < count - 1:
        found += await hook.taken()
    assert len({each.mark for each in found}) == count - 1
    assert {each.failed_attempts for each in found} == {0 if by == "a change" else 1}


async def test_a_change_to_one_request_at_a_time_goes_on_in_order_with_what_is_left(
    stores: Stores, clock: RedisClock
) -> None:
    hook = await hook_of(stores, clock, queued=6)
    one, two, three, _ = await hook.taken(4)
    await hook.ack(two)
    await hook.fail(one, backoff_ms=DAY_MS)
    await change(hook, IN_ORDER)
    assert await hook.take() is NoBatch.IN_ORDER
    assert hook.marks > 0, "requests are still under way"
    await hook.ack(three)

    hook.is_fresh = True
    assert await hook.take() is NoBatch.IN_ORDER

    assert hook.marks == 0
    delivered = []
    while isinstance(batch := await hook.in_order.take(hook.lease, count=100, size_bytes=10**6), TakenBatch):
        delivered += ids([batch])
        until = batch.notifications[-1].entry_id
        await hook.in_order.ack(hook.lease, until=until, delivery=attempt(200))
    assert delivered == ["0", "3", "4", "5"]
    await change(hook, POLICY)
    await stores.queued(hook.channel, 1)
    assert await hook.in_order.take(hook.lease, count=1, size_bytes=1) is NoBatch.PARALLEL
    assert len(await hook.taken()) == 1


async def test_a_dispatcher_that_dies_before_it_forgets_leaves_nothing_that_hurts(
    stores: Stores, clock: RedisClock
) -> None:
    hook = await hook_of(stores, clock, queued=4)
    one, *_ = await hook.taken(3)
    await hook.fail(one, backoff_ms=DAY_MS)
    await change(hook, IN_ORDER)
    for _ in range(2):
        batch = await hook.in_order.take(hook.lease, count=1, size_bytes=1)
        assert isinstance(batch, TakenBatch)
        await hook.in_order.ack(hook.lease, until=batch.notifications[0].entry_id, delivery=attempt(200))
    await change(hook, POLICY)
    await hook.claim(OTHER_EDGE)

    found = await hook.taken()

    assert ids(found) == ["2", "3"]
    for each in found:
        await hook.ack(each)
    assert await hook.take() is NoBatch.EMPTY
    assert hook.marks == 0


async def test_a_purge_a_deletion_and_what_is_too_old_end_the_marks(
    stores: Stores, clock: RedisClock
) -> None:
    hook = await hook_of(stores, clock, queued=4)
    one, two, *_ = await hook.taken(3)
    await hook.fail(one)
    found = await stores.account_channels.read(hook.channel)
    assert found is not None
    assert await stores.account_channels.purge(found) == 4
    assert hook.marks == 0
    assert await hook.ack(two) == 0
    await stores.queued(hook.channel, 2)
    [three, _] = await hook.taken()
    await hook.fail(three)
    # Redis gives out ids by its own clock, which a test cannot set.
    clock.ahead_ms = stores.now_ms() - NOW_MS + 8 * DAY_MS
    assert await hook.take() is NoBatch.EMPTY
    assert hook.marks == 0

    await stores.queued(hook.channel, 1)
    clock.ahead_ms = 0
    [four] = await hook.taken()
    await hook.fail(four)
    assert hook.marks == 1
    await stores.account_channels.delete(found)
    assert not stores.direct.exists(keyspace.taken(hook.channel))


async def test_an_entry_that_waits_at_the_front_does_not_make_the_queue_seem_full(
    stores: Stores, clock: RedisClock
) -> None:
    hook = await hook_of(stores, clock)
    small = AppendingQueues(stores.calls, limits=QueueLimits(size_bytes=10_000))
    await small.append(hook.channel, events(1000, size_bytes=100))
    [stuck] = await hook.taken()
    await hook.fail(stuck, backoff_ms=DAY_MS)
    for number in range(100):
        await small.append(hook.channel, events(number, size_bytes=1000))
        [one] = await hook.taken()
        assert await hook.ack(one) == 1

    assert hook.left == ["1000"]
    assert hook.pending_bytes < 500
    # What is really pending counts as ever.
    for number in range(20):
        await small.append(hook.channel, events(number, size_bytes=1000))
    assert hook.left[0] != "1000"
    assert 7 <= len(hook.left) <= 9
    assert hook.pending_bytes <= 10_000
    found = await stores.account_channels.read(hook.channel)
    assert found is not None
    assert found.dropped == 21 - len(hook.left)


async def test_bytes_stay_right_when_the_order_of_acks_is_any(stores: Stores, clock: RedisClock) -> None:
    hook = await hook_of(stores, clock)
    for size in (1, 500, 40, 3000, 7, 900):
        await stores.queues.append(hook.channel, events(size, size_bytes=size))
    taken = await hook.taken()
    sizes = {each.mark: len(each.notifications[0].data) for each in taken}
    fixed = (hook.pending_bytes - sum(sizes.values())) // 6

    for each in (taken[3], taken[0], taken[5], taken[1]):
        await hook.ack(each)
        sizes.pop(each.mark)
        assert hook.pending_bytes == sum(sizes.values()) + fixed * len(sizes)
    # A new owner, and a drop of what is too old, leave them right.
    await hook.claim(OTHER_EDGE)
    assert len(await hook.taken()) == 2
    assert hook.pending_bytes == sum(sizes.values()) + fixed * len(sizes)


async def test_a_receiver_that_seems_to_be_down_gets_retries_and_one_new_entry_after_each_pause(
    stores: Stores, clock: RedisClock
) -> None:
    hook = await hook_of(stores, clock, replace(POLICY, max_in_flight=3), queued=10)
    for each in await hook.taken(3):
        await hook.fail(each, backoff_ms=60_000)

    assert await hook.take() == Waiting(NOW_MS + 5000)
    assert stores.direct.hget(keyspace.channel(hook.channel), "next_attempt_ms") == b"%d" % (NOW_MS + 5000)
    clock.ahead_ms = 5000
    [probe] = await hook.taken()
    assert ids([probe]) == ["3"]
    assert isinstance(await hook.take(), Waiting)
    await hook.fail(probe, backoff_ms=60_000)
    assert await hook.take() == Waiting(NOW_MS + 10_000)
    clock.ahead_ms = 10_000
    [probe] = await hook.taken()
    await hook.ack(probe)
    assert ids(await hook.taken()) == ["5", "6", "7", "8", "9"], "it is up"
    assert not stores.direct.hexists(keyspace.channel(hook.channel), "next_attempt_ms")


async def test_a_receiver_that_asks_to_wait_gets_nothing_at_all(stores: Stores, clock: RedisClock) -> None:
    hook = await hook_of(stores, clock, queued=3)
    one, two = await hook.taken(2)

    await hook.fail(one, asked_ms=30_000, backoff_ms=30_000)
    assert await hook.take() == Waiting(NOW_MS + 30_000)
    await hook.fail(two, asked_ms=10_000, backoff_ms=10_000)

    for clock.ahead_ms in (10_000, 29_999):
        assert await hook.take() == Waiting(NOW_MS + 30_000)
    clock.ahead_ms = 30_000
    assert ids(await hook.taken()) == ["1", "0", "2"]


async def test_so_many_that_wait_keep_new_ones_out(stores: Stores, clock: RedisClock) -> None:
    hook = await hook_of(stores, clock, replace(POLICY, max_in_flight=100), queued=2)
    # More that waits than a test can make fail in a moment.
    name = keyspace.taken(hook.channel)
    stores.direct.zadd(name, {f"1-{number} 1 1 0 1": NOW_MS + DAY_MS for number in range(1000)})

    assert await hook.take() == Waiting(NOW_MS + DAY_MS)

    stores.direct.zrem(name, "1-0 1 1 0 1")
    assert len(await hook.taken()) == 2
    clock.ahead_ms = DAY_MS
    for _ in range(20):
        await hook.take()
    assert hook.marks == 2, "entries that are gone leave the set when they are due"


async def test_a_rate_holds_over_all_requests(stores: Stores, clock: RedisClock) -> None:
    hook = await hook_of(stores, clock, replace(POLICY, rate_per_s=10), queued=50)
    begun_ms: list[int] = []
    while len(begun_ms) < 40:
        found = await hook.take()
        if isinstance(found, Paced):
            assert 0 < found.wait_ms <= 100
            clock.ahead_ms += min(found.wait_ms, 37)
        else:
            assert isinstance(found, list)
            begun_ms += [clock.ahead_ms] * len(found)

    for begin in begun_ms:
        assert sum(begin <= each < begin + 1000 for each in begun_ms) <= 12


async def test_a_paused_or_expired_channel_gives_nothing_and_its_requests_may_end(
    stores: Stores, clock: RedisClock
) -> None:
    hook = await hook_of(stores, clock, queued=3)
    one, two = await hook.taken(2)
    await stores.account_channels.pause(hook.channel)

    assert await hook.take() == Waiting(None)
    assert await hook.ack(one) == 1
    assert (await hook.fail(two)).result is AfterFailure.RETRY
    await stores.account_channels.resume(hook.channel)
    assert ids(await hook.taken()) == ["1", "2"]


async def test_the_sweep_finds_what_is_due(stores: Stores, clock: RedisClock) -> None:
    hook = await hook_of(stores, clock, queued=2)
    due_webhooks = DueWebhooks(clock.calls_of(stores), instance="sweeper/1")

    async def found() -> list[DueWebhook]:
        return [each async for page in due_webhooks.pages() for each in page]

    assert len(await found()) == 1, "nothing was taken"
    one, two = await hook.taken()
    assert len(await found()) == 1, "if the owner has died, its requests are due"
    await hook.ack(two)
    await hook.fail(one, backoff_ms=30_000)
    assert await found() == [], "it waits for its retry"
    clock.ahead_ms = 30_000
    [due] = await found()
    assert due.failed_attempts == 1
    clock.ahead_ms = 0
    await stores.queued(hook.channel, 1)
    assert len(await found()) == 1, "an entry is new"


async def test_a_channel_in_order_is_never_given_out_in_parallel(stores: Stores, clock: RedisClock) -> None:
    hook = await hook_of(stores, clock, IN_ORDER, queued=1)

    assert await hook.take() is NoBatch.IN_ORDER

    batch = await hook.in_order.take(hook.lease, count=1, size_bytes=1)
    assert isinstance(batch, TakenBatch)


async def test_entries_of_a_parallel_webhook_keep_to_the_bytes_of_one_take(
    stores: Stores, clock: RedisClock
) -> None:
    policy = replace(POLICY, format=Format.PELION, max_batch=1)
    hook = await hook_of(stores, clock, policy, settings=ChannelSettings(queue_bytes=10**9))
    await stores.queues.append(hook.channel, events(*range(10), size_bytes=300_000))

    assert [len(await hook.taken()) for _ in range(4)] == [3, 3, 3, 1]
    for each in range(10):
        assert hook.left.count(str(each)) == 1
