"""Failed attempts of native webhooks: given up, disabled, their notices; and their rate."""

from typing import Any

import orjson
import pytest

from shared.model.account_channels import ChannelSettings
from shared.model.channels import Kind, Lease
from shared.model.deliveries import Delivery
from shared.model.errors import IsDisabled
from shared.model.events import Event
from shared.model.webhooks import Disabled, DisabledFor, Format, NoticeOf, WebhookPolicy, most_queue_age_ms
from shared.store import keyspace
from shared.store.batches import AfterAttempt, AfterFailure, Batches, Failure, NoBatch, Paced, TakenBatch
from shared.store.due_webhooks import DueWebhook, DueWebhooks
from shared.store.queues import QueueLimits
from shared.store.webhook_notices import WebhookNotices
from shared.store.webhooks import Webhooks
from tests.harness.overheard import Overheard
from tests.store.native import HOOK, create
from tests.store.stores import EDGE, HOUR_MS, NOW_MS, AppendingQueues, RedisClock, Stores, at_time, events

POLICY = WebhookPolicy(format=Format.CLOUDEVENTS_BATCH, give_up_after_s=60, disable_after_s=600)
NOTICE = '{"reason":"failed-for-too-long"}'
DAY_MS = 24 * HOUR_MS


@pytest.fixture
def batches(stores: Stores, clock: RedisClock) -> Batches:
    return Batches(clock.calls_of(stores), limits=QueueLimits())


@pytest.fixture
def notices(stores: Stores) -> WebhookNotices:
    return WebhookNotices(stores.calls)


async def webhook(stores: Stores, policy: WebhookPolicy = POLICY, **more: Any) -> str:
    return await create(stores, kind=Kind.WEBHOOK, policy=policy, **more)


async def claim(stores: Stores, channel: str) -> Lease:
    return await stores.leases.claim_unheld(channel, owner=f"{EDGE}/1")


async def taken(batches: Batches, lease: Lease) -> TakenBatch:
    batch = await batches.take(lease, count=100, size_bytes=1_000_000)
    assert isinstance(batch, TakenBatch), batch
    return batch


async def fail(
    stores: Stores,
    batches: Batches,
    channel: str,
    *,
    batch: TakenBatch | None = None,
    is_gone: bool = False,
    notice: str = NOTICE,
    took_ms: int = 5,
) -> AfterAttempt:
    """Takes the next batch, unless one is given, and fails to deliver it."""
    lease = await claim(stores, channel)
    batch = batch or await taken(batches, lease)
    return await batches.fail_native(
        lease,
        taken=batch,
        delivery=attempt(500, took_ms),
        backoff_ms=1000,
        failure=Failure(
            is_gone=is_gone,
            backoff_after_ms=2000,
            first=batch.notifications[0].entry_id,
            last=batch.notifications[-1].entry_id,
            notice=notice,
        ),
    )


def attempt(status: int, took_ms: int = 5) -> Delivery:
    return Delivery(at_ms=NOW_MS, webhook_id="msg_1", count=1, status=status, error="", took_ms=took_ms)


async def notice_kinds(notices: WebhookNotices, channel: str) -> list[str]:
    found = await notices.read(channel)
    return [] if found is None else [notice.kind for notice in found.notices]


async def shown(stores: Stores, channel: str) -> Any:
    return await stores.account_channels.read(channel)


