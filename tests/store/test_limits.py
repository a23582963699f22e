"""Limits of a queue: bytes and lifetime. The oldest are dropped first, and counted."""

from shared.model.channels import ChannelState
from shared.store import keyspace
from shared.store.queues import QueueLimits
from tests.harness.waiting import wait_until
from tests.store.stores import AppendingQueues, Stores, at_time, events, ids

HOUR_MS = 3600 * 1000
# An event without data: its topic, two quotes, and what Redis spends.
SMALL_BYTES = 6 + 2 + 220


async def state(stores: Stores, channel: str) -> ChannelState:
    found = await stores.channels.state(channel)
    assert found is not None
    return found


async def test_oldest_above_the_limit_are_dropped_and_counted(stores: Stores) -> None:
    channel = await stores.channel()
    lease = await stores.claim(channel)
    # Each counts 102 bytes of data, 6 of its topic, and 220 for what Redis spends.
    queues = AppendingQueues(stores.calls, limits=QueueLimits(size_bytes=10 * 328))

    for number in range(25):
        await queues.append(channel, events(number, size_bytes=100))

    assert ids(await stores.pending(lease)) == [str(number) for number in range(15, 25)]
    assert (await state(stores, channel)).dropped == 15
    assert (await state(stores, channel)).pending == 10


async def test_one_append_above_the_limit_keeps_its_end(stores: Stores) -> None:
    channel = await stores.channel()
    lease = await stores.claim(channel)
    queues = AppendingQueues(stores.calls, limits=QueueLimits(size_bytes=10 * 328))

    await queues.append(channel, events(*range(100), size_bytes=100))

    await wait_until(lambda: len(stores.entries(channel)) == 10)
    assert ids(await stores.pending(lease)) == [str(number) for number in range(90, 100)]
    assert (await state(stores, channel)).dropped == 90


async def test_acked_notifications_do_not_count_toward_the_limit(stores: Stores) -> None:
    channel = await stores.channel()
    lease = await stores.claim(channel)
    queues = AppendingQueues(stores.calls, limits=QueueLimits(size_bytes=10 * 328))

    for first in range(0, 100, 8):
        await queues.append(channel, events(*range(first, first + 8), size_bytes=100))
        await queues.ack_until(lease, until=stores.entries(channel)[-1])

    assert (await state(stores, channel)).dropped == 0


async def test_limit_is_exact(stores: Stores) -> None:
    channel = await stores.channel()
    queues = AppendingQueues(stores.calls, limits=QueueLimits(size_bytes=10 * 328))

    await queues.append(channel, events(*range(10), size_bytes=100))
    assert (await state(stores, channel)).dropped == 0
    await queues.append(channel, events(10, size_bytes=100))
    assert (await state(stores, channel)).dropped == 1


async def test_limit_is_exact_after_acks(stores: Stores) -> None:
    """The bound from before the acks is too low; the queue itself decides."""
    channel = await stores.channel()
    lease = await stores.claim(channel)
    queues = AppendingQueues(stores.calls, limits=QueueLimits(size_bytes=10 * 328))
    await queues.append(channel, events(*range(10), size_bytes=100))
    await queues.ack_until(lease, until=stores.entries(channel)[3])

    await queues.append(channel, events(10, 11, 12, 13, size_bytes=100))
    assert (await state(stores, channel)).dropped == 0
    await queues.append(channel, events(14, size_bytes=100))

    assert (await state(stores, channel)).dropped == 1
    assert ids(await stores.pending(lease)) == [str(number) for number in range(5, 15)]


async def test_entry_that_was_removed_otherwise_does_not_count_toward_the_limit(stores: Stores) -> None:
    channel = await stores.channel()
    queues = AppendingQueues(stores.calls, limits=QueueLimits(size_bytes=10 * 328))
    await queues.append(channel, events(*range(10), size_bytes=100))
    stores.direct.xdel(keyspace.queue(channel), *stores.entries(channel)[:5])

    await queues.append(channel, events(*range(10, 15), size_bytes=100))

    assert (await state(stores, channel)).dropped == 0


