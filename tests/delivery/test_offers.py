"""What a wakeup carries is passed on at once where that is in its turn; everywhere else a look comes first."""

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
from shared.store.queues import Queues
from tests.delivery.conftest import Receiver
from tests.harness.overheard import Overheard
from tests.store.stores import OTHER_EDGE, Stores, events, fake_backend, ids

A_LOOK = ["queue_read"]


class Asked(Pipeline):
    """Remembers which scripts were called."""

    scripts: list[str]

    def script(self, name: str, keys: Sequence[str], *arguments: Argument) -> asyncio.Future[Any]:
        self.scripts.append(name)
        return super().script(name, keys, *arguments)


@pytest.fixture
async def asked(server: fakeredis.FakeServer) -> AsyncIterator[Asked]:
    backend = fake_backend(server)
    async with backend.connect() as redis:
        calls = Asked(redis, scripts=backend.scripts, hooks=HOOKS)
        calls.scripts = []
        yield calls


@pytest.fixture
async def drain(asked: Asked, lease: Lease, receiver: Receiver) -> AsyncIterator[DeliveryLoop]:
    """It has looked, and found nothing."""
    drain = DeliveryLoop(Queues(asked), lease, receiver)
    drain.wake()
    await drain.wait_idle()
    asked.scripts.clear()
    yield drain
    await drain.stop()


class Woken:
    """Queues, and gives what the wakeup carries."""

    def __init__(self, stores: Stores, channel: str) -> None:
        self._stores = stores
        self._channel = channel
        self._overheard = Overheard(stores.direct)

    async def by(self, *numbers: int, size_bytes: int = 0) -> InlineEntries:
        self._overheard.all()
        await self._stores.queues.append(self._channel, events(*numbers, size_bytes=size_bytes))
        [(_, message)] = self._overheard.all()
        carried = parse_inline_entries(message)
        assert carried is not None
        return carried


@pytest.fixture
async def woken(stores: Stores, channel: str, lease: Lease) -> Woken:
    return Woken(stores, channel)


async def test_what_comes_in_order_is_passed_on_and_redis_is_asked_nothing(
    stores: Stores, channel: str, woken: Woken, drain: DeliveryLoop, receiver: Receiver, asked: Asked
) -> None:
    for numbers in ((0,), (1, 2), (3,)):
        drain.deliver_inline(await woken.by(*numbers))
    await drain.wait_idle()

    assert ids(receiver.taken) == ["0", "1", "2", "3"]
    assert receiver.batches == [1, 2, 1]
    assert asked.scripts == []
    assert len(stores.entries(channel)) == 4, "it is pending until it is confirmed"


async def test_behind_a_queue_that_is_empty_again_it_is_in_order(
    stores: Stores, channel: str, woken: Woken, drain: DeliveryLoop, receiver: Receiver, asked: Asked
) -> None:
    drain.deliver_inline(await woken.by(0))
    receiver.confirm(1)
    drain.wake()
    await drain.wait_idle()
    assert stores.entries(channel) == []
    asked.scripts.clear()

    drain.deliver_inline(await woken.by(1))
    await drain.wait_idle()

    assert ids(receiver.taken) == ["0", "1"]
    assert asked.scripts == []


async def test_behind_a_gap_it_looks(
    woken: Woken, drain: DeliveryLoop, receiver: Receiver, asked: Asked
) -> None:
    drain.deliver_inline(await woken.by(0))
    await woken.by(1)

    drain.deliver_inline(await woken.by(2))
    assert ids(receiver.taken) == ["0"]
    await drain.wait_idle()

    assert ids(receiver.taken) == ["0", "1", "2"]
    assert asked.scripts == A_LOOK


async def test_what_was_queued_for_another_owner_makes_it_look(
    stores: Stores, channel: str, woken: Woken, drain: DeliveryLoop, receiver: Receiver
) -> None:
    await stores.claim(channel, f"{OTHER_EDGE}/1")

    drain.deliver_inline(await woken.by(0))
    await drain.wait_idle()

    assert receiver.taken == []
    assert receiver.sockets_closed == [CloseReason.TAKEN_OVER]


async def test_what_names_another_owner_and_is_ours_is_found_by_the_look(
    woken: Woken, drain: DeliveryLoop, receiver: Receiver, asked: Asked
) -> None:
    drain.deliver_inline(replace(await woken.by(0), owner=f"{OTHER_EDGE}/1"))
    assert receiver.taken == []
    await drain.wait_idle()

    assert ids(receiver.taken) == ["0"]
    assert asked.scripts == A_LOOK


async def test_what_has_no_room_waits_for_a_confirmation(
    stores: Stores, channel: str, woken: Woken, drain: DeliveryLoop, receiver: Receiver, asked: Asked
) -> None:
    receiver.holds = 1
    drain.deliver_inline(await woken.by(0))
    drain.deliver_inline(await woken.by(1))
    await drain.wait_idle()
    assert ids(receiver.taken) == ["0"]
    assert asked.scripts == [], "a full socket has nothing to ask for"

    receiver.confirm(1)
    drain.on_ack()
    await drain.wait_idle()

    assert ids(receiver.taken) == ["0", "1"]
    assert len(stores.entries(channel)) == 1
    drain.deliver_inline(await woken.by(2))
    await drain.wait_idle()
    assert ids(receiver.taken) == ["0", "1"]


