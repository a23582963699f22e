"""After Redis lost its last writes, acks from before do not count for new entries with the same ids."""

from collections.abc import AsyncIterator

import fakeredis
import pytest

from shared.delivery.loop import DeliveryLoop, Window
from shared.model.channels import CloseReason, Lease
from shared.model.events import Notification
from shared.store import keyspace
from shared.store.queues import BEGINNING
from tests.harness.waiting import wait_until
from tests.store.stores import AppendingQueues, Stores, at_time, fake_backend

BEFORE = ["1000-0", "2000-0", "3000-0"]


class Client:
    """Takes everything, and has acked as much as the test says."""

    window = Window(count=1000, size_bytes=1_000_000)

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.acked_until = BEGINNING
        self.rewinds = 0
        self.closed: list[CloseReason] = []

    def deliver(self, batch: list[Notification]) -> str | None:
        self.sent += [notification.entry_id for notification in batch]
        return self.sent[-1]

    def adopt(self, serialization: bytes) -> None:
        """Not encoded."""

    def rewind(self) -> None:
        self.rewinds += 1
        self.acked_until = BEGINNING

    async def end(self, close_reason: CloseReason) -> None:
        self.closed.append(close_reason)


@pytest.fixture
async def stores() -> AsyncIterator[Stores]:
    backend = fake_backend(fakeredis.FakeServer())
    async with backend.connect() as redis:
        stores = Stores(redis, backend)
        # The entry ids here are of the year 1970: keep them within the lifetime.
        stores.queues = AppendingQueues(at_time(stores, 0))
        yield stores


@pytest.fixture
async def client() -> Client:
    return Client()


@pytest.fixture
async def loop(stores: Stores, channel: str, lease: Lease, client: Client) -> AsyncIterator[DeliveryLoop]:
    """BEFORE was delivered; nothing is acked yet."""
    stores.put_at(channel, *BEFORE)
    loop = DeliveryLoop(stores.queues, lease, client)
    loop.wake()
    await wait_until(lambda: client.sent == BEFORE)
    yield loop
    await loop.stop()


async def ack_and_flush(stores: Stores, channel: str, loop: DeliveryLoop, client: Client) -> None:
    client.acked_until = BEFORE[-1]
    loop.wake()
    await wait_until(lambda: stores.entries(channel) == [])


async def has_read(stores: Stores) -> None:
    """Waits until the reads of a woken loop are over: Redis runs calls in order, and a loop makes few."""
    for _ in range(8):
        await stores.calls.command("PING")


NEW = [
    pytest.param(["2500-0", "2600-0"], id="all below what was acked"),
    pytest.param(["2500-0", "3500-0"], id="below and above"),
    pytest.param(["3500-0", "3600-0"], id="all above"),
]


@pytest.mark.parametrize("new", NEW)
async def test_old_acks_do_not_ack_new_entries(
    stores: Stores, channel: str, loop: DeliveryLoop, client: Client, new: list[str]
) -> None:
    """The queue was empty, lost its last id, and got new entries from a clock that is behind."""
    await ack_and_flush(stores, channel, loop, client)
    stores.lose_all_but(channel)
    stores.put_at(channel, *new)

    loop.require_resync()
    loop.wake()

    await wait_until(lambda: client.sent[len(BEFORE) :] == new, what=lambda: client.sent)
    await has_read(stores)
    assert stores.entries(channel) == new, "they are pending until they are acked themselves"
    client.acked_until = new[-1]
    loop.wake()
    await wait_until(lambda: stores.entries(channel) == [])
    assert client.sent == BEFORE + new


@pytest.mark.parametrize("new", NEW)
async def test_acks_that_came_during_the_outage(
    stores: Stores, channel: str, loop: DeliveryLoop, client: Client, new: list[str]
) -> None:
    """The pong came during the outage; the queue lost its tail only."""
    stores.lose_all_but(channel, BEFORE[0])
    stores.put_at(channel, *new)
    client.acked_until = BEFORE[-1]

    loop.require_resync()
    loop.wake()

    await wait_until(lambda: set(new) <= set(client.sent), what=lambda: client.sent)
    await has_read(stores)
    assert set(new) <= set(stores.entries(channel)), "they are pending until they are acked themselves"
    client.acked_until = new[-1]
    loop.wake()
    await wait_until(lambda: stores.entries(channel) == [])


