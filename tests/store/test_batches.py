"""Batches of webhooks: taken, acked, failed, and found by the sweep."""

import pytest

from shared.model.callbacks import Callback
from shared.model.channels import CloseReason, Kind, Lease
from shared.model.deliveries import Delivery
from shared.model.errors import NoLongerOwner
from shared.store import keyspace
from shared.store.batches import Acked, AfterFailure, Batches, NoBatch, TakenBatch
from shared.store.due_webhooks import DueWebhook, DueWebhooks
from shared.store.queues import QueueLimits
from shared.store.replicas import Heartbeat
from shared.store.webhooks import Webhooks
from shared.wire.pelion.serialization import SerializationWanted, stored_form
from tests.store.recorded import recorded
from tests.store.stores import EDGE, NOW_MS, OTHER_EDGE, RedisClock, Stores, events, ids

CALLBACK = Callback("https://example.com/hook", {"X-Origin": "us"})
MANY = 10_000
PLENTY = 10_000_000
EXPIRY_MS = 24 * 3600 * 1000
LIFETIME_MS = 3600 * 1000


@pytest.fixture
def clock(stores: Stores) -> RedisClock:
    return RedisClock(stores.direct)


@pytest.fixture
def batches(stores: Stores, clock: RedisClock) -> Batches:
    return Batches(clock.calls_of(stores), limits=QueueLimits())


@pytest.fixture
async def channel(stores: Stores) -> str:
    """A webhook channel."""
    key, _ = await stores.api_key()
    await stores.signing_secrets.made(key.id, offered="whsec_x")
    await put(stores, key.id)
    return key.id


async def put(stores: Stores, channel: str, callback: Callback = CALLBACK) -> None:
    await stores.channels.put_webhook(stores.account_id, channel, callback, serialization=b"")


async def claim(stores: Stores, channel: str, owner: str = f"{EDGE}/1") -> Lease:
    return await stores.leases.claim_unheld(channel, owner=owner)


async def take(batches: Batches, lease: Lease, *, count: int = MANY, size_bytes: int = PLENTY) -> TakenBatch:
    taken = await batches.take(lease, count=count, size_bytes=size_bytes)
    assert isinstance(taken, TakenBatch)
    return taken


def delivery(status: int = 200) -> Delivery:
    return Delivery(at_ms=NOW_MS, webhook_id="msg_1", count=1, status=status, error="", took_ms=5)


async def fail(
    batches: Batches, lease: Lease, taken: TakenBatch, *, backoff_ms: int
) -> tuple[AfterFailure, int]:
    return await batches.fail(
        lease, taken=taken, delivery=delivery(500), backoff_ms=backoff_ms, expiry_ms=EXPIRY_MS
    )


async def test_batch_has_the_configuration(stores: Stores, batches: Batches, channel: str) -> None:
    await stores.queued(channel, 3)

    taken = await take(batches, await claim(stores, channel))

    assert ids(taken.notifications) == ["0", "1", "2"]
    assert (taken.callback, taken.signing_secrets, taken.failed_attempts) == (CALLBACK, ("whsec_x",), 0)


async def test_empty_queue_has_no_batch(stores: Stores, batches: Batches, channel: str) -> None:
    assert await batches.take(await claim(stores, channel), count=MANY, size_bytes=PLENTY) is NoBatch.EMPTY


async def test_batch_is_limited_in_bytes(stores: Stores, batches: Batches, channel: str) -> None:
    await stores.queues.append(channel, events(*range(50), size_bytes=1000))
    lease = await claim(stores, channel)

    assert len((await take(batches, lease, size_bytes=10_500)).notifications) == 10


async def test_batch_holds_at_least_one_notification(stores: Stores, batches: Batches, channel: str) -> None:
    await stores.queues.append(channel, events(1, 2, size_bytes=1000))

    assert len((await take(batches, await claim(stores, channel), size_bytes=10)).notifications) == 1


async def test_newer_notifications_wait_for_the_next_batch(
    stores: Stores, batches: Batches, channel: str
) -> None:
    await stores.queued(channel, 2)
    await take(batches, await claim(stores, channel))
    await stores.queued(channel, 2)

    again = await take(batches, await claim(stores, channel, f"{OTHER_EDGE}/1"))

    assert ids(again.notifications) == ["0", "1"]
    lease = await claim(stores, channel)
    await batches.ack(lease, until=again.notifications[-1].entry_id, delivery=delivery())
    assert ids((await take(batches, lease)).notifications) == ["2", "3"]


