"""Webhooks with several requests at once: entries are taken and acked by themselves, by any owner."""

from dataclasses import replace

import pytest

from shared.model.account_channels import ChannelSettings
from shared.model.errors import NoLongerOwner
from shared.model.webhooks import Format
from shared.store import keyspace
from shared.store.batches import AfterFailure, NoBatch, Paced, TakenBatch
from shared.store.parallel_batches import Waiting
from shared.store.queues import QueueLimits
from tests.store.native import HOOK
from tests.store.parallel import DAY_MS, IN_ORDER, POLICY, Hook, attempt, change, hook_of, ids
from tests.store.stores import (
    NOW_MS,
    OTHER_EDGE,
    AppendingQueues,
    RedisClock,
    Stores,
    events,
)


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
    names = [keyspace.channel(hook.channel), keyspace.queue(hook.channel), "{" + hook.channel + "}:none"]
    assert await stores.calls.script("queue_size", names) == 4400, "the first block"
    # What is really pending counts as ever.
    for number in range(20):
        await small.append(hook.channel, events(number, size_bytes=1000))
    assert hook.left[0] != "1000"
    assert 7 <= len(hook.left) <= 9
    assert hook.pending_bytes <= 10_000
    found = await stores.account_channels.read(hook.channel)
    assert found is not None
    assert found.dropped == 21 - len(hook.left)


async def test_a_full_queue_drops_no_more_of_what_waits_than_it_must(
    stores: Stores, clock: RedisClock
) -> None:
    hook = await hook_of(stores, clock)
    small = AppendingQueues(stores.calls, limits=QueueLimits(size_bytes=10_000))
    for stuck in (1000, 2000):
        await small.append(hook.channel, events(stuck, size_bytes=1000))
        [waits] = await hook.taken()
        await hook.fail(waits, backoff_ms=DAY_MS)
        for number in range(20):
            await small.append(hook.channel, events(number, size_bytes=1000))
            [one] = await hook.taken()
            await hook.ack(one)
    assert hook.left == ["1000", "2000"]

    for number in range(7):
        await small.append(hook.channel, events(number, size_bytes=1000))

    assert hook.left == ["2000", *map(str, range(7))]
    assert hook.pending_bytes <= 10_000


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
