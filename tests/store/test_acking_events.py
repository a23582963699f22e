"""Acks up to an event, by its id: the long poll's client names what it has handled."""

import pytest

from shared.store.queues import QueueLimits
from tests.store.stores import OTHER_EDGE, AppendingQueues, Stores, events

FAR = 1_000_000


@pytest.mark.parametrize(("event_id", "left"), [("0", 9), ("4", 5), ("9", 0), ("10", 10), ("", 10)])
async def test_ack_up_to_an_event(stores: Stores, event_id: str, left: int) -> None:
    channel = await stores.channel()
    lease = await stores.claim(channel)
    entries = await stores.queued(channel, 10)

    acked = await stores.queues.ack_until_event(lease, event_id, count=FAR, size_bytes=FAR)

    assert acked == 10 - left
    assert stores.entries(channel) == entries[10 - left :]
    assert await stores.queues.ack_until_event(lease, event_id, count=FAR, size_bytes=FAR) == 0


async def test_search_for_the_event_is_limited_in_count(stores: Stores) -> None:
    channel = await stores.channel()
    lease = await stores.claim(channel)
    await stores.queued(channel, 100)

    assert await stores.queues.ack_until_event(lease, "50", count=50, size_bytes=FAR) == 0
    assert await stores.queues.ack_until_event(lease, "49", count=50, size_bytes=FAR) == 50


async def test_search_for_the_event_is_limited_in_bytes(stores: Stores) -> None:
    queues = AppendingQueues(stores.calls, limits=QueueLimits(size_bytes=FAR * FAR))
    channel = await stores.channel()
    lease = await stores.claim(channel)
    await queues.append(channel, events(*range(100), size_bytes=1000))

    sent = (await queues.read(lease, after="0-0", count=FAR, size_bytes=10_000)).notifications
    assert len(sent) < 100
    assert await queues.ack_until_event(lease, "99", count=FAR, size_bytes=10_000) == 0
    last = sent[-1].event_id
    assert await queues.ack_until_event(lease, last, count=FAR, size_bytes=10_000) == len(sent)


async def test_first_notification_of_a_repeated_event_counts(stores: Stores) -> None:
    """Notifications before the second one may not have been sent."""
    channel = await stores.channel()
    lease = await stores.claim(channel)
    await stores.queues.append(channel, events(1, 2, 3, 1, 2))

    assert await stores.queues.ack_until_event(lease, "2", count=FAR, size_bytes=FAR) == 2
    assert len(stores.entries(channel)) == 3


async def test_only_the_owner_acks(stores: Stores) -> None:
    channel = await stores.channel()
    old = await stores.claim(channel)
    await stores.queued(channel, 3)
    await stores.claim(channel, f"{OTHER_EDGE}/1")

    assert await stores.queues.ack_until_event(old, "1", count=FAR, size_bytes=FAR) is None
    assert len(stores.entries(channel)) == 3