async def test_partial_ack_leaves_the_rest_as_the_next_batch(
    stores: Stores, batches: Batches, channel: str
) -> None:
    await stores.queued(channel, 4)
    lease = await claim(stores, channel)
    taken = await take(batches, lease)
    await stores.queued(channel, 1)

    assert await batches.ack(lease, until=taken.notifications[1].entry_id, delivery=delivery()) == Acked(2)

    assert ids((await take(batches, lease)).notifications) == ["2", "3"]


async def test_only_the_owner_takes_acks_and_fails(stores: Stores, batches: Batches, channel: str) -> None:
    await stores.queued(channel, 1)
    old = await claim(stores, channel)
    taken = await take(batches, old)
    await claim(stores, channel, f"{OTHER_EDGE}/1")

    assert await batches.ack(old, until=taken.notifications[0].entry_id, delivery=delivery()) is None
    assert await fail(batches, old, taken, backoff_ms=0) == (AfterFailure.NOT_OWNER, 0)
    with pytest.raises(NoLongerOwner) as raised:
        await batches.take(old, count=MANY, size_bytes=PLENTY)
    assert raised.value.close_reason is CloseReason.TAKEN_OVER
    assert len(stores.entries(channel)) == 1
    assert recorded(stores.direct, channel) == []


async def test_failed_batch_waits_for_its_next_attempt(
    stores: Stores, batches: Batches, channel: str, clock: RedisClock
) -> None:
    await stores.queued(channel, 1)
    lease = await claim(stores, channel)
    taken = await take(batches, lease)

    assert await fail(batches, lease, taken, backoff_ms=1000) == (AfterFailure.RETRY, NOW_MS + 1000)

    assert stores.owner(channel) is None, "the lease is released"
    lease = await claim(stores, channel)
    assert await batches.take(lease, count=MANY, size_bytes=PLENTY) is NoBatch.NOT_DUE
    clock.ahead_ms = 1000
    again = await take(batches, lease)
    assert (ids(again.notifications), again.failed_attempts) == (["0"], 1)
    [attempt] = recorded(stores.direct, channel)
    assert (attempt["status"], attempt["next_attempt_ms"]) == (500, NOW_MS + 1000)


async def test_ack_ends_the_failing_state(
    stores: Stores, batches: Batches, channel: str, clock: RedisClock
) -> None:
    await stores.queued(channel, 1)
    lease = await claim(stores, channel)
    await fail(batches, lease, await take(batches, lease), backoff_ms=0)
    lease = await claim(stores, channel)
    taken = await take(batches, lease)

    acked = await batches.ack(lease, until=taken.notifications[0].entry_id, delivery=delivery())
    assert acked == Acked(1, is_empty=True)

    assert stores.entries(channel) == []
    record = set(stores.direct.hgetall(keyspace.channel(channel)))
    assert not {b"failed_attempts", b"failing_since_ms", b"next_attempt_ms"} & record
    assert stores.direct.hget(keyspace.channel(channel), "batch_until") == b"0-0", "of no batch"
    assert [attempt["status"] for attempt in recorded(stores.direct, channel)] == [200, 500]


async def test_channel_ends_after_failing_for_the_expiry_time(
    stores: Stores, batches: Batches, channel: str, clock: RedisClock
) -> None:
    await stores.queued(channel, 3)
    lease = await claim(stores, channel)
    await fail(batches, lease, await take(batches, lease), backoff_ms=EXPIRY_MS - 1)
    clock.ahead_ms = EXPIRY_MS - 1
    lease = await claim(stores, channel)
    taken = await take(batches, lease)
    assert (await fail(batches, lease, taken, backoff_ms=1))[0] is AfterFailure.RETRY

    clock.ahead_ms = EXPIRY_MS
    lease = await claim(stores, channel)
    taken = await take(batches, lease)
    assert await fail(batches, lease, taken, backoff_ms=EXPIRY_MS) == (
        AfterFailure.ENDED,
        3,
    )

    assert await stores.channels.state(channel) is None
    assert stores.entries(channel) == []
    assert recorded(stores.direct, channel)[0]["next_attempt_ms"] is None, "the attempts outlive the channel"


