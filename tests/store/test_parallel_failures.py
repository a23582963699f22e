"""Failed attempts of webhooks with several requests at once: each entry has its own retries and end."""

from dataclasses import replace

import pytest

from shared.model.batch_limits import Lesson
from shared.model.webhooks import NoticeOf, WebhookPolicy
from shared.store import keyspace
from shared.store.batches import AfterAttempt, AfterFailure, TakenBatch
from shared.store.due_webhooks import DueWebhook, DueWebhooks
from shared.store.parallel_batches import Waiting
from shared.store.webhook_notices import WebhookNotices
from shared.store.webhooks import Webhooks
from tests.store.parallel import DAY_MS, POLICY, change, hook_of, ids
from tests.store.stores import (
    NOW_MS,
    RedisClock,
    Stores,
    events,
)


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
    kept = await notices.read(hook.channel)
    assert kept is not None
    assert [each.kind for each in kept.notices] == [NoticeOf.EXHAUSTED]
    assert await hook.ack(two) == 1
    assert b"acked" in stores.direct.hgetall(keyspace.receipt(hook.channel, "2"))
    kept = await notices.read(hook.channel)
    assert kept is not None
    assert [each.kind for each in kept.notices] == [NoticeOf.EXHAUSTED, NoticeOf.RECOVERED]


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
    assert (await hook.fail(two, is_gone=is_gone)).result is AfterFailure.RETRY, "it is disabled once"
    kept = await WebhookNotices(stores.calls).read(hook.channel)
    assert kept is not None
    assert [each.kind for each in kept.notices] == [NoticeOf.DISABLED]
    assert await hook.take() == Waiting(None)
    clock.ahead_ms += DAY_MS
    await stores.account_channels.resume(hook.channel)
    await hook.claim()

    found = await hook.taken()
    assert ids(found) == ["0", "1", "2"]
    assert [each.failed_attempts for each in found] == [0, 0, 0], "their times begin anew"
    assert (await hook.fail(found[0])).result is AfterFailure.RETRY


async def test_an_ack_behind_a_410_is_no_recovery(stores: Stores, clock: RedisClock) -> None:
    """Several requests were under way when a 410 answered one of them."""
    hook, notices = await hook_of(stores, clock, queued=3), WebhookNotices(stores.calls)

    async def notice_kinds() -> list[str]:
        found = await notices.read(hook.channel)
        return [] if found is None else [each.kind for each in found.notices]

    one, two = await hook.taken(2)
    assert (await hook.fail(one, is_gone=True)).result is AfterFailure.DISABLED
    assert await hook.ack(two) == 1
    found = await stores.account_channels.read(hook.channel)
    assert found is not None
    assert (found.state, found.pending) == ("disabled", 2)
    assert await notice_kinds() == [NoticeOf.DISABLED]

    await stores.account_channels.resume(hook.channel)
    await hook.claim()
    [one, _] = await hook.taken()
    await hook.ack(one)
    assert await notice_kinds() == [NoticeOf.DISABLED, NoticeOf.RECOVERED]


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
