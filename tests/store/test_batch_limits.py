"""The size of a webhook's batches, as its channel's record keeps it."""

import pytest

from shared.model.batch_limits import BatchLimits, Lesson
from shared.model.callbacks import Callback
from shared.model.channels import Kind, Lease
from shared.store import keyspace
from shared.store.batches import AfterFailure, Batches, NoBatch, TakenBatch
from shared.store.queues import QueueLimits
from shared.store.webhooks import Webhooks
from tests.store.recorded import recorded
from tests.store.stores import EDGE, HOUR_MS, OTHER_EDGE, RedisClock, Stores, events, ids
from tests.store.test_batches import EXPIRY_MS, PLENTY, claim, delivery, put

LEARNED = {
    b"body_limit_bytes",
    b"body_limit_until_ms",
    b"batch_limit",
    b"grows_from_ms",
    b"timed_out",
    b"refused_entry",
    b"refused_times",
}
DAY_MS = 24 * HOUR_MS
MINUTE_MS = 60 * 1000


@pytest.fixture
def clock(stores: Stores) -> RedisClock:
    return RedisClock(stores.direct)


@pytest.fixture
def batches(stores: Stores, clock: RedisClock) -> Batches:
    return Batches(clock.calls_of(stores), limits=QueueLimits())


@pytest.fixture
async def channel(stores: Stores) -> str:
    """A webhook channel with ten notifications of 1,000 bytes."""
    key, _ = await stores.api_key()
    await put(stores, key.id)
    await stores.queues.append(key.id, events(*range(10), size_bytes=1000))
    return key.id


async def taken_from(batches: Batches, lease: Lease) -> TakenBatch:
    taken = await batches.take(lease, count=384, size_bytes=PLENTY)
    assert isinstance(taken, TakenBatch)
    return taken


async def fail(
    stores: Stores, batches: Batches, channel: str, lesson: Lesson, *, owner: str = f"{EDGE}/1"
) -> tuple[AfterFailure, int]:
    lease = await claim(stores, channel, owner)
    return await batches.fail(
        lease,
        taken=await taken_from(batches, lease),
        delivery=delivery(413),
        backoff_ms=0,
        expiry_ms=EXPIRY_MS,
        lesson=lesson,
    )


async def take(stores: Stores, batches: Batches, channel: str, owner: str = f"{EDGE}/1") -> TakenBatch:
    return await taken_from(batches, await claim(stores, channel, owner))


async def ack(
    stores: Stores, batches: Batches, channel: str, count: int, *, batch_limit: int | None = None
) -> None:
    lease = await claim(stores, channel)
    until = (await taken_from(batches, lease)).notifications[count - 1].entry_id
    acked = await batches.ack(lease, until=until, delivery=delivery(), batch_limit=batch_limit)
    assert acked is not None
    assert acked.count == count
    await stores.leases.release(lease)


def record(stores: Stores, channel: str) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = stores.direct.hgetall(keyspace.channel(channel))
    return found


def learned(stores: Stores, channel: str) -> set[bytes]:
    return LEARNED & set(record(stores, channel))


@pytest.mark.parametrize(
    ("lesson", "count"), [(Lesson(body_limit_bytes=5100), 5), (Lesson(batch_limit=3), 3)]
)
async def test_any_dispatcher_takes_the_smaller_batch(
    stores: Stores, batches: Batches, channel: str, lesson: Lesson, count: int
) -> None:
    """The step that records the failure has written all: the dispatcher may die right after it."""
    assert len((await take(stores, batches, channel)).notifications) == 10
    assert (await fail(stores, batches, channel, lesson))[0] is AfterFailure.RETRY

    again = await take(stores, batches, channel, f"{OTHER_EDGE}/1")

    assert ids(again.notifications) == [str(n) for n in range(count)]
    assert again.limits == BatchLimits(
        body_limit_bytes=lesson.body_limit_bytes, batch_limit=lesson.batch_limit
    )
    assert again.failed_attempts == 1


async def test_a_smaller_batch_is_the_same_at_its_retry(
    stores: Stores, batches: Batches, channel: str
) -> None:
    await fail(stores, batches, channel, Lesson(batch_limit=3))
    await fail(stores, batches, channel, Lesson())
    await stores.queued(channel, 3)

    assert ids((await take(stores, batches, channel)).notifications) == ["0", "1", "2"]