async def test_time_without_attempts_does_not_count_as_failing(
    stores: Stores, batches: Batches, channel: str, clock: RedisClock
) -> None:
    """The dispatchers were down for a day, or a clock jumped."""
    await stores.queued(channel, 1)
    lease = await claim(stores, channel)
    await fail(batches, lease, await take(batches, lease), backoff_ms=1000)

    clock.ahead_ms = EXPIRY_MS
    lease = await claim(stores, channel)
    later, _ = await fail(batches, lease, await take(batches, lease), backoff_ms=1000)

    assert later is AfterFailure.RETRY


async def test_failing_state_ends_when_the_queue_expires(
    stores: Stores, channel: str, clock: RedisClock
) -> None:
    batches = Batches(clock.calls_of(stores), limits=QueueLimits(lifetime_ms=LIFETIME_MS))
    [entry] = await stores.queued(channel, 1)
    clock.ahead_ms = int(entry.partition("-")[0]) - NOW_MS
    lease = await claim(stores, channel)
    await fail(batches, lease, await take(batches, lease), backoff_ms=LIFETIME_MS + 1)
    clock.ahead_ms += LIFETIME_MS + 1
    lease = await claim(stores, channel)

    assert await batches.take(lease, count=MANY, size_bytes=PLENTY) is NoBatch.EMPTY

    record = set(stores.direct.hgetall(keyspace.channel(channel)))
    assert not {b"failed_attempts", b"failing_since_ms", b"next_attempt_ms", b"batch_until"} & record


async def test_batch_is_limited_to_the_maximum_chunk_size(stores: Stores, batches: Batches) -> None:
    key, _ = await stores.api_key()
    wanted = stored_form(SerializationWanted("v2", max_chunk_size=100))
    await stores.channels.put_webhook(stores.account_id, key.id, CALLBACK, serialization=wanted)
    await stores.queued(key.id, 250)

    taken = await take(batches, await claim(stores, key.id))

    assert len(taken.notifications) == 100


async def test_expired_api_key_gets_no_batch(
    stores: Stores, batches: Batches, channel: str, clock: RedisClock
) -> None:
    stores.direct.hset(keyspace.api_key(channel), "expires_at_ms", NOW_MS + 1000)
    await stores.queued(channel, 1)
    lease = await claim(stores, channel)
    await fail(batches, lease, await take(batches, lease), backoff_ms=1)

    clock.ahead_ms = 1000
    assert await due_now(stores, clock) == []
    lease = await claim(stores, channel)

    assert await batches.take(lease, count=MANY, size_bytes=PLENTY) is NoBatch.NOT_DUE
    assert len(stores.entries(channel)) == 1


async def test_retry_request_during_an_attempt_makes_the_next_one_due(
    stores: Stores, batches: Batches, channel: str
) -> None:
    await stores.queued(channel, 1)
    lease = await claim(stores, channel)
    taken = await take(batches, lease)

    await Webhooks(stores.calls, stores.wakeups).retry_now(channel)

    assert await fail(batches, lease, taken, backoff_ms=1000) == (
        AfterFailure.CONFIG_CHANGED,
        0,
    )
    assert (await take(batches, await claim(stores, channel))).notifications == taken.notifications


async def test_failure_under_an_older_configuration_does_not_delay_the_new_one(
    stores: Stores, batches: Batches, channel: str
) -> None:
    await stores.queued(channel, 1)
    lease = await claim(stores, channel)
    taken = await take(batches, lease)
    elsewhere = Callback("https://example.org/", {})
    await put(stores, channel, elsewhere)

    assert await fail(batches, lease, taken, backoff_ms=1000) == (
        AfterFailure.CONFIG_CHANGED,
        0,
    )

    again = await take(batches, await claim(stores, channel))
    assert (again.callback, again.failed_attempts) == (elsewhere, 0)


