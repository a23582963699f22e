"""The loop that empties a queue: in order, into what room there is, acking only what is confirmed."""

import fakeredis
import pytest

from shared.delivery.loop import DeliveryLoop
from shared.model.errors import StoreUnavailable
from shared.model.events import Notification
from tests.delivery.conftest import Receiver, has_looked, took
from tests.harness.waiting import wait_until
from tests.store.stores import Stores, events, ids


async def test_everything_is_delivered_in_order(
    stores: Stores, channel: str, drain: DeliveryLoop, receiver: Receiver
) -> None:
    await stores.queued(channel, 300)

    drain.wake()
    await took(receiver, 300)
    await stores.queued(channel, 5)
    drain.wake()

    await took(receiver, 305)


async def test_nothing_is_acked_that_was_not_confirmed(
    stores: Stores, channel: str, drain: DeliveryLoop, receiver: Receiver
) -> None:
    entries = await stores.queued(channel, 10)
    drain.wake()
    await took(receiver, 10)
    await has_looked(stores)
    assert stores.entries(channel) == entries

    receiver.confirm(4)
    drain.wake()

    await wait_until(lambda: len(stores.entries(channel)) < 10)
    await has_looked(stores)
    assert stores.entries(channel) == entries[4:]
    assert len(receiver.taken) == 10, "nothing is delivered twice"


async def test_what_has_no_room_stays_in_the_queue(
    stores: Stores, channel: str, drain: DeliveryLoop, receiver: Receiver
) -> None:
    receiver.holds = 3
    await stores.queued(channel, 10)
    drain.wake()
    await took(receiver, 3)
    await has_looked(stores)
    assert len(receiver.taken) == 3

    for confirmed in range(1, 8):
        receiver.confirm(1)
        drain.wake()
        await took(receiver, 3 + confirmed)
        await has_looked(stores)
        assert len(stores.entries(channel)) == 10 - confirmed
    assert max(receiver.batches) == 3


async def test_room_is_bytes_too(
    stores: Stores, channel: str, drain: DeliveryLoop, receiver: Receiver
) -> None:
    receiver.size_bytes = 250
    await stores.queues.append(channel, events(*range(6), size_bytes=100))

    drain.wake()
    await took(receiver, 6)

    assert receiver.batches == [2, 2, 2]


async def test_a_transport_may_take_less_than_it_was_given(
    stores: Stores, channel: str, drain: DeliveryLoop, receiver: Receiver
) -> None:
    # As a careful socket does: the first part only, and then no room until that is confirmed.
    receiver.at_once, receiver.holds = 1, 1
    await stores.queued(channel, 4)
    drain.wake()

    for taken in range(1, 5):
        await took(receiver, taken)
        receiver.confirm(1)
        drain.wake()

    await wait_until(lambda: stores.entries(channel) == [])


async def test_what_is_confirmed_while_it_looks_is_acked_without_another_wake(
    stores: Stores, channel: str, drain: DeliveryLoop, receiver: Receiver
) -> None:
    await stores.queued(channel, 1)

    class Quick(Receiver):
        def deliver(self, batch: list[Notification]) -> str | None:
            last = super().deliver(batch)
            self.confirm(len(batch))
            return last

    quick = Quick()
    drain = DeliveryLoop(stores.queues, await stores.claim(channel), quick)
    drain.wake()

    await wait_until(lambda: stores.entries(channel) == [])
    assert ids(quick.taken) == ["0"]


async def test_wakes_at_once_deliver_once(
    stores: Stores, channel: str, drain: DeliveryLoop, receiver: Receiver
) -> None:
    await stores.queued(channel, 20)

    for _ in range(10):
        drain.wake()
    await took(receiver, 20)
    await has_looked(stores)

    assert len(receiver.taken) == 20


async def test_redis_away_is_waited_out(
    server: fakeredis.FakeServer, stores: Stores, channel: str, drain: DeliveryLoop, receiver: Receiver
) -> None:
    await stores.queued(channel, 3)
    server.connected = False
    drain.wake()
    with pytest.raises(StoreUnavailable):
        await stores.calls.command("PING")
    assert receiver.taken == []
    assert receiver.sockets_closed == []

    server.connected = True
    await has_looked(stores)
    drain.wake()

    await took(receiver, 3)


async def test_it_comes_back_by_itself_when_nobody_hears_that_redis_does(
    server: fakeredis.FakeServer, stores: Stores, channel: str, drain: DeliveryLoop, receiver: Receiver
) -> None:
    await stores.queued(channel, 3)
    server.connected = False
    drain.wake()
    with pytest.raises(StoreUnavailable):
        await stores.calls.command("PING")

    server.connected = True

    await took(receiver, 3)
