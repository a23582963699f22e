"""Inline entries that overlap what was sent or read: only what is new is sent, in order, and once."""

from collections.abc import AsyncIterator, Sequence
from itertools import pairwise

import pytest

from shared.delivery.loop import DeliveryLoop
from shared.model.channels import Lease
from shared.model.events import Notification
from shared.store.inline_entries import InlineEntries, merge_consecutive
from tests.delivery.conftest import Receiver
from tests.store.stores import Stores, ids

COUNT = 4
# Each part of the queue that a wakeup may carry, the empty one aside.
PARTS = [(first, end) for first in range(COUNT) for end in range(first + 1, COUNT + 1)]
PREVIOUS = ["as appended", "unknown"]


class Queue:
    """A channel with entries, and what wakeups with parts of them would be."""

    def __init__(self, stores: Stores, lease: Lease) -> None:
        self._stores = stores
        self._lease = lease
        self._notifications: list[Notification] = []

    async def append(self, count: int) -> None:
        await self._stores.queued(self._lease.channel, count)
        batch = await self._stores.queues.read(self._lease, after="0-0", count=100, size_bytes=10_000)
        self._notifications = batch.notifications

    def part(self, first: int, end: int, previous: str = "as appended") -> InlineEntries:
        before = self._notifications[first - 1].entry_id if first else ""
        return InlineEntries(
            self._lease.channel,
            self._lease.owner,
            self._lease.generation,
            before if previous == "as appended" else "1-1",
            b"",
            self._notifications[first:end],
        )


@pytest.fixture
async def queue(stores: Stores, lease: Lease) -> Queue:
    return Queue(stores, lease)


@pytest.fixture
async def loop(stores: Stores, lease: Lease, receiver: Receiver) -> AsyncIterator[DeliveryLoop]:
    """A loop that has read an empty queue."""
    loop = DeliveryLoop(stores.queues, lease, receiver)
    loop.wake()
    await loop.wait_idle()
    yield loop
    await loop.stop()


async def has_sent_once(loop: DeliveryLoop, receiver: Receiver, queue: Queue) -> None:
    """The rest is read at the next wakeup, whatever was delivered before."""
    await loop.wait_idle()
    sent = ids(receiver.sent)
    assert sent == [str(number) for number in range(len(sent))]
    loop.wake()
    await loop.wait_idle()
    assert ids(receiver.sent) == [str(number) for number in range(COUNT)]


@pytest.mark.parametrize("previous", PREVIOUS)
@pytest.mark.parametrize("sent", range(COUNT + 1))
@pytest.mark.parametrize(("first", "end"), PARTS)
@pytest.mark.parametrize("by", ["wakeup", "read"])
async def test_a_part_that_overlaps_what_was_sent(
    loop: DeliveryLoop,
    receiver: Receiver,
    queue: Queue,
    by: str,
    sent: int,
    first: int,
    end: int,
    previous: str,
) -> None:
    if by == "read":
        await queue.append(sent)
        loop.wake()
        await loop.wait_idle()
        await queue.append(COUNT - sent)
    else:
        await queue.append(COUNT)
        if sent:
            loop.deliver_inline(queue.part(0, sent))
    assert len(receiver.sent) == sent

    loop.deliver_inline(queue.part(first, end, previous))

    await has_sent_once(loop, receiver, queue)


@pytest.mark.parametrize("holds", [1, 2, 1000])
@pytest.mark.parametrize(
    "parts",
    [
        [(0, 2), (0, 2)],
        [(0, 2), (1, 4)],
        [(1, 4), (0, 2)],
        [(0, 3), (1, 2), (2, 4)],
        [(0, 1), (0, 2), (0, 3), (0, 4)],
        [(3, 4), (2, 3), (1, 2), (0, 1)],
        [(0, 2), (2, 4), (0, 2), (2, 4)],
        [(0, 4), (2, 3), (0, 4)],
    ],
    ids=str,
)
async def test_wakeups_that_overlap_each_other(
    loop: DeliveryLoop, receiver: Receiver, queue: Queue, parts: Sequence[tuple[int, int]], holds: int
) -> None:
    """One may be doubled, or late."""
    receiver.holds = holds
    await queue.append(COUNT)

    for entries in merge_consecutive([queue.part(*part) for part in parts]):
        loop.deliver_inline(entries)
    await loop.wait_idle()
    while len(receiver.sent) < COUNT:
        receiver.ack(1)
        loop.on_ack()
        await loop.wait_idle()

    await has_sent_once(loop, receiver, queue)


@pytest.mark.parametrize("per_call", [1, 2, 3])
async def test_a_part_of_which_the_transport_takes_some(
    loop: DeliveryLoop, receiver: Receiver, queue: Queue, per_call: int
) -> None:
    receiver.per_call = per_call
    await queue.append(COUNT)

    for first, end in pairwise(range(COUNT + 1)):
        loop.deliver_inline(queue.part(max(first - 1, 0), end))
    loop.deliver_inline(queue.part(0, COUNT))

    await loop.wait_idle()
    while len(receiver.sent) < COUNT:
        loop.wake()
        await loop.wait_idle()
    await has_sent_once(loop, receiver, queue)
