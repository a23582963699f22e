"""What ends a drain, and what a Redis that was away changes."""

import fakeredis
import pytest

from shared.delivery.loop import DeliveryLoop
from shared.model.channels import CloseReason, Lease
from shared.model.errors import StoreUnavailable
from shared.store import keyspace
from tests.delivery.conftest import Receiver, has_looked, took
from tests.harness.waiting import wait_until
from tests.store.stores import EDGE, NOW_MS, OTHER_EDGE, Stores, ids


async def test_a_ack_that_redis_may_have_lost_is_made_again(
    stores: Stores, channel: str, drain: DeliveryLoop, receiver: Receiver
) -> None:
    queue = keyspace.queue(channel)
    await stores.queued(channel, 2)
    on_disk = stores.direct.dump(queue)
    drain.wake()
    await took(receiver, 2)
    receiver.confirm(2)
    drain.wake()
    await wait_until(lambda: stores.entries(channel) == [])
    stores.direct.restore(queue, 0, on_disk, replace=True)

    drain.require_resync()
    drain.wake()

    await wait_until(lambda: stores.entries(channel) == [])
    assert len(receiver.taken) == 2


async def test_a_lost_claim_is_healed_and_what_was_confirmed_is_acked(
    stores: Stores, channel: str, lease: Lease, drain: DeliveryLoop, receiver: Receiver
) -> None:
    await stores.queued(channel, 2)
    drain.wake()
    await took(receiver, 2)
    stores.direct.delete(keyspace.lease(channel))

    receiver.confirm(2)
    drain.require_resync()
    drain.wake()

    await wait_until(lambda: stores.entries(channel) == [])
    assert stores.owner(channel) == lease.owner
    assert receiver.sockets_closed == []


async def test_a_takeover_ends_it_and_leaves_the_queue_to_the_new_owner(
    stores: Stores, channel: str, drain: DeliveryLoop, receiver: Receiver
) -> None:
    entries = await stores.queued(channel, 2)
    drain.wake()
    await took(receiver, 2)
    await stores.claim(channel, f"{OTHER_EDGE}/1")
    await stores.queued(channel, 1)

    receiver.confirm(2)
    drain.wake()
    await wait_until(lambda: receiver.sockets_closed)
    drain.wake()
    await drain.stop()
    await has_looked(stores)

    assert receiver.sockets_closed == [CloseReason.TAKEN_OVER]
    assert len(receiver.taken) == 2
    assert stores.entries(channel)[:2] == entries
    assert stores.owner(channel) == f"{OTHER_EDGE}/1"


@pytest.mark.parametrize("close_reason", [CloseReason.CHANNEL_DELETED, CloseReason.KEY_REVOKED])
async def test_a_channel_that_is_gone_ends_it(
    stores: Stores, channel: str, drain: DeliveryLoop, receiver: Receiver, close_reason: CloseReason
) -> None:
    if close_reason is CloseReason.CHANNEL_DELETED:
        await stores.delete_channel(channel)
    else:
        key = await stores.api_keys.find(channel)
        assert key is not None
        await stores.api_keys.revoke(key)

    drain.wake()

    await wait_until(lambda: receiver.sockets_closed)
    assert receiver.sockets_closed == [close_reason]
    assert stores.direct.keys(f"{{{channel}}}:lease") == []


async def test_a_transport_that_breaks_ends_it_and_loses_nothing(
    stores: Stores, channel: str, drain: DeliveryLoop, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    entries = await stores.queued(channel, 2)
    receiver.breaks = True

    drain.wake()

    await wait_until(lambda: receiver.sockets_closed)
    assert receiver.sockets_closed == [CloseReason.UNEXPECTED]
    assert "delivery_loop.failed" in caplog.messages
    assert stores.entries(channel) == entries


async def test_stopping_acks_what_is_confirmed_and_sends_nothing_more(
    stores: Stores, channel: str, drain: DeliveryLoop, receiver: Receiver
) -> None:
    entries = await stores.queued(channel, 3)
    drain.wake()
    await took(receiver, 3)
    receiver.confirm(2)

    await drain.stop()
    await stores.queued(channel, 3)
    drain.wake()
    await has_looked(stores)

    assert stores.entries(channel)[0] == entries[2]
    assert len(receiver.taken) == 3
    assert receiver.sockets_closed == []


async def test_a_look_never_follows_the_release(
    stores: Stores, channel: str, lease: Lease, drain: DeliveryLoop
) -> None:
    drain.wake()
    await drain.stop()
    await stores.leases.release(lease, now_ms=NOW_MS)
    await has_looked(stores)

    assert stores.owner(channel) is None, "a late look would have claimed it again"


async def test_stopping_without_redis_says_so_when_there_was_something_to_ack(
    server: fakeredis.FakeServer, stores: Stores, channel: str, drain: DeliveryLoop, receiver: Receiver
) -> None:
    await stores.queued(channel, 1)
    drain.wake()
    await took(receiver, 1)
    receiver.confirm(1)
    server.connected = False

    with pytest.raises(StoreUnavailable):
        await drain.stop()
    server.connected = True

    assert len(stores.entries(channel)) == 1


async def test_a_queue_that_lost_its_end_is_delivered_again_from_what_is_left(
    stores: Stores, channel: str, drain: DeliveryLoop, receiver: Receiver
) -> None:
    entries = await stores.queued(channel, 4)
    drain.wake()
    await took(receiver, 4)
    stores.direct.xdel(keyspace.queue(channel), *entries[2:])

    drain.wake()
    await wait_until(lambda: len(receiver.taken) >= 6)
    await has_looked(stores)

    assert receiver.rewinds == 1
    assert ids(receiver.taken)[4:] == ["0", "1"]
    assert stores.entries(channel) == entries[:2], "the old confirmations mean nothing any more"
    receiver.confirm(2)
    drain.wake()
    await wait_until(lambda: stores.entries(channel) == [])


async def test_the_next_owner_gets_what_the_last_did_not_confirm(
    stores: Stores, channel: str, drain: DeliveryLoop, receiver: Receiver
) -> None:
    await stores.queued(channel, 5)
    drain.wake()
    await took(receiver, 5)
    receiver.confirm(2)
    await drain.stop()

    following = Receiver()
    next_drain = DeliveryLoop(stores.queues, await stores.claim(channel, f"{EDGE}/2"), following)
    next_drain.wake()
    await wait_until(lambda: len(following.taken) == 3)
    await next_drain.stop()

    assert ids(following.taken) == ["2", "3", "4"]
