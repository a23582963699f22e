"""The delivery loop empties a queue in order, within the window, and acks only what the receiver acked."""

import fakeredis
import pytest

from shared.delivery.loop import DeliveryLoop
from shared.model.errors import StoreUnavailable
from shared.model.events import Notification
from tests.delivery.conftest import Receiver, has_read, sent_to
from tests.harness.waiting import wait_until
from tests.store.stores import Stores, events, ids


async def test_everything_is_delivered_in_order(
    stores: Stores, channel: str, loop: DeliveryLoop, receiver: Receiver
) -> None:
    await stores.queued(channel, 300)

    loop.wake()
    await sent_to(receiver, 300)
    await stores.queued(channel, 5)
    loop.wake()

    await sent_to(receiver, 305)


async def test_only_what_the_receiver_acked_is_removed(
    stores: Stores, channel: str, loop: DeliveryLoop, receiver: Receiver
) -> None:
    entries = await stores.queued(channel, 10)
    loop.wake()
    await sent_to(receiver, 10)
    await has_read(stores)
    assert stores.entries(channel) == entries

    receiver.ack(4)
    loop.wake()

    await wait_until(lambda: len(stores.entries(channel)) < 10)
    await has_read(stores)
    assert stores.entries(channel) == entries[4:]
    assert len(receiver.sent) == 10, "nothing is delivered twice"


async def test_what_exceeds_the_window_stays_in_the_queue(
    stores: Stores, channel: str, loop: DeliveryLoop, receiver: Receiver
) -> None:
    receiver.holds = 3
    await stores.queued(channel, 10)
    loop.wake()
    await sent_to(receiver, 3)
    await has_read(stores)
    assert len(receiver.sent) == 3

    for acked in range(1, 8):
        receiver.ack(1)
        loop.wake()
        await sent_to(receiver, 3 + acked)
        await has_read(stores)
        assert len(stores.entries(channel)) == 10 - acked
    assert max(receiver.batches) == 3


async def test_the_window_counts_bytes_too(
    stores: Stores, channel: str, loop: DeliveryLoop, receiver: Receiver
) -> None:
    receiver.size_bytes = 250
    await stores.queues.append(channel, events(*range(6), size_bytes=100))

    loop.wake()
    await sent_to(receiver, 6)

    assert receiver.batches == [2, 2, 2]


async def test_a_transport_may_send_less_than_its_window(
    stores: Stores, channel: str, loop: DeliveryLoop, receiver: Receiver
) -> None:
    # As a socket that probes the frame size: one, and the next after its ack.
    receiver.per_call, receiver.holds = 1, 1
    await stores.queued(channel, 4)
    loop.wake()

    for sent in range(1, 5):
        await sent_to(receiver, sent)
        receiver.ack(1)
        loop.wake()

    await wait_until(lambda: stores.entries(channel) == [])


async def test_an_ack_during_a_read_needs_no_other_wakeup(
    stores: Stores, channel: str, loop: DeliveryLoop, receiver: Receiver
) -> None:
    await stores.queued(channel, 1)

    class Quick(Receiver):
        def deliver(self, batch: list[Notification]) -> str | None:
            last = super().deliver(batch)
            self.ack(len(batch))
            return last

    quick = Quick()
    loop = DeliveryLoop(stores.queues, await stores.claim(channel), quick)
    loop.wake()

    await wait_until(lambda: stores.entries(channel) == [])
    assert ids(quick.sent) == ["0"]


async def test_many_wakeups_deliver_once(
    stores: Stores, channel: str, loop: DeliveryLoop, receiver: Receiver
) -> None:
    await stores.queued(channel, 20)

    for _ in range(10):
        loop.wake()
    await sent_to(receiver, 20)
    await has_read(stores)

    assert len(receiver.sent) == 20


async def test_a_redis_outage_ends_nothing(
    server: fakeredis.FakeServer, stores: Stores, channel: str, loop: DeliveryLoop, receiver: Receiver
) -> None:
    await stores.queued(channel, 3)
    server.connected = False
    loop.wake()
    with pytest.raises(StoreUnavailable):
        await stores.calls.command("PING")
    assert receiver.sent == []
    assert receiver.closed == []

    server.connected = True
    await has_read(stores)
    loop.wake()

    await sent_to(receiver, 3)


async def test_it_retries_without_a_wakeup_when_redis_is_back(
    server: fakeredis.FakeServer, stores: Stores, channel: str, loop: DeliveryLoop, receiver: Receiver
) -> None:
    await stores.queued(channel, 3)
    server.connected = False
    loop.wake()
    with pytest.raises(StoreUnavailable):
        await stores.calls.command("PING")

    server.connected = True

    await sent_to(receiver, 3)