async def test_what_has_failed_for_its_time_is_given_up_and_the_next_begins_anew(
    stores: Stores, batches: Batches, clock: RedisClock, notices: WebhookNotices
) -> None:
    channel = await webhook(stores)
    await stores.queues.append(channel, [each._replace(receipt=True) for each in events(1, 2)])
    first = await fail(stores, batches, channel)
    assert first == AfterAttempt(AfterFailure.RETRY, next_ms=NOW_MS + 1000)
    await stores.queued(channel, 1)
    [*_, behind] = stores.entries(channel)

    clock.ahead_ms = 59_999
    # An attempt in between keeps the time from being one of absence.
    stores.direct.hset(keyspace.channel(channel), "next_attempt_ms", NOW_MS + 59_000)
    assert (await fail(stores, batches, channel)).result is AfterFailure.RETRY
    clock.ahead_ms = 61_000
    after = await fail(stores, batches, channel)

    assert after == AfterAttempt(AfterFailure.EXHAUSTED, next_ms=NOW_MS + 63_000, lost=2)
    assert stores.entries(channel) == [behind]
    assert await notice_kinds(notices, channel) == [NoticeOf.EXHAUSTED]
    receipt = stores.direct.hgetall(keyspace.receipt(channel, "1"))
    assert receipt[b"reason"] == b"exhausted"
    found = await shown(stores, channel)
    assert (found.dropped, found.state) == (2, "failing")
    clock.ahead_ms = 64_000
    batch = await taken(batches, await claim(stores, channel))
    assert batch.failed_attempts == 0
    assert (await fail(stores, batches, channel, batch=batch)).result is AfterFailure.RETRY
    clock.ahead_ms = 66_000
    assert (await fail(stores, batches, channel)).result is AfterFailure.RETRY


async def test_only_attempts_count_not_the_absence_of_dispatchers(
    stores: Stores, batches: Batches, clock: RedisClock
) -> None:
    channel = await webhook(stores)
    await stores.queued(channel, 1)
    await fail(stores, batches, channel)

    clock.ahead_ms = DAY_MS
    assert (await fail(stores, batches, channel)).result is AfterFailure.RETRY
    clock.ahead_ms = DAY_MS + 2000
    assert (await fail(stores, batches, channel)).result is AfterFailure.RETRY


