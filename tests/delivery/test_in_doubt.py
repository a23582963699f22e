"""Redis came back without its last writes: what was confirmed before says nothing about what came since."""

from collections.abc import AsyncIterator

import fakeredis
import pytest

from shared.delivery.loop import DeliveryLoop, Window
from shared.model.channels import CloseReason, Lease
from shared.model.events import Notification
from shared.store import keyspace
from shared.store.queues import BEGINNING, Queues
from tests.harness.waiting import wait_until
from tests.store.stores import Stores, events, fake_backend

BEFORE = ["1000-0", "2000-0", "3000-0"]


class Confirming:
    """Takes everything, and has confirmed as much as the test says."""

    window = Window(count=1000, size_bytes=1_000_000)

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.acked_until = BEGINNING
        self.rewinds = 0
        self.sockets_closed: list[CloseReason] = []

    def deliver(self, batch: list[Notification]) -> str | None:
        self.taken += [notification.entry_id for notification in batch]
        return self.taken[-1]

    def adopt(self, serialization: bytes) -> None:
        """Nothing is encoded here."""

    def rewind(self) -> None:
        self.rewinds += 1
        self.acked_until = BEGINNING

    async def end(self, close_reason: CloseReason) -> None:
        self.sockets_closed.append(close_reason)


@pytest.fixture
async def stores() -> AsyncIterator[Stores]:
    backend = fake_backend(fakeredis.FakeServer())
    async with backend.connect() as redis:
        stores = Stores(redis, backend)
        # The places here are of the year 1970, and not too old.
        stores.queues = Queues(stores.calls, now_ms=lambda: 0)
        yield stores


@pytest.fixture
async def channel(stores: Stores) -> str:
    return await stores.channel()


@pytest.fixture
async def lease(stores: Stores, channel: str) -> Lease:
    return await stores.claim(channel)


@pytest.fixture
async def client() -> Confirming:
    return Confirming()


@pytest.fixture
async def drain(
    stores: Stores, channel: str, lease: Lease, client: Confirming
) -> AsyncIterator[DeliveryLoop]:
    """Everything of BEFORE was delivered; nothing is confirmed yet."""
    await put(stores, channel, *BEFORE)
    drain = DeliveryLoop(stores.queues, lease, client)
    drain.wake()
    await wait_until(lambda: client.taken == BEFORE)
    yield drain
    await drain.stop()


async def put(stores: Stores, channel: str, *entries: str) -> None:
    """Queues what an append would, at places of the test's choice: as a clock that is behind makes them."""
    pattern = await stores.channel()
    await stores.queues.append(pattern, events(1))
    [(_, fields)] = stores.direct.xrange(keyspace.queue(pattern))
    for entry in entries:
        stores.direct.xadd(keyspace.queue(channel), fields, id=entry)


async def ack_and_flush(stores: Stores, channel: str, drain: DeliveryLoop, client: Confirming) -> None:
    client.acked_until = BEFORE[-1]
    drain.wake()
    await wait_until(lambda: stores.entries(channel) == [])


def come_back_with(stores: Stores, channel: str, *kept: str) -> None:
    """Redis has lost all of the queue but these, and what it knew of the others."""
    queue = keyspace.queue(channel)
    rows = dict(stores.direct.xrange(queue))
    stores.direct.delete(queue)
    for entry in kept:
        stores.direct.xadd(queue, rows[entry.encode()], id=entry)


async def has_looked(stores: Stores) -> None:
    """Pipeline are carried out in order, and a drain asks a few times at most."""
    for _ in range(8):
        await stores.calls.command("PING")


NEW = [
    pytest.param(["2500-0", "2600-0"], id="all below what was confirmed"),
    pytest.param(["2500-0", "3500-0"], id="below and above"),
    pytest.param(["3500-0", "3600-0"], id="all above"),
]


@pytest.mark.parametrize("new", NEW)
async def test_nothing_new_is_acked_by_what_was_confirmed_before(
    stores: Stores, channel: str, drain: DeliveryLoop, client: Confirming, new: list[str]
) -> None:
    """A queue that was all acked, lost, and filled again by a Redis whose clock is behind."""
    await ack_and_flush(stores, channel, drain, client)
    come_back_with(stores, channel)
    await put(stores, channel, *new)

    drain.require_resync()
    drain.wake()

    await wait_until(lambda: client.taken[len(BEFORE) :] == new, what=lambda: client.taken)
    await has_looked(stores)
    assert stores.entries(channel) == new, "they are pending until they are confirmed themselves"
    client.acked_until = new[-1]
    drain.wake()
    await wait_until(lambda: stores.entries(channel) == [])
    assert client.taken == BEFORE + new


@pytest.mark.parametrize("new", NEW)
async def test_confirmed_while_redis_was_away(
    stores: Stores, channel: str, drain: DeliveryLoop, client: Confirming, new: list[str]
) -> None:
    """The pong came when nothing could be acked; the end of the queue is lost, the beginning is not."""
    come_back_with(stores, channel, BEFORE[0])
    await put(stores, channel, *new)
    client.acked_until = BEFORE[-1]

    drain.require_resync()
    drain.wake()

    await wait_until(lambda: set(new) <= set(client.taken), what=lambda: client.taken)
    await has_looked(stores)
    assert set(new) <= set(stores.entries(channel)), "they are pending until they are confirmed themselves"
    client.acked_until = new[-1]
    drain.wake()
    await wait_until(lambda: stores.entries(channel) == [])


async def test_when_nothing_was_lost_nothing_is_sent_again(
    stores: Stores, channel: str, drain: DeliveryLoop, client: Confirming
) -> None:
    await put(stores, channel, "4000-0")
    client.acked_until = BEFORE[1]

    drain.require_resync()
    drain.wake()

    await wait_until(lambda: stores.entries(channel) == ["3000-0", "4000-0"])
    await wait_until(lambda: client.taken == [*BEFORE, "4000-0"])
    assert client.rewinds == 0


async def test_a_ack_that_was_lost_is_made_again_and_nothing_is_sent_again(
    stores: Stores, channel: str, drain: DeliveryLoop, client: Confirming
) -> None:
    kept = stores.direct.dump(keyspace.queue(channel))
    await ack_and_flush(stores, channel, drain, client)
    stores.direct.restore(keyspace.queue(channel), 0, kept, replace=True)
    await put(stores, channel, "4000-0")

    drain.require_resync()
    drain.wake()

    await wait_until(lambda: client.taken == [*BEFORE, "4000-0"])
    await wait_until(lambda: stores.entries(channel) == ["4000-0"])
    assert client.rewinds == 0


async def test_one_that_stops_before_it_has_looked_acks_nothing_new(
    stores: Stores, channel: str, drain: DeliveryLoop, client: Confirming
) -> None:
    come_back_with(stores, channel)
    await put(stores, channel, "2500-0", "2600-0")
    client.acked_until = BEFORE[-1]

    drain.require_resync()
    await drain.stop()

    assert stores.entries(channel) == ["2500-0", "2600-0"]
