"""A client that says itself what it has handled: acking up to an event, by its id."""

import pytest

from shared.store.queues import QueueLimits, Queues
from tests.store.stores import OTHER_EDGE, Stores, events

FAR = 1_000_000


@pytest.mark.parametrize(("event_id", "left"), [("0", 9), ("4", 5), ("9", 0), ("10", 10), ("", 10)])
async def test_everything_up_to_the_event_goes(stores: Stores, event_id: str, left: int) -> None:
    channel = await stores.channel()
    lease = await stores.claim(channel)
    entries = await stores.queued(channel, 10)

    gone = await stores.queues.ack_until_event(lease, event_id, count=FAR, size_bytes=FAR)

    assert gone == 10 - left
    assert stores.entries(channel) == entries[10 - left :]
    assert await stores.queues.ack_until_event(lease, event_id, count=FAR, size_bytes=FAR) == 0


async def test_only_the_front_is_looked_at(stores: Stores) -> None:
    channel = await stores.channel()
    lease = await stores.claim(channel)
    await stores.queued(channel, 100)

    assert await stores.queues.ack_until_event(lease, "50", count=50, size_bytes=FAR) == 0
    assert await stores.queues.ack_until_event(lease, "49", count=50, size_bytes=FAR) == 50


async def test_it_looks_as_far_as_one_look_could_send(stores: Stores) -> None:
    queues = Queues(stores.calls, limits=QueueLimits(size_bytes=FAR * FAR))
    channel = await stores.channel()
    lease = await stores.claim(channel)
    await queues.append(channel, events(*range(100), size_bytes=1000))

    sent = (await queues.read(lease, after="0-0", count=FAR, size_bytes=10_000)).notifications
    assert len(sent) < 100
    assert await queues.ack_until_event(lease, "99", count=FAR, size_bytes=10_000) == 0
    last = sent[-1].event_id
    assert await queues.ack_until_event(lease, last, count=FAR, size_bytes=10_000) == len(sent)


async def test_of_a_repeated_event_the_first_place_counts(stores: Stores) -> None:
    """What stands before the second one may never have been sent."""
    channel = await stores.channel()
    lease = await stores.claim(channel)
    await stores.queues.append(channel, events(1, 2, 3, 1, 2))

    assert await stores.queues.ack_until_event(lease, "2", count=FAR, size_bytes=FAR) == 2
    assert len(stores.entries(channel)) == 3


async def test_an_old_owner_acks_nothing(stores: Stores) -> None:
    channel = await stores.channel()
    old = await stores.claim(channel)
    await stores.queued(channel, 3)
    await stores.claim(channel, f"{OTHER_EDGE}/1")

    assert await stores.queues.ack_until_event(old, "1", count=FAR, size_bytes=FAR) is None
    assert len(stores.entries(channel)) == 3