async def test_notification_above_the_limit_by_itself_is_dropped(stores: Stores) -> None:
    channel = await stores.channel()
    queues = AppendingQueues(stores.calls, limits=QueueLimits(size_bytes=328))

    await queues.append(channel, events(0, 1, size_bytes=200))
    assert stores.entries(channel) == []
    await queues.append(channel, events(2, size_bytes=100))

    assert len(stores.entries(channel)) == 1
    assert (await state(stores, channel)).dropped == 2


def an_hour(stores: Stores, *, hours: int) -> AppendingQueues:
    """Queues with a lifetime of an hour, by a Redis whose clock says so."""
    return AppendingQueues(at_time(stores, hours * HOUR_MS), limits=QueueLimits(lifetime_ms=HOUR_MS))


async def test_append_makes_the_store_drop_what_is_too_old(stores: Stores) -> None:
    channel = await stores.channel()
    stores.put_at(channel, f"{1 * HOUR_MS}-0", f"{2 * HOUR_MS}-0", f"{3 * HOUR_MS}-0")

    await an_hour(stores, hours=3).append(channel, events(1))

    await wait_until(lambda: len(stores.entries(channel)) == 3)
    assert stores.entries(channel)[:2] == [f"{2 * HOUR_MS}-0", f"{3 * HOUR_MS}-0"]
    assert (await state(stores, channel)).dropped == 1


async def test_read_drops_what_is_too_old(stores: Stores) -> None:
    channel = await stores.channel()
    lease = await stores.claim(channel)
    stores.put_at(channel, f"{1 * HOUR_MS}-0", f"{3 * HOUR_MS}-0")

    batch = await an_hour(stores, hours=3).read(lease, after="0-0", count=10, size_bytes=1000)

    assert [n.entry_id for n in batch.notifications] == [f"{3 * HOUR_MS}-0"]
    assert (await state(stores, channel)).dropped == 1


async def test_drop_expired_drops_from_an_untouched_queue(stores: Stores) -> None:
    channel = await stores.channel()
    stores.put_at(channel, f"{1 * HOUR_MS}-0", f"{2 * HOUR_MS}-0")
    queues = an_hour(stores, hours=10)

    assert (await queues.drop_expired(channel)).dropped == 2
    assert (await queues.drop_expired(channel)).dropped == 0

    assert stores.entries(channel) == []
    assert (await state(stores, channel)).dropped == 2


async def test_drop_expired_does_not_create_a_channel(stores: Stores) -> None:
    channel = await stores.channel()
    await stores.delete_channel(channel)
    stores.direct.xadd(keyspace.queue(channel), {"id": "e"}, id=f"{HOUR_MS}-0")

    await an_hour(stores, hours=1000).drop_expired(channel)

    assert not stores.direct.exists(keyspace.channel(channel))
    stores.direct.delete(keyspace.queue(channel))


async def test_everything_too_old_goes_in_lots_before_a_read_gives_out_the_rest(stores: Stores) -> None:
    channel = await stores.channel()
    lease = await stores.claim(channel)
    stores.put_at(channel, *(f"{HOUR_MS}-{n}" for n in range(1000)), f"{3 * HOUR_MS}-0")

    batch = await an_hour(stores, hours=3).read(lease, after="0-0", count=10, size_bytes=1000)

    assert [n.entry_id for n in batch.notifications] == [f"{3 * HOUR_MS}-0"]
    assert (await state(stores, channel)).dropped == 1000


async def test_a_large_event_makes_the_store_drop_many_small_ones(stores: Stores) -> None:
    channel = await stores.channel()
    queues = AppendingQueues(stores.calls, limits=QueueLimits(size_bytes=250_000))
    await queues.append(channel, events(*range(1000)))
    assert (await state(stores, channel)).dropped == 0

    await queues.append(channel, events(1000, size_bytes=200_000))

    await wait_until(lambda: pending_bytes(stores, channel) <= 250_000)
    left = len(stores.entries(channel))
    assert (await state(stores, channel)).dropped == 1001 - left
    assert pending_bytes(stores, channel) + SMALL_BYTES > 250_000, "no more than necessary"


def pending_bytes(stores: Stores, channel: str) -> int:
    entries = stores.direct.xrange(keyspace.queue(channel))
    return int(entries[-1][1][b"total"]) - int(entries[0][1][b"total"]) + SMALL_BYTES
