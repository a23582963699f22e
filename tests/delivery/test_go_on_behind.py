"""A loop that is moved: back to what is sent again, or on to what was acknowledged meanwhile."""

import asyncio

import pytest

from shared.delivery.loop import DeliveryLoop
from shared.model.channels import Lease
from shared.store.inline_entries import parse_inline_entries
from tests.delivery.conftest import Receiver
from tests.harness.overheard import Overheard
from tests.store.stores import Stores, ids


async def read(loop: DeliveryLoop) -> None:
    loop.wake()
    await loop.wait_idle()


async def test_it_sends_again_in_order_and_goes_on(
    stores: Stores, channel: str, loop: DeliveryLoop, receiver: Receiver
) -> None:
    entries = await stores.queued(channel, 3)
    await read(loop)
    await stores.queued(channel, 1)

    loop.go_on_behind(entries[0])
    await read(loop)

    assert ids(receiver.sent) == ["0", "1", "2", "1", "2", "3"]


async def test_a_read_that_was_under_way_brings_nothing(
    stores: Stores, channel: str, loop: DeliveryLoop, receiver: Receiver
) -> None:
    entries = await stores.queued(channel, 3)
    await read(loop)
    await stores.queued(channel, 2)
    loop.wake()
    # Its command is sent in the next turn.
    await asyncio.sleep(0)

    loop.go_on_behind(entries[1])
    await loop.wait_idle()

    assert ids(receiver.sent) == ["0", "1", "2", "2", "3", "4"]


async def test_the_entries_of_a_wakeup_do_not_overtake(
    stores: Stores, channel: str, loop: DeliveryLoop, receiver: Receiver
) -> None:
    entries = await stores.queued(channel, 2)
    await read(loop)
    overheard = Overheard(stores.direct)
    await stores.queued(channel, 1)
    [(_, message)] = overheard.all()
    inline = parse_inline_entries(message)
    assert inline is not None

    loop.go_on_behind(entries[0])
    loop.deliver_inline(inline)
    await loop.wait_idle()

    assert ids(receiver.sent) == ["0", "1", "1", "2"]


@pytest.mark.parametrize("moved_on", [False, True])
async def test_a_resync_keeps_the_place(
    stores: Stores, channel: str, loop: DeliveryLoop, receiver: Receiver, moved_on: bool
) -> None:
    entries = await stores.queued(channel, 4)
    await read(loop)

    loop.go_on_behind(entries[0])
    if moved_on:
        loop.go_on_behind(entries[2])
    loop.require_resync()
    await read(loop)

    assert ids(receiver.sent) == ["0", "1", "2", "3", *([] if moved_on else ["1", "2"]), "3"]
    assert receiver.rewinds == 0


async def test_a_resync_notices_what_was_lost_behind_the_place(
    stores: Stores, channel: str, lease: Lease, loop: DeliveryLoop, receiver: Receiver
) -> None:
    entries = await stores.queued(channel, 3)
    await read(loop)
    loop.go_on_behind(entries[0])

    stores.lose_all_but(channel, entries[0])
    loop.require_resync()
    await read(loop)

    assert receiver.rewinds == 1


async def test_what_was_acknowledged_before_is_acked_once(
    stores: Stores, channel: str, loop: DeliveryLoop, receiver: Receiver
) -> None:
    entries = await stores.queued(channel, 3)
    await read(loop)
    acked: list[str] = []
    loop.on_acked = acked.append
    receiver.ack(1)

    loop.go_on_behind(entries[0])
    await read(loop)

    assert ids(receiver.sent) == ["0", "1", "2", "1", "2"]
    assert acked == [entries[0]]
    assert stores.entries(channel) == entries[1:]
