"""What ends a delivery loop, and what it makes of a Redis that lost writes."""

import fakeredis
import pytest

from shared.delivery.loop import DeliveryLoop
from shared.model.channels import CloseReason, Lease
from shared.model.errors import StoreUnavailable
from shared.store import keyspace
from tests.delivery.conftest import Receiver, has_read, sent_to
from tests.harness.waiting import wait_until
from tests.store.stores import EDGE, OTHER_EDGE, Stores, ids


async def test_a_lost_ack_is_repeated(
    stores: Stores, channel: str, loop: DeliveryLoop, receiver: Receiver
) -> None:
    queue = keyspace.queue(channel)
    await stores.queued(channel, 2)
    on_disk = stores.direct.dump(queue)
    loop.wake()
    await sent_to(receiver, 2)
    receiver.ack(2)
    loop.wake()
    await wait_until(lambda: stores.entries(channel) == [])
    stores.direct.restore(queue, 0, on_disk, replace=True)

    loop.require_resync()
    loop.wake()

    await wait_until(lambda: stores.entries(channel) == [])
    assert len(receiver.sent) == 2


async def test_a_lost_claim_is_written_again_before_the_ack(
    stores: Stores, channel: str, lease: Lease, loop: DeliveryLoop, receiver: Receiver
) -> None:
    await stores.queued(channel, 2)
    loop.wake()
    await sent_to(receiver, 2)
    stores.set_owner(channel, None)

    receiver.ack(2)
    loop.require_resync()
    loop.wake()

    await wait_until(lambda: stores.entries(channel) == [])
    assert stores.owner(channel) == lease.owner
    assert receiver.closed == []


async def test_a_takeover_ends_it_and_leaves_the_queue_to_the_new_owner(
    stores: Stores, channel: str, loop: DeliveryLoop, receiver: Receiver
) -> None:
    entries = await stores.queued(channel, 2)
    loop.wake()
    await sent_to(receiver, 2)
    await stores.claim(channel, f"{OTHER_EDGE}/1")
    await stores.queued(channel, 1)

    receiver.ack(2)
    loop.wake()
    await wait_until(lambda: receiver.closed)
    loop.wake()
    await loop.stop()
    await has_read(stores)

    assert receiver.closed == [CloseReason.TAKEN_OVER]
    assert len(receiver.sent) == 2
    assert stores.entries(channel)[:2] == entries
    assert stores.owner(channel) == f"{OTHER_EDGE}/1"


@pytest.mark.parametrize("close_reason", [CloseReason.CHANNEL_DELETED, CloseReason.KEY_REVOKED])
async def test_a_deleted_channel_or_a_revoked_key_ends_it(
    stores: Stores, channel: str, loop: DeliveryLoop, receiver: Receiver, close_reason: CloseReason
) -> None:
    if close_reason is CloseReason.CHANNEL_DELETED:
        await stores.delete_channel(channel)
    else:
        key = await stores.api_keys.find(channel)
        assert key is not None
        await stores.api_keys.revoke(key)

    loop.wake()

    await wait_until(lambda: receiver.closed)
    assert receiver.closed == [close_reason]
    assert stores.owner(channel) is None


async def test_a_transport_that_breaks_ends_it_and_loses_nothing(
    stores: Stores, channel: str, loop: DeliveryLoop, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    entries = await stores.queued(channel, 2)
    receiver.breaks = True

    loop.wake()

    await wait_until(lambda: receiver.closed)
    assert receiver.closed == [CloseReason.UNEXPECTED]
    assert "delivery_loop.failed" in caplog.messages
    assert stores.entries(channel) == entries


async def test_a_stop_acks_and_sends_nothing_more(
    stores: Stores, channel: str, loop: DeliveryLoop, receiver: Receiver
) -> None:
    entries = await stores.queued(channel, 3)
    loop.wake()
    await sent_to(receiver, 3)
    receiver.ack(2)

    await loop.stop()
    await stores.queued(channel, 3)
    loop.wake()
    await has_read(stores)

    assert stores.entries(channel)[0] == entries[2]
    assert len(receiver.sent) == 3
    assert receiver.closed == []


async def test_no_read_follows_the_release(
    stores: Stores, channel: str, lease: Lease, loop: DeliveryLoop
) -> None:
    loop.wake()
    await loop.stop()
    await stores.leases.release(lease)
    await has_read(stores)

    assert stores.owner(channel) is None, "a late read would have written the claim again"


async def test_a_stop_that_cannot_ack_raises(
    server: fakeredis.FakeServer, stores: Stores, channel: str, loop: DeliveryLoop, receiver: Receiver
) -> None:
    await stores.queued(channel, 1)
    loop.wake()
    await sent_to(receiver, 1)
    receiver.ack(1)
    server.connected = False

    with pytest.raises(StoreUnavailable):
        await loop.stop()
    server.connected = True

    assert len(stores.entries(channel)) == 1


async def test_a_queue_that_lost_its_tail_is_delivered_again(
    stores: Stores, channel: str, loop: DeliveryLoop, receiver: Receiver
) -> None:
    entries = await stores.queued(channel, 4)
    loop.wake()
    await sent_to(receiver, 4)
    stores.lose_all_but(channel, *entries[:2])

    loop.wake()
    await wait_until(lambda: len(receiver.sent) >= 6)
    await has_read(stores)

    assert receiver.rewinds == 1
    assert ids(receiver.sent)[4:] == ["0", "1"]
    assert stores.entries(channel) == entries[:2], "the acks from before the rewind do not count"
    receiver.ack(2)
    loop.wake()
    await wait_until(lambda: stores.entries(channel) == [])


async def test_the_next_owner_gets_what_was_not_acked(
    stores: Stores, channel: str, loop: DeliveryLoop, receiver: Receiver
) -> None:
    await stores.queued(channel, 5)
    loop.wake()
    await sent_to(receiver, 5)
    receiver.ack(2)
    await loop.stop()

    following = Receiver()
    next_loop = DeliveryLoop(stores.queues, await stores.claim(channel, f"{EDGE}/2"), following)
    next_loop.wake()
    await wait_until(lambda: len(following.sent) == 3)
    await next_loop.stop()

    assert ids(following.sent) == ["2", "3", "4"]
