"""What takes long of webhooks: the largest batches, the largest attempts, and the fullest queues."""

from dataclasses import replace

from shared.model.batch_limits import Lesson
from shared.model.callbacks import Callback
from shared.model.channels import Kind, Lease
from shared.model.deliveries import Delivery, exchange
from shared.model.events import Event
from shared.model.webhooks import Format, WebhookPolicy
from shared.store import keyspace
from shared.store.attempts import Attempts
from shared.store.batches import AfterFailure, Batches, Failure, NoBatch, TakenBatch
from shared.store.due_webhooks import DueWebhooks
from shared.store.parallel_batches import EntryFailure, ParallelBatches
from shared.store.queues import QueueLimits
from shared.store.webhook_notices import WebhookNotices
from shared.store.webhooks import Webhooks
from tests.store.native import create
from tests.store.stores import EDGE, HOUR_MS, NOW_MS, AppendingQueues, Stores, at_time, events

LARGEST = 10_000
DAY_MS = 24 * HOUR_MS
FAR_AHEAD_MS = 10**14
_READ_LOT = 384


def receipted(count: int) -> list[Event]:
    return [event._replace(receipt=True) for event in events(*range(count))]


async def full_channel(stores: Stores, kind: Kind = Kind.WEBSOCKET) -> str:
    """A channel with the notifications of the largest request, each with a receipt."""
    key, _ = await stores.api_key()
    if kind is Kind.WEBHOOK:
        there = Callback("https://example.com/", {})
        await stores.channels.put_webhook(stores.account_id, key.id, there, serialization=b"")
    else:
        await stores.channels.create(stores.account_id, key.id, kind=kind)
    await stores.queues.append(key.id, receipted(LARGEST))
    return key.id


async def _acked(batches: Batches, lease: Lease, until: str, delivery: Delivery) -> int:
    acked = await batches.ack(lease, until=until, delivery=delivery)
    assert acked is not None
    return acked.count


async def batches_of_webhooks(stores: Stores) -> None:
    batches = Batches(stores.calls, limits=QueueLimits())
    with_receipts, without = [await full_channel(stores, Kind.WEBHOOK) for _ in range(2)]
    delivery = Delivery(at_ms=NOW_MS, webhook_id="msg_1", count=1, status=500, error="", took_ms=5)
    await AppendingQueues(at_time(stores, FAR_AHEAD_MS)).drop_expired(without)
    await stores.queues.append(without, events(*range(LARGEST)))
    for channel, size in ((with_receipts, 128), (without, _READ_LOT)):
        lease = await stores.leases.claim_unheld(channel, owner=f"{EDGE}/1")
        for _ in range(2):
            taken = await batches.take(lease, count=LARGEST, size_bytes=10**9)
            assert isinstance(taken, TakenBatch)
            assert len(taken.notifications) == size
            last = taken.notifications[-1].entry_id
            assert await _acked(batches, lease, last, delivery) == size
        # A crash of Redis has brought back what was acked.
        everything = stores.entries(channel)[-1]
        pending = len(stores.entries(channel))
        assert await _acked(batches, lease, everything, delivery) == pending
        assert stores.entries(channel) == []

    webhook = await full_channel(stores, Kind.WEBHOOK)
    [due] = [each async for page in DueWebhooks(stores.calls, instance=EDGE).pages() for each in page]
    assert due.channel == webhook
    await Webhooks(stores.calls, stores.wakeups).retry_now(webhook)
    lease = await stores.leases.claim_unheld(webhook, owner=f"{EDGE}/1")
    taken = await batches.take(lease, count=LARGEST, size_bytes=10**9)
    assert isinstance(taken, TakenBatch)
    [first, *_] = stores.entries(webhook)
    lesson = Lesson(1, 1, "msg_1", refused_entry=first, refused_times=3)
    for expiry_ms, expected in ((DAY_MS, AfterFailure.DROPPED), (0, AfterFailure.ENDED)):
        lease = await stores.leases.claim_unheld(webhook, owner=f"{EDGE}/1")
        status, lost = await batches.fail(
            lease, taken=taken, delivery=delivery, backoff_ms=0, expiry_ms=expiry_ms, lesson=lesson
        )
        assert status is expected
    assert lost == LARGEST - 1