async def test_ack_after_a_crash_of_redis_keeps_newer_notifications(
    stores: Stores, batches: Batches, channel: str
) -> None:
    """Redis lost the batch; entries appended since may have lower ids."""
    await stores.queued(channel, 1)
    lease = await claim(stores, channel)
    taken = await take(batches, lease)
    last = taken.notifications[-1].entry_id
    stores.lose_all_but(channel)
    stores.put_at(channel, f"{int(last.partition('-')[0]) - 5}-0")

    assert await batches.ack(lease, until=last, delivery=delivery()) == Acked(0)

    assert ids((await take(batches, lease)).notifications) == ["e"]


async def test_take_raises_after_deletion_and_revocation(stores: Stores, batches: Batches) -> None:
    key, _ = await stores.api_key()
    await put(stores, key.id)
    lease = await claim(stores, key.id)
    await stores.channels.delete(stores.account_id, key.id, kind=Kind.WEBHOOK)
    with pytest.raises(NoLongerOwner) as raised:
        await batches.take(lease, count=MANY, size_bytes=PLENTY)
    assert raised.value.close_reason is CloseReason.CHANNEL_DELETED

    await stores.api_keys.revoke(key)
    with pytest.raises(NoLongerOwner) as raised:
        await batches.take(lease, count=MANY, size_bytes=PLENTY)
    assert raised.value.close_reason is CloseReason.KEY_REVOKED


async def due_now(stores: Stores, clock: RedisClock) -> list[DueWebhook]:
    due = DueWebhooks(clock.calls_of(stores), instance=EDGE)
    return [found async for page in due.pages() for found in page if not found.is_held]


async def due_since_ms(stores: Stores, clock: RedisClock) -> list[int]:
    due = DueWebhooks(clock.calls_of(stores), instance=EDGE)
    return [found.since_ms async for page in due.pages() for found in page]


async def test_sweep_finds_due_webhooks_without_a_live_owner(
    stores: Stores, batches: Batches, channel: str, clock: RedisClock
) -> None:
    assert await due_now(stores, clock) == [], "nothing is pending"
    [entry] = await stores.queued(channel, 1)
    queued_ms = int(entry.partition("-")[0])
    assert await due_now(stores, clock) == [DueWebhook(channel, 0, queued_ms, is_held=False)]

    lease = await claim(stores, channel, f"{OTHER_EDGE}/1")
    assert [due.channel for due in await due_now(stores, clock)] == [channel], "the owner is dead"
    await Heartbeat(stores.calls, instance=OTHER_EDGE, ttl_ms=60_000).beat()
    assert await due_now(stores, clock) == [], "the owner is live"

    await fail(batches, lease, await take(batches, lease), backoff_ms=1000)
    assert await due_now(stores, clock) == [], "the backoff is not over"
    clock.ahead_ms = 1000
    assert [due.failed_attempts for due in await due_now(stores, clock)] == [1]


async def test_due_time_is_the_latest_of_queued_next_attempt_and_last_ack(
    stores: Stores, batches: Batches, channel: str, clock: RedisClock
) -> None:
    """Waiting for a slow receiver or for a backoff is no delay of the dispatchers."""
    first, second = await stores.queued(channel, 2)
    later_ms = int(second.partition("-")[0]) + 60_000
    lease = await claim(stores, channel)
    assert await due_since_ms(stores, clock) == [int(first.partition("-")[0])]

    await fail(batches, lease, await take(batches, lease), backoff_ms=later_ms - clock())
    clock.ahead_ms = later_ms - NOW_MS + 7
    assert await due_since_ms(stores, clock) == [later_ms]

    lease = await claim(stores, channel, f"{EDGE}/2")
    await take(batches, lease)
    await batches.ack(lease, until=first, delivery=delivery())
    acked_ms = int(stores.direct.hget(keyspace.channel(channel), "acked_ms"))
    assert acked_ms >= int(second.partition("-")[0])
    assert await due_since_ms(stores, clock) == [acked_ms]


async def test_sweep_removes_index_entries_of_older_generations(
    stores: Stores, channel: str, clock: RedisClock
) -> None:
    stores.direct.sadd(keyspace.WEBHOOKS, f"{channel}:{'0' * 16}")

    await due_now(stores, clock)

    generation = (await stores.channels.ref(channel)).generation
    assert stores.direct.smembers(keyspace.WEBHOOKS) == {f"{channel}:{generation}".encode()}
