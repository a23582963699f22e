"""The loop that empties a queue: in order, into what room there is, settling only what is confirmed."""

from collections.abc import AsyncIterator

import fakeredis
import pytest

from shared.drain import Drain, Room
from shared.model.channels import Ending, Lease
from shared.model.errors import StoreUnavailable
from shared.model.events import Notification
from shared.store import keyspace
from shared.store.queues import BEGINNING
from tests.harness.waiting import wait_until
from tests.store.stores import EDGE, OTHER_EDGE, Stores, events, fake_backend, ids

PLENTY = 1_000_000


class Receiver:
    """Takes notifications into a list; a test confirms them, or not."""

    def __init__(self, *, holds: int = 1000, size_bytes: int = PLENTY, at_once: int = 1000) -> None:
        self.holds = holds
        self.size_bytes = size_bytes
        self.at_once = at_once
        self.taken: list[Notification] = []
        self.batches: list[int] = []
        self.rewinds = 0
        self.endings: list[Ending] = []
        self.breaks = False
        self._confirmed = 0
        self._forgotten = 0

    @property
    def room(self) -> Room:
        return Room(count=self.holds - (len(self.taken) - self._confirmed), size_bytes=self.size_bytes)

    @property
    def confirmed(self) -> str:
        return self.taken[self._confirmed - 1].entry if self._confirmed > self._forgotten else BEGINNING

    async def deliver(self, batch: list[Notification]) -> str | None:
        if self.breaks:
            raise RuntimeError("the transport broke")
        taken = batch[: self.at_once]
        self.taken += taken
        self.batches.append(len(batch))
        return taken[-1].entry if taken else None

    def rewind(self) -> None:
        self.rewinds += 1
        self._confirmed = self._forgotten = len(self.taken)

    async def end(self, ending: Ending) -> None:
        self.endings.append(ending)

    def confirm(self, count: int) -> None:
        self._confirmed += count


@pytest.fixture
def server() -> fakeredis.FakeServer:
    return fakeredis.FakeServer()


@pytest.fixture
async def stores(server: fakeredis.FakeServer) -> AsyncIterator[Stores]:
    backend = fake_backend(server)
    async with backend.connect() as redis:
        yield Stores(redis, backend)


@pytest.fixture
async def channel(stores: Stores) -> str:
    return await stores.channel()


@pytest.fixture
async def lease(stores: Stores, channel: str) -> Lease:
    return await stores.claim(channel)


@pytest.fixture
async def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
async def drain(stores: Stores, lease: Lease, receiver: Receiver) -> AsyncIterator[Drain]:
    drain = Drain(stores.queues, lease, receiver)
    yield drain
    await drain.stop()


async def took(receiver: Receiver, count: int) -> None:
    await wait_until(lambda: len(receiver.taken) >= count, what=lambda: ids(receiver.taken))
    assert ids(receiver.taken) == [str(n) for n in range(count)]


async def has_looked(stores: Stores) -> None:
    """Whatever a drain was woken for is over: calls are carried out in order, and it asks at most twice."""
    for _ in range(5):
        await stores.calls.command("PING")


async def test_everything_is_delivered_in_order(
    stores: Stores, channel: str, drain: Drain, receiver: Receiver
) -> None:
    await stores.queued(channel, 300)

    drain.wake()
    await took(receiver, 300)
    await stores.queued(channel, 5)
    drain.wake()

    await took(receiver, 305)