async def test_what_a_look_has_found_before_is_not_passed_on_again(
    woken: Woken, drain: DeliveryLoop, receiver: Receiver, asked: Asked
) -> None:
    both = [await woken.by(0), await woken.by(1)]
    drain.wake()
    await drain.wait_idle()
    asked.scripts.clear()

    for carried in both:
        drain.deliver_inline(carried)
    await drain.wait_idle()

    assert ids(receiver.taken) == ["0", "1"]
    assert asked.scripts == []


async def test_while_a_look_is_under_way_it_looks_again(
    woken: Woken, drain: DeliveryLoop, receiver: Receiver
) -> None:
    carried = await woken.by(0)
    drain.wake()

    drain.deliver_inline(carried)
    assert receiver.taken == []
    await drain.wait_idle()

    assert ids(receiver.taken) == ["0"]


async def test_before_the_first_look_it_looks(
    woken: Woken, lease: Lease, receiver: Receiver, asked: Asked
) -> None:
    drain = DeliveryLoop(Queues(asked), lease, receiver)

    drain.deliver_inline(await woken.by(0))
    assert receiver.taken == []
    await drain.wait_idle()
    await drain.stop()

    assert ids(receiver.taken) == ["0"]
    assert asked.scripts == A_LOOK


async def test_in_doubt_it_looks(
    stores: Stores, channel: str, woken: Woken, drain: DeliveryLoop, receiver: Receiver, asked: Asked
) -> None:
    """Redis came back without what it had told, and the next stands where the lost one stood."""
    drain.deliver_inline(await woken.by(0))
    stores.direct.delete(keyspace.queue(channel))
    drain.require_resync()

    drain.deliver_inline(await woken.by(1))
    assert ids(receiver.taken) == ["0"]
    await drain.wait_idle()

    assert ids(receiver.taken) == ["0", "1"]
    assert asked.scripts[0] == "queue_ends"


async def test_a_transport_that_breaks_ends_it_and_loses_nothing(
    stores: Stores,
    channel: str,
    woken: Woken,
    drain: DeliveryLoop,
    receiver: Receiver,
    caplog: pytest.LogCaptureFixture,
) -> None:
    receiver.breaks = True

    drain.deliver_inline(await woken.by(0))
    assert receiver.sockets_closed == [], "whoever hears wakeups goes on"
    await drain.wait_idle()

    assert receiver.sockets_closed == [CloseReason.UNEXPECTED]
    assert "delivery_loop.failed" in caplog.messages
    assert len(stores.entries(channel)) == 1


async def test_how_it_is_to_be_encoded_is_known_before_it_is_passed_on(
    stores: Stores, channel: str, woken: Woken, lease: Lease, asked: Asked
) -> None:
    class Encoding(Receiver):
        def deliver(self, batch: list[Notification]) -> str | None:
            self.by.append(self.adopted[-1] if self.adopted else b"")
            return super().deliver(batch)

        by: list[bytes]

    receiver = Encoding()
    receiver.by = []
    drain = DeliveryLoop(Queues(asked), lease, receiver)
    drain.wake()
    await drain.wait_idle()
    drain.deliver_inline(await woken.by(0))
    for serialization, number in ((b"new", 1), (b"new", 2), (b"", 3)):
        stores.direct.hset(keyspace.channel(channel), "serialization", serialization)
        drain.deliver_inline(await woken.by(number))
    await drain.stop()

    assert receiver.by == [b"", b"new", b"new", b""]
    assert receiver.adopted == [b"new", b""], "it is told of changes only"


async def test_a_batch_of_which_the_transport_takes_a_part_is_finished_by_looks(
    woken: Woken, drain: DeliveryLoop, receiver: Receiver
) -> None:
    receiver.at_once = 2

    drain.deliver_inline(await woken.by(0, 1, 2, 3, 4))
    assert ids(receiver.taken) == ["0", "1"]
    await drain.wait_idle()
    assert ids(receiver.taken) == ["0", "1", "2", "3"]

    drain.deliver_inline(await woken.by(5))
    await drain.wait_idle()

    assert ids(receiver.taken) == ["0", "1", "2", "3", "4", "5"]


@pytest.mark.parametrize("room", [{"holds": 2}, {"size_bytes": 250}])
async def test_a_batch_that_has_no_room_as_a_whole_is_looked_for(
    woken: Woken, drain: DeliveryLoop, receiver: Receiver, asked: Asked, room: dict[str, int]
) -> None:
    vars(receiver).update(room)

    drain.deliver_inline(await woken.by(0, 1, 2, size_bytes=100))
    assert receiver.taken == []
    await drain.wait_idle()

    assert ids(receiver.taken)[:2] == ["0", "1"]
    assert receiver.batches[0] == 2
    assert asked.scripts[0] == A_LOOK[0]


async def test_after_the_end_nothing_is_passed_on(
    woken: Woken, drain: DeliveryLoop, receiver: Receiver, asked: Asked
) -> None:
    await drain.stop()

    drain.deliver_inline(await woken.by(0))
    await drain.wait_idle()

    assert receiver.taken == []
    assert asked.scripts == []