@pytest.mark.parametrize("is_gone", [True, False])
async def test_a_disabled_webhook_gets_nothing_until_it_is_resumed(
    stores: Stores,
    batches: Batches,
    clock: RedisClock,
    notices: WebhookNotices,
    overheard: Overheard,
    is_gone: bool,
) -> None:
    policy = WebhookPolicy(give_up_after_s=DAY_MS // 1000, disable_after_s=60)
    channel = await webhook(stores, policy)
    await stores.queued(channel, 1)
    reason = DisabledFor.GONE if is_gone else DisabledFor.FAILED
    if not is_gone:
        for clock.ahead_ms in (0, 25_000, 50_000, 59_999):
            assert (await fail(stores, batches, channel)).result is AfterFailure.RETRY
        clock.ahead_ms = 61_000
    after = await fail(stores, batches, channel, is_gone=is_gone)
    since_ms = NOW_MS + clock.ahead_ms

    assert after == AfterAttempt(AfterFailure.DISABLED, reason=reason)
    found = await shown(stores, channel)
    assert (found.state, found.disabled) == ("disabled", Disabled(since_ms, reason))
    assert await notice_kinds(notices, channel) == [NoticeOf.DISABLED]
    assert stores.owner(channel) is None
    overheard.all()
    await stores.queued(channel, 1)
    assert overheard.all() == [], "an append wakes no dispatcher"
    clock.ahead_ms += DAY_MS
    lease = await claim(stores, channel)
    assert await batches.take(lease, count=1, size_bytes=1) is NoBatch.NOT_DUE
    await stores.leases.release(lease)
    with pytest.raises(IsDisabled):
        await Webhooks(stores.calls, stores.wakeups).retry_now(channel)
    # Neither a change of the webhook nor one of its queue's limits enables it.
    await stores.account_channels.change_webhook(found, lambda _: (HOOK, policy))
    await stores.account_channels.change(found, settings=ChannelSettings(queue_bytes=4096))
    overheard.all()
    await stores.queued(channel, 1)
    assert overheard.all() == []
    assert (await shown(stores, channel)).state == "disabled"
    assert len(stores.entries(channel)) == 3

    assert await stores.account_channels.resume(channel)

    found = await shown(stores, channel)
    assert (found.state, found.disabled, found.failing_since_ms) == ("active", None, None)
    assert (await fail(stores, batches, channel)).result is AfterFailure.RETRY, "its time begins anew"
    await stores.account_channels.resume(channel)
    lease = await claim(stores, channel)
    batch = await taken(batches, lease)
    await batches.ack(lease, until=batch.notifications[-1].entry_id, delivery=attempt(200))
    assert await notice_kinds(notices, channel) == [NoticeOf.DISABLED, NoticeOf.RECOVERED]
    overheard.all()
    await stores.queued(channel, 1)
    assert overheard.all() != []


async def test_a_failure_under_older_settings_disables_nothing(stores: Stores, batches: Batches) -> None:
    channel = await webhook(stores)
    await stores.queued(channel, 1)
    batch = await taken(batches, await claim(stores, channel))
    await stores.account_channels.change_webhook(await shown(stores, channel), lambda _: (HOOK, POLICY))

    after = await fail(stores, batches, channel, batch=batch, is_gone=True)

    assert after.result is AfterFailure.CONFIG_CHANGED
    assert (await shown(stores, channel)).state == "active"


async def test_what_is_given_up_without_a_notice_writes_none(
    stores: Stores, batches: Batches, clock: RedisClock, notices: WebhookNotices
) -> None:
    channel = await webhook(stores, WebhookPolicy(give_up_after_s=1))
    await stores.queues.append(channel, [Event("s", "system.webhook.disabled", b"1")])
    await fail(stores, batches, channel, notice="")
    clock.ahead_ms = 1200

    assert (await fail(stores, batches, channel, notice="")).result is AfterFailure.EXHAUSTED

    assert await notice_kinds(notices, channel) == []
    await stores.queued(channel, 1)
    clock.ahead_ms = 5000
    lease = await claim(stores, channel)
    batch = await taken(batches, lease)
    assert not batch.is_in_trouble
    await batches.ack(lease, until=batch.notifications[-1].entry_id, delivery=attempt(200))
    assert await notice_kinds(notices, channel) == []


async def test_notices_stay_until_those_that_were_read_are_removed(
    stores: Stores, batches: Batches, clock: RedisClock, notices: WebhookNotices
) -> None:
    channel = await webhook(stores, WebhookPolicy(give_up_after_s=1), name="n", customer="c")
    await stores.queued(channel, 30)

    async def give_up() -> None:
        await fail(stores, batches, channel)
        clock.ahead_ms += 1100
        assert (await fail(stores, batches, channel)).result is AfterFailure.EXHAUSTED
        clock.ahead_ms += 2100

    await give_up()
    first = await notices.read(channel)
    assert first is not None
    [notice] = first.notices
    assert (first.account, first.channel_name, first.customer) == (stores.account_id, "n", "c")
    assert (notice.number, notice.topic) == (1, "system.webhook.exhausted")
    assert notice.facts == orjson.loads(NOTICE)
    await give_up()
    await notices.remove(channel, first)

    left = await notices.read(channel)
    assert left is not None
    assert [each.number for each in left.notices] == [2]
    await notices.remove(channel, first)
    assert await notices.read(channel) == left, "those are gone already"
    for _ in range(20):
        await give_up()
    kept = await notices.read(channel)
    assert kept is not None
    assert [each.number for each in kept.notices] == list(range(7, 23)), "the newest"
    await notices.remove(channel, kept)
    assert await notices.read(channel) is None


async def test_the_sweep_finds_notices_of_webhooks_that_get_nothing(
    stores: Stores, batches: Batches, clock: RedisClock, notices: WebhookNotices
) -> None:
    channel = await webhook(stores)
    await stores.queued(channel, 1)

    async def found() -> list[DueWebhook]:
        due = DueWebhooks(clock.calls_of(stores), instance=EDGE)
        return [each async for page in due.pages() for each in page]

    assert [(each.is_due, each.has_notices) for each in await found()] == [(True, False)]
    await fail(stores, batches, channel, is_gone=True)
    assert [(each.channel, each.is_due, each.has_notices) for each in await found()] == [
        (channel, False, True)
    ]
    read = await notices.read(channel)
    assert read is not None
    await notices.remove(channel, read)
    assert await found() == []


async def test_a_rate_holds_by_the_clock_of_redis_also_for_another_owner(
    stores: Stores, batches: Batches, clock: RedisClock
) -> None:
    channel = await webhook(stores, WebhookPolicy(rate_per_s=10))
    await stores.queued(channel, 100)
    begun_ms: list[int] = []
    for number in range(400):
        # Each time another dispatcher.
        lease = await stores.leases.claim_unheld(channel, owner=f"{EDGE}/{number + 1}")
        batch = await batches.take(lease, count=1, size_bytes=1)
        if isinstance(batch, Paced):
            assert 0 < batch.wait_ms <= 100
            clock.ahead_ms += min(batch.wait_ms, 37)
        else:
            assert isinstance(batch, TakenBatch)
            begun_ms.append(clock.ahead_ms)
            await batches.ack(lease, until=batch.notifications[0].entry_id, delivery=attempt(200))
        await stores.leases.release(lease)
        if len(begun_ms) == 60:
            break

    assert len(begun_ms) == 60
    for begin in begun_ms:
        assert sum(begin <= each < begin + 1000 for each in begun_ms) <= 12
    assert begun_ms[-1] <= 6000 + 37, "what is late may catch up"


async def test_a_rate_survives_a_clock_that_is_put_back(
    stores: Stores, batches: Batches, clock: RedisClock
) -> None:
    channel = await webhook(stores, WebhookPolicy(rate_per_s=1))
    await stores.queued(channel, 3)
    lease = await claim(stores, channel)
    clock.ahead_ms = DAY_MS
    first = await taken(batches, lease)
    await batches.ack(lease, until=first.notifications[0].entry_id, delivery=attempt(200))
    clock.ahead_ms = 0

    assert isinstance(await batches.take(lease, count=1, size_bytes=1), TakenBatch)


@pytest.mark.parametrize(
    ("policy", "sizes"),
    [
        (WebhookPolicy(), 1),
        (WebhookPolicy(format=Format.CLOUDEVENTS_BATCH, max_batch=7), 7),
        (WebhookPolicy(format=Format.PELION, max_batch=7), 7),
        (WebhookPolicy(format=Format.PELION, max_body_bytes=2048), 4),
    ],
)
async def test_batches_keep_to_the_policy(
    stores: Stores, batches: Batches, policy: WebhookPolicy, sizes: int
) -> None:
    channel = await webhook(stores, policy)
    await stores.queues.append(channel, events(*range(20), size_bytes=500))

    assert len((await taken(batches, await claim(stores, channel))).notifications) == sizes


@pytest.mark.parametrize(("others_ms", "kept_ms"), [(HOUR_MS, 7 * HOUR_MS), (30 * DAY_MS, 30 * DAY_MS)])
async def test_the_installation_bounds_the_age_in_the_queue_of_a_native_webhook(
    stores: Stores, others_ms: int, kept_ms: int
) -> None:
    channel = await webhook(stores, settings=ChannelSettings(queue_age_ms=300 * DAY_MS))
    now_ms = stores.now_ms()
    await stores.queued(channel, 1)
    assert most_queue_age_ms(others_ms) == kept_ms

    for age_ms, dropped in ((kept_ms - HOUR_MS, 0), (kept_ms + HOUR_MS, 1)):
        queues = AppendingQueues(at_time(stores, now_ms + age_ms), limits=QueueLimits(lifetime_ms=others_ms))
        assert (await queues.drop_expired(channel)).dropped == dropped


async def test_a_native_webhook_keeps_its_queue_for_a_week(stores: Stores) -> None:
    usual, short = (
        await webhook(stores),
        await webhook(stores, settings=ChannelSettings(queue_age_ms=HOUR_MS)),
    )
    others = await create(stores)
    now_ms = stores.now_ms()
    for channel in (usual, short, others):
        await stores.queued(channel, 1)

    async def dropped_after(age_ms: int) -> list[int]:
        queues = AppendingQueues(at_time(stores, now_ms + age_ms), limits=QueueLimits(lifetime_ms=DAY_MS))
        return [(await queues.drop_expired(each)).dropped for each in (usual, short, others)]

    assert await dropped_after(2 * HOUR_MS) == [0, 1, 0]
    assert await dropped_after(2 * DAY_MS) == [0, 0, 1]
    assert await dropped_after(6 * DAY_MS) == [0, 0, 0]
    assert await dropped_after(8 * DAY_MS) == [1, 0, 0]
    times = [await stores.channels.times(each) for each in (usual, short, others)]
    assert [(each.lifetime_ms, each.is_native_webhook) for each in times if each] == [
        (None, True),
        (HOUR_MS, True),
        (None, False),
    ]