async def test_nothing_is_settled_that_was_not_confirmed(
    stores: Stores, channel: str, drain: Drain, receiver: Receiver
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
    stores: Stores, channel: str, drain: Drain, receiver: Receiver
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


async def test_room_is_bytes_too(stores: Stores, channel: str, drain: Drain, receiver: Receiver) -> None:
    receiver.size_bytes = 250
    await stores.queues.append(channel, events(*range(6), size_bytes=100))

    drain.wake()
    await took(receiver, 6)

    assert receiver.batches == [2, 2, 2]


async def test_a_transport_may_take_less_than_it_was_given(
    stores: Stores, channel: str, drain: Drain, receiver: Receiver
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


async def test_what_is_confirmed_while_it_looks_is_settled_without_another_wake(
    stores: Stores, channel: str, drain: Drain, receiver: Receiver
) -> None:
    await stores.queued(channel, 1)

    class Quick(Receiver):
        async def deliver(self, batch: list[Notification]) -> str | None:
            last = await super().deliver(batch)
            self.confirm(len(batch))
            return last

    quick = Quick()
    drain = Drain(stores.queues, await stores.claim(channel), quick)
    drain.wake()

    await wait_until(lambda: stores.entries(channel) == [])
    assert ids(quick.taken) == ["0"]


async def test_wakes_at_once_deliver_once(
    stores: Stores, channel: str, drain: Drain, receiver: Receiver
) -> None:
    await stores.queued(channel, 20)

    for _ in range(10):
        drain.wake()
    await took(receiver, 20)
    await has_looked(stores)

    assert len(receiver.taken) == 20


async def test_redis_away_is_waited_out(
    server: fakeredis.FakeServer, stores: Stores, channel: str, drain: Drain, receiver: Receiver
) -> None:
    await stores.queued(channel, 3)
    server.connected = False
    drain.wake()
    with pytest.raises(StoreUnavailable):
        await stores.calls.command("PING")
    assert receiver.taken == []
    assert receiver.endings == []

    server.connected = True
    await has_looked(stores)
    drain.wake()

    await took(receiver, 3)


async def test_it_comes_back_by_itself_when_nobody_hears_that_redis_does(
    server: fakeredis.FakeServer, stores: Stores, channel: str, drain: Drain, receiver: Receiver
) -> None:
    await stores.queued(channel, 3)
    server.connected = False
    drain.wake()
    with pytest.raises(StoreUnavailable):
        await stores.calls.command("PING")

    server.connected = True

    await took(receiver, 3)


async def test_a_settle_that_redis_may_have_lost_is_made_again(
    stores: Stores, channel: str, drain: Drain, receiver: Receiver
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

    drain.doubt()
    drain.wake()

    await wait_until(lambda: stores.entries(channel) == [])
    assert len(receiver.taken) == 2


async def test_a_lost_claim_is_healed_and_what_was_confirmed_is_settled(
    stores: Stores, channel: str, lease: Lease, drain: Drain, receiver: Receiver
) -> None:
    await stores.queued(channel, 2)
    drain.wake()
    await took(receiver, 2)
    stores.direct.delete(keyspace.lease(channel))

    receiver.confirm(2)
    drain.doubt()
    drain.wake()

    await wait_until(lambda: stores.entries(channel) == [])
    assert stores.owner(channel) == lease.owner
    assert receiver.endings == []


async def test_a_takeover_ends_it_and_leaves_the_queue_to_the_new_owner(
    stores: Stores, channel: str, drain: Drain, receiver: Receiver
) -> None:
    entries = await stores.queued(channel, 2)
    drain.wake()
    await took(receiver, 2)
    await stores.claim(channel, f"{OTHER_EDGE}/1")
    await stores.queued(channel, 1)

    receiver.confirm(2)
    drain.wake()
    await wait_until(lambda: receiver.endings)
    drain.wake()
    await drain.stop()
    await has_looked(stores)

    assert receiver.endings == [Ending.TAKEN_OVER]
    assert len(receiver.taken) == 2
    assert stores.entries(channel)[:2] == entries
    assert stores.owner(channel) == f"{OTHER_EDGE}/1"


@pytest.mark.parametrize("ending", [Ending.CHANNEL_DELETED, Ending.KEY_REVOKED])
async def test_a_channel_that_is_gone_ends_it(
    stores: Stores, channel: str, drain: Drain, receiver: Receiver, ending: Ending
) -> None:
    if ending is Ending.CHANNEL_DELETED:
        await stores.delete_channel(channel)
    else:
        key = await stores.api_keys.find(channel)
        assert key is not None
        await stores.api_keys.revoke(key)

    drain.wake()

    await wait_until(lambda: receiver.endings)
    assert receiver.endings == [ending]
    assert stores.direct.keys(f"{{{channel}}}:lease") == []


async def test_a_transport_that_breaks_ends_it_and_loses_nothing(
    stores: Stores, channel: str, drain: Drain, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    entries = await stores.queued(channel, 2)
    receiver.breaks = True

    drain.wake()

    await wait_until(lambda: receiver.endings)
    assert receiver.endings == [Ending.UNEXPECTED]
    assert "drain.failed" in caplog.messages
    assert stores.entries(channel) == entries


async def test_stopping_settles_what_is_confirmed_and_sends_nothing_more(
    stores: Stores, channel: str, drain: Drain, receiver: Receiver
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
    assert receiver.endings == []


async def test_a_look_never_follows_the_release(
    stores: Stores, channel: str, lease: Lease, drain: Drain
) -> None:
    drain.wake()
    await drain.stop()
    await stores.leases.release(lease)
    await has_looked(stores)

    assert stores.owner(channel) is None, "a late look would have claimed it again"


async def test_stopping_without_redis_says_so_when_there_was_something_to_settle(
    server: fakeredis.FakeServer, stores: Stores, channel: str, drain: Drain, receiver: Receiver
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
    stores: Stores, channel: str, drain: Drain, receiver: Receiver
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
    stores: Stores, channel: str, drain: Drain, receiver: Receiver
) -> None:
    await stores.queued(channel, 5)
    drain.wake()
    await took(receiver, 5)
    receiver.confirm(2)
    await drain.stop()

    following = Receiver()
    next_drain = Drain(stores.queues, await stores.claim(channel, f"{EDGE}/2"), following)
    next_drain.wake()
    await wait_until(lambda: len(following.taken) == 3)
    await next_drain.stop()

    assert ids(following.taken) == ["2", "3", "4"]