async def attempts_of_webhooks(stores: Stores) -> None:
    """The largest ones, of which a step drops as many as it may: the oldest were small, or are too old."""
    channel = await full_channel(stores, Kind.WEBHOOK)
    small = Delivery(NOW_MS, "msg_1", 1, 200, "", 5)
    large = replace(small, exchange=exchange({"a": "b" * 4000}, b"\xff" * 5000, b"\xff" * 2048))
    at = stores.now_ms()
    for ahead_ms in (0, 0, DAY_MS, 9 * DAY_MS):
        limits = QueueLimits(lifetime_ms=100 * DAY_MS)
        batches = Batches(at_time(stores, at + ahead_ms), limits=limits)
        lease = await stores.leases.claim_unheld(channel, owner=f"{EDGE}/1")
        for _ in range(100):
            delivery = large if ahead_ms == DAY_MS else small
            await batches.ack(lease, until="1-1", delivery=delivery)
        taken = await batches.take(lease, count=LARGEST, size_bytes=10**9)
        assert isinstance(taken, TakenBatch)
        last = taken.notifications[-1].entry_id
        if ahead_ms == DAY_MS:
            await batches.fail(lease, taken=taken, delivery=large, backoff_ms=0, expiry_ms=DAY_MS)
        else:
            assert await batches.ack(lease, until=last, delivery=large)
        for event_id in ("", "none"):
            await Attempts(at_time(stores, at + ahead_ms)).page(channel, event_id=event_id)


async def native_webhooks(stores: Stores) -> None:
    batches = Batches(stores.calls, limits=QueueLimits())
    policy = WebhookPolicy(
        format=Format.PELION, max_batch=384, max_body_bytes=2**20, rate_per_s=1000, give_up_after_s=0
    )
    delivery = Delivery(at_ms=NOW_MS, webhook_id="msg_1", count=1, status=500, error="", took_ms=5)
    notices = WebhookNotices(stores.calls)
    for appended, size in ((receipted(LARGEST), 128), (events(*range(LARGEST)), _READ_LOT)):
        channel = await create(stores, kind=Kind.WEBHOOK, policy=policy)
        await stores.queues.append(channel, appended)
        for is_gone, expected in ((False, AfterFailure.EXHAUSTED), (True, AfterFailure.DISABLED)):
            lease = await stores.leases.claim_unheld(channel, owner=f"{EDGE}/1")
            taken = await batches.take(lease, count=LARGEST, size_bytes=10**9)
            assert isinstance(taken, TakenBatch)
            assert len(taken.notifications) == size
            first, last = taken.notifications[0].entry_id, taken.notifications[-1].entry_id
            failure = Failure(is_gone=is_gone, backoff_after_ms=0, first=first, last=last, notice="{}")
            after = await batches.fail_native(
                lease, taken=taken, delivery=delivery, backoff_ms=0, failure=failure
            )
            assert after.result is expected
        found = await stores.account_channels.read(channel)
        assert found is not None
        assert found.dropped == size
        await stores.account_channels.change_webhook(found, lambda _: (Callback("https://x.test"), policy))
        kept = await notices.read(channel)
        assert kept is not None
        await notices.remove(channel, kept)
        await stores.account_channels.resume(channel)


async def parallel_webhooks(stores: Stores) -> None:
    """A new owner that finds as many requests as there may be, and more retries that are due all at once."""
    policy = WebhookPolicy(max_in_flight=100, give_up_after_s=0)
    batches = ParallelBatches(stores.calls, limits=QueueLimits())
    channel = await create(stores, kind=Kind.WEBHOOK, policy=policy)
    await stores.queues.append(channel, receipted(LARGEST))
    delivery = Delivery(at_ms=NOW_MS, webhook_id="msg_1", count=1, status=500, error="", took_ms=5)
    entries, name = stores.entries(channel), keyspace.taken(channel)
    stores.direct.hset(keyspace.channel(channel), mapping={"taken_until": entries[999], "hurry": 1})
    under_way = {f"{entry} 0 0 0 0": 9e15 for entry in entries[:100]}
    waiting = {f"{entry} 1 1 0 1": FAR_AHEAD_MS for entry in entries[100:1000]}
    stores.direct.zadd(name, {**under_way, **waiting})
    lease = await stores.leases.claim_unheld(channel, owner=f"{EDGE}/1")
    taken = []
    for is_fresh in (True, False):
        found = await batches.take(lease, count=100, retries=100, size_bytes=10**9, is_fresh=is_fresh)
        assert isinstance(found, list)
        assert len(found) == 100
        taken += found
    for is_gone, expected in ((False, AfterFailure.EXHAUSTED), (True, AfterFailure.DISABLED)):
        failure = EntryFailure(is_gone=is_gone, asked_ms=1, hold_ms=1, notice="{}")
        after = await batches.fail(
            lease, taken.pop(), delivery=delivery, backoff_ms=0, failure=failure, lesson=Lesson()
        )
        assert after.result is expected
    assert await batches.ack(lease, taken.pop(), delivery=delivery) == 1
    [due] = [each async for page in DueWebhooks(stores.calls, instance=EDGE).pages() for each in page]
    assert not due.is_due
    await stores.account_channels.resume(channel)
    assert await Webhooks(stores.calls, stores.wakeups).retry_now(channel)
    [due] = [each async for page in DueWebhooks(stores.calls, instance=EDGE).pages() for each in page]
    assert due.is_due
    later = ParallelBatches(at_time(stores, FAR_AHEAD_MS), limits=QueueLimits())
    assert await later.take(lease, count=100, retries=100, size_bytes=10**9, is_fresh=True) is NoBatch.EMPTY