async def test_without_a_loss_nothing_is_sent_again(
    stores: Stores, channel: str, loop: DeliveryLoop, client: Client
) -> None:
    stores.put_at(channel, "4000-0")
    client.acked_until = BEFORE[1]

    loop.require_resync()
    loop.wake()

    await wait_until(lambda: stores.entries(channel) == ["3000-0", "4000-0"])
    await wait_until(lambda: client.sent == [*BEFORE, "4000-0"])
    assert client.rewinds == 0


async def test_a_lost_ack_is_repeated_and_nothing_is_sent_again(
    stores: Stores, channel: str, loop: DeliveryLoop, client: Client
) -> None:
    kept = stores.direct.dump(keyspace.queue(channel))
    await ack_and_flush(stores, channel, loop, client)
    stores.direct.restore(keyspace.queue(channel), 0, kept, replace=True)
    stores.put_at(channel, "4000-0")

    loop.require_resync()
    loop.wake()

    await wait_until(lambda: client.sent == [*BEFORE, "4000-0"])
    await wait_until(lambda: stores.entries(channel) == ["4000-0"])
    assert client.rewinds == 0


@pytest.mark.parametrize("new", NEW)
async def test_new_entries_are_sent_on_a_socket_that_was_sent_nothing(
    stores: Stores, channel: str, lease: Lease, new: list[str]
) -> None:
    """It had read where the emptied queue ended; Redis lost those entries, and new ones have ids below."""
    stores.put_at(channel, *BEFORE)
    await stores.queues.ack_until(lease, until=BEFORE[-1])
    client = Client()
    loop = DeliveryLoop(stores.queues, lease, client)
    loop.wake()
    await loop.wait_idle()
    stores.lose_all_but(channel)
    stores.put_at(channel, *new)

    loop.require_resync()
    loop.wake()
    await loop.wait_idle()
    await loop.stop()

    assert client.sent == new
    assert stores.entries(channel) == new


async def test_entry_that_was_removed_from_the_end_is_no_loss(
    stores: Stores, channel: str, lease: Lease, loop: DeliveryLoop, client: Client
) -> None:
    """The client refused it; the channel still names it as the tail."""
    stores.put_at(channel, "4000-0")
    stores.direct.xdel(keyspace.queue(channel), "4000-0")

    loop.wake()
    await loop.wait_idle()
    loop.require_resync()
    loop.wake()
    await loop.wait_idle()

    assert client.rewinds == 0
    assert client.sent == BEFORE


async def test_a_stop_before_the_resync_acks_nothing_new(
    stores: Stores, channel: str, loop: DeliveryLoop, client: Client
) -> None:
    stores.lose_all_but(channel)
    stores.put_at(channel, "2500-0", "2600-0")
    client.acked_until = BEFORE[-1]

    loop.require_resync()
    await loop.stop()

    assert stores.entries(channel) == ["2500-0", "2600-0"]


async def test_a_loss_during_a_resync_is_followed_by_another(
    stores: Stores, channel: str, loop: DeliveryLoop, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    reclaim = stores.queues.reclaim

    async def lose_the_tail_after(lease: Lease) -> None:
        monkeypatch.undo()
        await reclaim(lease)
        stores.lose_all_but(channel, BEFORE[0])
        loop.require_resync()
        client.acked_until = BEFORE[-1]

    monkeypatch.setattr(stores.queues, "reclaim", lose_the_tail_after)
    loop.require_resync()
    loop.wake()
    await loop.wait_idle()

    assert client.rewinds == 1
    assert stores.entries(channel) == BEFORE[:1], "it is pending until it is acked itself"
