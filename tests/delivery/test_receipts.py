"""What a drain tells the receipts: what was delivered, not what was offered, and when it was confirmed."""

import asyncio

from shared.delivery.loop import DeliveryLoop
from shared.model.channels import Lease
from shared.model.events import Notification
from shared.store import keyspace
from tests.delivery.conftest import Receiver, has_looked, took
from tests.harness.waiting import wait_until
from tests.store.stores import Stores, events


def sent(stores: Stores, channel: str, *numbers: int) -> list[bool]:
    return [bool(stores.direct.hexists(keyspace.receipt(channel, str(n)), "sent")) for n in numbers]


def acked(stores: Stores, channel: str, *numbers: int) -> list[bool]:
    return [bool(stores.direct.hexists(keyspace.receipt(channel, str(n)), "acked")) for n in numbers]


async def test_only_what_the_transport_took_was_sent(
    stores: Stores, channel: str, drain: DeliveryLoop, receiver: Receiver
) -> None:
    receiver.at_once = 2
    await stores.queues.append(channel, [event._replace(receipt=True) for event in events(*range(4))])

    drain.wake()
    await took(receiver, 2)
    await wait_until(lambda: sent(stores, channel, 0, 1) == [True, True])
    await has_looked(stores)

    assert sent(stores, channel, 2, 3) == [False, False]
    assert acked(stores, channel, *range(4)) == [False] * 4
    receiver.confirm(1)
    drain.wake()
    await took(receiver, 4)
    await wait_until(lambda: sent(stores, channel, 2, 3) == [True, True])
    await has_looked(stores)
    assert receiver.batches == [4, 2]
    assert acked(stores, channel, *range(4)) == [True, False, False, False]


async def test_of_a_mixed_batch_only_what_asked_has_a_receipt(
    stores: Stores, channel: str, drain: DeliveryLoop, receiver: Receiver
) -> None:
    await stores.queues.append(
        channel, [event._replace(receipt=event.id == "1") for event in events(0, 1, 2)]
    )

    drain.wake()
    await took(receiver, 3)
    await wait_until(lambda: sent(stores, channel, 1) == [True])
    receiver.confirm(3)
    drain.wake()

    await wait_until(lambda: acked(stores, channel, 1) == [True])
    names = {name.decode() for name in stores.direct.keys("*:receipt:*")}
    assert names == {keyspace.receipt(channel, "1")}


async def test_a_stop_at_once_does_not_take_back_what_was_told(
    stores: Stores, channel: str, lease: Lease
) -> None:
    """As of a long poll, which is over when its one message has been read."""

    class Quick(Receiver):
        read = asyncio.Event()

        def deliver(self, batch: list[Notification]) -> str | None:
            last = super().deliver(batch)
            self.confirm(len(batch))
            self.read.set()
            return last

    receiver = Quick()
    drain = DeliveryLoop(stores.queues, lease, receiver)
    await stores.queues.append(channel, [event._replace(receipt=True) for event in events(0, 1)])

    drain.wake()
    await receiver.read.wait()
    await drain.stop()

    assert acked(stores, channel, 0, 1) == [True, True]
    assert sent(stores, channel, 0, 1) == [True, True]