async def test_later_batches_keep_to_the_limit_of_bytes_for_a_day(
    stores: Stores, batches: Batches, channel: str, clock: RedisClock
) -> None:
    await fail(stores, batches, channel, Lesson(body_limit_bytes=2100))
    await ack(stores, batches, channel, 2)
    clock.ahead_ms = DAY_MS - 1
    assert len((await take(stores, batches, channel)).notifications) == 2

    # A batch that is to be retried does not grow.
    clock.ahead_ms = DAY_MS
    assert len((await take(stores, batches, channel)).notifications) == 2
    await ack(stores, batches, channel, 2)
    assert len((await take(stores, batches, channel)).notifications) == 6
    assert learned(stores, channel) == set()


async def test_each_413_begins_the_day_again(
    stores: Stores, batches: Batches, channel: str, clock: RedisClock
) -> None:
    await fail(stores, batches, channel, Lesson(body_limit_bytes=5100))
    clock.ahead_ms = DAY_MS - 1
    await fail(stores, batches, channel, Lesson(body_limit_bytes=2100))
    await ack(stores, batches, channel, 2)

    clock.ahead_ms = DAY_MS
    assert len((await take(stores, batches, channel)).notifications) == 2


@pytest.mark.parametrize("as_before", [True, False])
async def test_a_webhook_that_is_put_forgets_all_limits(
    stores: Stores, batches: Batches, channel: str, as_before: bool
) -> None:
    await fail(stores, batches, channel, Lesson(batch_limit=8))
    await ack(stores, batches, channel, 1, batch_limit=6)
    await fail(stores, batches, channel, Lesson(batch_limit=3, body_limit_bytes=5000))
    await fail(stores, batches, channel, Lesson(timed_out="msg_1", refused_entry="1-0", refused_times=1))
    assert learned(stores, channel) == LEARNED

    await put(stores, channel) if as_before else await put(stores, channel, Callback("https://example.org/"))

    assert learned(stores, channel) == set()
    # The batch that failed comes first, as it was.
    await ack(stores, batches, channel, 3)
    assert len((await take(stores, batches, channel)).notifications) == 6


async def test_a_socket_keeps_what_its_client_refused(stores: Stores) -> None:
    channel = await stores.channel()
    lease = await stores.claim(channel)
    [entry] = await stores.queued(channel, 1)
    await stores.queues.refuse(lease, frame_limit_bytes=1024, until=entry, single_entry=entry)
    before = record(stores, channel)

    await stores.channels.create(
        stores.account_id, channel, kind=Kind.WEBSOCKET, serialization=b'{"max_chunk_size":10000}'
    )

    assert before.items() <= record(stores, channel).items()


async def test_a_failure_under_an_older_configuration_teaches_nothing(
    stores: Stores, batches: Batches, channel: str
) -> None:
    lease = await claim(stores, channel)
    taken = await taken_from(batches, lease)
    await put(stores, channel)
    [first, *_] = stores.entries(channel)

    result, _ = await batches.fail(
        lease,
        taken=taken,
        delivery=delivery(413),
        backoff_ms=0,
        expiry_ms=EXPIRY_MS,
        lesson=Lesson(body_limit_bytes=1, batch_limit=1, refused_entry=first, refused_times=3),
    )

    assert result is AfterFailure.CONFIG_CHANGED
    assert learned(stores, channel) == set()
    assert len(stores.entries(channel)) == 10


async def test_a_retry_that_is_requested_keeps_the_limits(
    stores: Stores, batches: Batches, channel: str
) -> None:
    await fail(stores, batches, channel, Lesson(batch_limit=3))

    await Webhooks(stores.calls, stores.wakeups).retry_now(channel)

    assert len((await take(stores, batches, channel)).notifications) == 3


async def test_the_limit_of_the_number_grows_until_it_is_gone(
    stores: Stores, batches: Batches, channel: str
) -> None:
    await fail(stores, batches, channel, Lesson(batch_limit=1))
    await ack(stores, batches, channel, 1, batch_limit=2)
    assert len((await take(stores, batches, channel)).notifications) == 2
    await ack(stores, batches, channel, 2, batch_limit=0)
    assert len((await take(stores, batches, channel)).notifications) == 7
    await ack(stores, batches, channel, 7)

    assert learned(stores, channel) == set()


async def test_a_size_that_timed_out_is_not_tried_again_for_minutes(
    stores: Stores, batches: Batches, channel: str, clock: RedisClock
) -> None:
    await fail(stores, batches, channel, Lesson(batch_limit=2))
    await ack(stores, batches, channel, 2, batch_limit=4)
    await fail(stores, batches, channel, Lesson(batch_limit=2))

    for _ in range(2):
        await ack(stores, batches, channel, 2, batch_limit=4)
        assert len((await take(stores, batches, channel)).notifications) == 2
    clock.ahead_ms = 5 * MINUTE_MS
    await ack(stores, batches, channel, 2, batch_limit=4)
    await stores.queued(channel, 10)
    assert len((await take(stores, batches, channel)).notifications) == 4


