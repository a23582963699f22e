"""Inline entries are delivered at once if they are next in order; otherwise the loop reads."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import fakeredis
import pytest

from shared.delivery.loop import DeliveryLoop
from shared.model.channels import CloseReason, Lease
from shared.model.events import Notification
from shared.redis.pipeline import Argument, Pipeline
from shared.store import keyspace
from shared.store.commands import HOOKS
from shared.store.inline_entries import InlineEntries, parse_inline_entries
from tests.delivery.conftest import Receiver
from tests.harness.overheard import Overheard
from tests.store.stores import OTHER_EDGE, AppendingQueues, Stores, at_time, events, fake_backend, ids

ONE_READ = ["queue_read"]


class Recorded(Pipeline):
    """Records which scripts were called."""

    scripts: list[str]

    def script(self, name: str, keys: Sequence[str], *arguments: Argument) -> asyncio.Future[Any]:
        self.scripts.append(name)
        return super().script(name, keys, *arguments)


@pytest.fixture
async def recorded(server: fakeredis.FakeServer) -> AsyncIterator[Recorded]:
    backend = fake_backend(server)
    async with backend.connect() as redis:
        calls = Recorded(redis, scripts=backend.scripts, hooks=HOOKS)
        calls.scripts = []
        yield calls


@pytest.fixture
async def loop(recorded: Recorded, lease: Lease, receiver: Receiver) -> AsyncIterator[DeliveryLoop]:
    """A loop that has read an empty queue."""
    loop = DeliveryLoop(AppendingQueues(recorded), lease, receiver)
    loop.wake()
    await loop.wait_idle()
    recorded.scripts.clear()
    yield loop
    await loop.stop()


class Appending:
    """Appends, and returns the inline entries of the wakeup."""

    def __init__(self, stores: Stores, channel: str) -> None:
        self._stores = stores
        self._channel = channel
        self._overheard = Overheard(stores.direct)

    async def events(self, *numbers: int, size_bytes: int = 0) -> InlineEntries:
        self._overheard.all()
        await self._stores.queues.append(self._channel, events(*numbers, size_bytes=size_bytes))
        [(_, message)] = self._overheard.all()
        entries = parse_inline_entries(message)
        assert entries is not None
        return entries


@pytest.fixture
async def append(stores: Stores, channel: str, lease: Lease) -> Appending:
    return Appending(stores, channel)


async def test_entries_in_order_are_delivered_without_a_read(
    stores: Stores,
    channel: str,
    append: Appending,
    loop: DeliveryLoop,
    receiver: Receiver,
    recorded: Recorded,
) -> None:
    for numbers in ((0,), (1, 2), (3,)):
        loop.deliver_inline(await append.events(*numbers))
    await loop.wait_idle()

    assert ids(receiver.sent) == ["0", "1", "2", "3"]
    assert receiver.batches == [1, 2, 1]
    assert recorded.scripts == []
    assert len(stores.entries(channel)) == 4, "they are pending until they are acked"


async def test_after_an_empty_queue_entries_are_in_order(
    stores: Stores,
    channel: str,
    append: Appending,
    loop: DeliveryLoop,
    receiver: Receiver,
    recorded: Recorded,
) -> None:
    loop.deliver_inline(await append.events(0))
    receiver.ack(1)
    loop.wake()
    await loop.wait_idle()
    assert stores.entries(channel) == []
    recorded.scripts.clear()

    loop.deliver_inline(await append.events(1))
    await loop.wait_idle()

    assert ids(receiver.sent) == ["0", "1"]
    assert recorded.scripts == []


async def test_after_a_queue_that_was_emptied_before_entries_are_in_order(
    stores: Stores, channel: str, append: Appending, lease: Lease, receiver: Receiver, recorded: Recorded
) -> None:
    """An earlier owner acked them; the read brings nothing but where the queue ends."""
    [*_, last] = await stores.queued(channel, 2)
    await stores.queues.ack_until(lease, until=last)
    loop = DeliveryLoop(AppendingQueues(recorded), lease, receiver)
    loop.wake()
    await loop.wait_idle()
    recorded.scripts.clear()

    loop.deliver_inline(await append.events(2))
    await loop.stop()

    assert ids(receiver.sent) == ["2"]
    assert "queue_read" not in recorded.scripts


async def test_after_a_drop_of_what_was_not_sent_entries_are_in_order(
    stores: Stores,
    channel: str,
    append: Appending,
    loop: DeliveryLoop,
    receiver: Receiver,
    recorded: Recorded,
) -> None:
    loop.deliver_inline(await append.events(0))
    await stores.queued(channel, 1)
    await AppendingQueues(at_time(stores, 10**14)).drop_expired(channel)
    loop.wake()
    await loop.wait_idle()
    recorded.scripts.clear()

    loop.deliver_inline(await append.events(2))
    await loop.wait_idle()

    assert ids(receiver.sent) == ["0", "2"]
    assert recorded.scripts == []


async def test_after_a_gap_the_loop_reads(
    append: Appending, loop: DeliveryLoop, receiver: Receiver, recorded: Recorded
) -> None:
    loop.deliver_inline(await append.events(0))
    await append.events(1)

    loop.deliver_inline(await append.events(2))
    assert ids(receiver.sent) == ["0"]
    await loop.wait_idle()

    assert ids(receiver.sent) == ["0", "1", "2"]
    assert recorded.scripts == ONE_READ


async def test_entries_for_another_owner_make_it_read_and_end(
    stores: Stores, channel: str, append: Appending, loop: DeliveryLoop, receiver: Receiver
) -> None:
    await stores.claim(channel, f"{OTHER_EDGE}/1")

    loop.deliver_inline(await append.events(0))
    await loop.wait_idle()

    assert receiver.sent == []
    assert receiver.closed == [CloseReason.TAKEN_OVER]


async def test_entries_that_name_a_former_owner_are_read(
    append: Appending, loop: DeliveryLoop, receiver: Receiver, recorded: Recorded
) -> None:
    loop.deliver_inline(replace(await append.events(0), owner=f"{OTHER_EDGE}/1"))
    assert receiver.sent == []
    await loop.wait_idle()

    assert ids(receiver.sent) == ["0"]
    assert recorded.scripts == ONE_READ


async def test_entries_beyond_a_full_window_wait_for_an_ack(
    stores: Stores,
    channel: str,
    append: Appending,
    loop: DeliveryLoop,
    receiver: Receiver,
    recorded: Recorded,
) -> None:
    receiver.holds = 1
    loop.deliver_inline(await append.events(0))
    loop.deliver_inline(await append.events(1))
    await loop.wait_idle()
    assert ids(receiver.sent) == ["0"]
    assert recorded.scripts == [], "a read would bring nothing"

    receiver.ack(1)
    loop.on_ack()
    await loop.wait_idle()

    assert ids(receiver.sent) == ["0", "1"]
    assert len(stores.entries(channel)) == 1
    loop.deliver_inline(await append.events(2))
    await loop.wait_idle()
    assert ids(receiver.sent) == ["0", "1"]


async def test_entries_that_were_read_before_are_not_delivered_again(
    append: Appending, loop: DeliveryLoop, receiver: Receiver, recorded: Recorded
) -> None:
    both = [await append.events(0), await append.events(1)]
    loop.wake()
    await loop.wait_idle()
    recorded.scripts.clear()

    for entries in both:
        loop.deliver_inline(entries)
    await loop.wait_idle()

    assert ids(receiver.sent) == ["0", "1"]
    assert recorded.scripts == []


async def test_entries_that_come_during_a_read_are_read_next(
    append: Appending, loop: DeliveryLoop, receiver: Receiver
) -> None:
    entries = await append.events(0)
    loop.wake()

    loop.deliver_inline(entries)
    assert receiver.sent == []
    await loop.wait_idle()

    assert ids(receiver.sent) == ["0"]


async def test_before_the_first_read_the_loop_reads(
    append: Appending, lease: Lease, receiver: Receiver, recorded: Recorded
) -> None:
    loop = DeliveryLoop(AppendingQueues(recorded), lease, receiver)

    loop.deliver_inline(await append.events(0))
    assert receiver.sent == []
    await loop.wait_idle()
    await loop.stop()

    assert ids(receiver.sent) == ["0"]
    assert recorded.scripts == ONE_READ


async def test_entries_make_a_loop_resync_that_has_to(
    stores: Stores,
    channel: str,
    append: Appending,
    loop: DeliveryLoop,
    receiver: Receiver,
    recorded: Recorded,
) -> None:
    """Redis lost the entry that was delivered."""
    loop.deliver_inline(await append.events(0))
    stores.lose_all_but(channel)
    loop.require_resync()

    loop.deliver_inline(await append.events(1))
    assert ids(receiver.sent) == ["0"]
    await loop.wait_idle()

    assert ids(receiver.sent) == ["0", "1"]
    assert recorded.scripts[0] == "queue_ends"


async def test_a_transport_that_breaks_ends_it_and_loses_nothing(
    stores: Stores,
    channel: str,
    append: Appending,
    loop: DeliveryLoop,
    receiver: Receiver,
    caplog: pytest.LogCaptureFixture,
) -> None:
    receiver.breaks = True

    loop.deliver_inline(await append.events(0))
    assert receiver.closed == [], "the caller goes on"
    await loop.wait_idle()

    assert receiver.closed == [CloseReason.UNEXPECTED]
    assert "delivery_loop.failed" in caplog.messages
    assert len(stores.entries(channel)) == 1


async def test_the_serialization_is_set_before_the_delivery(
    stores: Stores, channel: str, append: Appending, lease: Lease, recorded: Recorded
) -> None:
    class Encoding(Receiver):
        def deliver(self, batch: list[Notification]) -> str | None:
            self.by.append(self.adopted[-1] if self.adopted else b"")
            return super().deliver(batch)

        by: list[bytes]

    receiver = Encoding()
    receiver.by = []
    loop = DeliveryLoop(AppendingQueues(recorded), lease, receiver)
    loop.wake()
    await loop.wait_idle()
    loop.deliver_inline(await append.events(0))
    for serialization, number in ((b"new", 1), (b"new", 2), (b"", 3)):
        stores.direct.hset(keyspace.channel(channel), "serialization", serialization)
        loop.deliver_inline(await append.events(number))
    await loop.stop()

    assert receiver.by == [b"", b"new", b"new", b""]
    assert receiver.adopted == [b"new", b""], "only changes are set"


async def test_a_batch_that_is_sent_in_part_is_finished_by_reads(
    append: Appending, loop: DeliveryLoop, receiver: Receiver
) -> None:
    receiver.per_call = 2

    loop.deliver_inline(await append.events(0, 1, 2, 3, 4))
    assert ids(receiver.sent) == ["0", "1"]
    await loop.wait_idle()
    assert ids(receiver.sent) == ["0", "1", "2", "3"]

    loop.deliver_inline(await append.events(5))
    await loop.wait_idle()

    assert ids(receiver.sent) == ["0", "1", "2", "3", "4", "5"]


@pytest.mark.parametrize("limit", [{"holds": 2}, {"size_bytes": 250}])
async def test_a_batch_larger_than_the_window_is_read(
    append: Appending, loop: DeliveryLoop, receiver: Receiver, recorded: Recorded, limit: dict[str, int]
) -> None:
    vars(receiver).update(limit)

    loop.deliver_inline(await append.events(0, 1, 2, size_bytes=100))
    assert receiver.sent == []
    await loop.wait_idle()

    assert ids(receiver.sent)[:2] == ["0", "1"]
    assert receiver.batches[0] == 2
    assert recorded.scripts[0] == ONE_READ[0]


async def test_after_a_stop_nothing_is_delivered(
    append: Appending, loop: DeliveryLoop, receiver: Receiver, recorded: Recorded
) -> None:
    await loop.stop()

    loop.deliver_inline(await append.events(0))
    await loop.wait_idle()

    assert receiver.sent == []
    assert recorded.scripts == []
