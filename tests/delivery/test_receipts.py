"""What a delivery loop writes on receipts: what was sent, and what was acked."""

import asyncio

from shared.delivery.loop import DeliveryLoop
from shared.model.channels import Lease
from shared.model.events import Notification
from shared.store import keyspace
from tests.delivery.conftest import Receiver, has_read, sent_to
from tests.harness.waiting import wait_until
from tests.store.stores import Stores, events


def sent(stores: Stores, channel: str, *numbers: int) -> list[bool]:
    return [bool(stores.direct.hexists(keyspace.receipt(channel, str(n)), "sent")) for n in numbers]


def acked(stores: Stores, channel: str, *numbers: int) -> list[bool]:
    return [bool(stores.direct.hexists(keyspace.receipt(channel, str(n)), "acked")) for n in numbers]


async def test_only_what_the_transport_sent_is_marked(
    stores: Stores, channel: str, loop: DeliveryLoop, receiver: Receiver
) -> None:
    receiver.per_call = 2
    await stores.queues.append(channel, [event._replace(receipt=True) for event in events(*range(4))])

    loop.wake()
    await sent_to(receiver, 2)
    await wait_until(lambda: sent(stores, channel, 0, 1) == [True, True])
    await has_read(stores)

    assert sent(stores, channel, 2, 3) == [False, False]
    assert acked(stores, channel, *range(4)) == [False] * 4
    receiver.ack(1)
    loop.wake()
    await sent_to(receiver, 4)
    await wait_until(lambda: sent(stores, channel, 2, 3) == [True, True])
    await has_read(stores)
    assert receiver.batches == [4, 2]
    assert acked(stores, channel, *range(4)) == [True, False, False, False]


async def test_only_events_that_want_a_receipt_have_one(
    stores: Stores, channel: str, loop: DeliveryLoop, receiver: Receiver
) -> None:
    await stores.queues.append(
        channel, [event._replace(receipt=event.id == "1") for event in events(0, 1, 2)]
    )

    loop.wake()
    await sent_to(receiver, 3)
    await wait_until(lambda: sent(stores, channel, 1) == [True])
    receiver.ack(3)
    loop.wake()

    await wait_until(lambda: acked(stores, channel, 1) == [True])
    names = {name.decode() for name in stores.direct.keys("*:receipt:*")}
    assert names == {keyspace.receipt(channel, "1")}


async def test_a_stop_does_not_cancel_the_marks(stores: Stores, channel: str, lease: Lease) -> None:
    """Like a long poll, which ends as soon as its one message is read."""

    class Quick(Receiver):
        read = asyncio.Event()

        def deliver(self, batch: list[Notification]) -> str | None:
            last = super().deliver(batch)
            self.ack(len(batch))
            self.read.set()
            return last

    receiver = Quick()
    loop = DeliveryLoop(stores.queues, lease, receiver)
    await stores.queues.append(channel, [event._replace(receipt=True) for event in events(0, 1)])

    loop.wake()
    await receiver.read.wait()
    await loop.stop()

    assert acked(stores, channel, 0, 1) == [True, True]
    assert sent(stores, channel, 0, 1) == [True, True]