async def test_a_slow_time_after_a_size_was_accepted_holds_nothing_back(
    stores: Stores, batches: Batches, channel: str
) -> None:
    await fail(stores, batches, channel, Lesson(batch_limit=2))
    await ack(stores, batches, channel, 2, batch_limit=4)
    # Too slow to grow further.
    await ack(stores, batches, channel, 4)
    await fail(stores, batches, channel, Lesson(batch_limit=1))

    await ack(stores, batches, channel, 1, batch_limit=2)

    assert len((await take(stores, batches, channel)).notifications) == 2


async def test_a_success_or_an_empty_queue_ends_what_is_counted_in_a_row(
    stores: Stores, batches: Batches, channel: str, clock: RedisClock
) -> None:
    counted = Lesson(timed_out="msg_1", refused_entry="1-0", refused_times=2)
    await fail(stores, batches, channel, counted)
    await ack(stores, batches, channel, 5)
    assert learned(stores, channel) == set()

    await fail(stores, batches, channel, counted)
    stores.direct.xtrim(keyspace.queue(channel), maxlen=0)
    assert await batches.take(await claim(stores, channel), count=1, size_bytes=1) is NoBatch.EMPTY
    assert learned(stores, channel) == set()


async def test_any_other_failure_ends_the_row_of_time_outs_and_keeps_the_refusals(
    stores: Stores, batches: Batches, channel: str
) -> None:
    await fail(stores, batches, channel, Lesson(timed_out="msg_1", refused_entry="1-0", refused_times=2))
    await fail(stores, batches, channel, Lesson())

    limits = (await take(stores, batches, channel)).limits
    assert limits == BatchLimits(refused_entry="1-0", refused_times=2)


async def test_a_notification_that_was_refused_three_times_is_dropped(
    stores: Stores, batches: Batches, channel: str, clock: RedisClock
) -> None:
    await stores.queues.append(channel, [event._replace(receipt=True) for event in events(10)])
    before = stores.entries(channel)
    await ack(stores, batches, channel, 10)
    await stores.queues.append(channel, [event._replace(receipt=True) for event in events(11)])
    [refused, behind] = stores.entries(channel)
    assert refused == before[-1]

    for times in (1, 2):
        lesson = Lesson(refused_entry=refused, refused_times=times)
        assert (await fail(stores, batches, channel, lesson))[0] is AfterFailure.RETRY
    clock.ahead_ms = 7
    failing_since = record(stores, channel)[b"failing_since_ms"]
    result, next_ms = await fail(stores, batches, channel, Lesson(refused_entry=refused, refused_times=3))

    assert (result, next_ms) == (AfterFailure.DROPPED, clock())
    assert stores.entries(channel) == [behind]
    after = record(stores, channel)
    assert after[b"dropped"] == b"1"
    assert after[b"failing_since_ms"] == failing_since, "a drop is no success"
    receipts = [stores.direct.hgetall(keyspace.receipt(channel, each)) for each in ("10", "11")]
    assert receipts[0][b"reason"] == b"too-long-for-webhook"
    assert {b"dropped", b"reason"}.isdisjoint(receipts[1])
    assert stores.direct.xlen(keyspace.receipts(channel)) == 1
    assert recorded(stores.direct, channel)[0]["status"] == 413
    assert ids((await take(stores, batches, channel)).notifications) == ["11"]


async def test_a_notification_that_is_gone_already_is_not_counted_as_dropped(
    stores: Stores, batches: Batches, channel: str
) -> None:
    lease = await claim(stores, channel)
    taken = await taken_from(batches, lease)
    first = stores.entries(channel)[0]
    stores.direct.xdel(keyspace.queue(channel), first)

    result, _ = await batches.fail(
        lease,
        taken=taken,
        delivery=delivery(413),
        backoff_ms=0,
        expiry_ms=EXPIRY_MS,
        lesson=Lesson(refused_entry=first, refused_times=3),
    )

    assert result is AfterFailure.RETRY
    assert b"dropped" not in record(stores, channel)


async def test_a_webhook_that_has_failed_for_its_expiry_ends_at_a_413_too(
    stores: Stores, batches: Batches, channel: str, clock: RedisClock
) -> None:
    for ahead_ms in (0, EXPIRY_MS // 2, EXPIRY_MS):
        clock.ahead_ms = ahead_ms
        result, _ = await fail(stores, batches, channel, Lesson(body_limit_bytes=5100))

    assert result is AfterFailure.ENDED
    assert await stores.channels.state(channel) is None
