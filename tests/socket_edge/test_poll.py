"""A poll takes one message, and acks it only when its peer's kernel has all of it."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from services.socket_edge.poll import STALLED_S, Poll
from shared.model.channels import CloseReason, Kind, Lease
from shared.model.errors import HeldByAnother
from shared.store.queues import BEGINNING
from shared.wire.pelion.pulling import Pull
from tests.harness.waiting import wait_until
from tests.socket_edge.conftest import Clock, edge_of, pending
from tests.store.stores import EDGE, Stores


class Peer:
    """The other side of a poll's connection, as the kernel sees it."""

    def __init__(self) -> None:
        self.is_open = True
        self.unread: Callable[[], int | None] = lambda: 0
        self.unacked: int | None = 0
        self.was_aborted = False

    def abort(self) -> None:
        self.was_aborted = True


@pytest.fixture
def peer() -> Peer:
    return Peer()


@pytest.fixture
async def begin(stores: Stores, peer: Peer) -> AsyncIterator[Callable[..., Poll]]:
    key, _ = await stores.api_key()
    await stores.channels.create(stores.account_id, key.id, kind=Kind.PULL)
    lease = await stores.leases.claim_poll(key.id, owner=f"{EDGE}/1")
    polls: list[Poll] = []

    def begin_poll(*, after: str | None = None, count: int = 100, is_proxied: bool = False) -> Poll:
        polls.append(
            Poll(
                edge_of(stores, batch_limit=count, in_flight_bytes=100_000),
                lease,
                connection={
                    "is_open": lambda: peer.is_open,
                    "unread_bytes": lambda: peer.unread(),
                    "unacked_bytes": lambda: peer.unacked,
                    "has_hung_up": lambda: not peer.is_open,
                    "abort": peer.abort,
                    "was_queued": False,
                    "notes": {},
                    "end_with_input": lambda: None,
                    "has_all": lambda: True,
                    "owes_continue": lambda: False,
                },
                pull=Pull(after=after),
                is_proxied=is_proxied,
            )
        )
        return polls[-1]

    yield begin_poll
    for one in polls:
        await one.loop.stop()


async def decided(stores: Stores, poll: Poll, count: int) -> list[str]:
    """Queues and waits for the message; the entries."""
    entries = await stores.queued(poll.lease.channel, count)
    poll.loop.wake()
    await wait_until(lambda: not poll.is_open)
    return entries


async def test_what_was_read_is_acked(stores: Stores, begin: Callable[..., Poll]) -> None:
    poll = begin()
    await decided(stores, poll, 3)
    assert poll.acked_until == BEGINNING

    await poll.until_read()
    await poll.loop.stop()

    assert stores.entries(poll.lease.channel) == []
    assert poll.outcome == "delivered"


async def test_one_message_and_no_more(stores: Stores, begin: Callable[..., Poll]) -> None:
    poll = begin(count=2)
    entries = await decided(stores, poll, 5)
    await poll.loop.wait_idle()

    await poll.until_read()
    await poll.loop.stop()

    assert stores.entries(poll.lease.channel) == entries[2:]


@pytest.mark.parametrize("unread", [None, 1])
async def test_a_client_that_is_gone_or_stalls_has_read_nothing(
    stores: Stores, begin: Callable[..., Poll], peer: Peer, clock: Clock, unread: int | None
) -> None:
    poll = begin()
    entries = await decided(stores, poll, 3)

    def read_nothing() -> int | None:
        clock.ahead_s += STALLED_S
        return unread

    peer.unread = read_nothing
    await poll.until_read()
    await poll.loop.stop()

    assert stores.entries(poll.lease.channel) == entries
    assert poll.close_reason is CloseReason.CLIENT_GONE
    assert peer.was_aborted is (unread is not None)


async def test_a_client_that_reads_on_is_waited_for(
    stores: Stores, begin: Callable[..., Poll], peer: Peer, clock: Clock
) -> None:
    poll = begin()
    await decided(stores, poll, 3)

    left: list[int] = [*range(10)]

    def read_one() -> int:
        clock.ahead_s += STALLED_S / 2
        return left.pop()

    peer.unread = read_one
    await poll.until_read()
    await poll.loop.stop()

    assert left == []
    assert stores.entries(poll.lease.channel) == []


@pytest.mark.parametrize("unacked", [0, 1, None])
async def test_a_proxys_reset_is_judged_by_what_was_acknowledged_before(
    stores: Stores, begin: Callable[..., Poll], peer: Peer, unacked: int | None
) -> None:
    poll = begin(is_proxied=True)
    entries = await decided(stores, poll, 3)

    peer.is_open, peer.unread, peer.unacked = False, lambda: None, unacked
    await poll.until_read()
    await poll.loop.stop()

    assert stores.entries(poll.lease.channel) == ([] if unacked == 0 else entries)
    assert not peer.was_aborted


async def test_what_was_written_without_a_client_is_not_acked(
    stores: Stores, begin: Callable[..., Poll], peer: Peer
) -> None:
    """Nothing is unread, since nothing was sent."""
    poll = begin()
    entries = await decided(stores, poll, 3)
    peer.is_open = False

    await poll.until_read()
    await poll.loop.stop()

    assert stores.entries(poll.lease.channel) == entries


async def test_after_a_loss_in_redis_nothing_is_acked(stores: Stores, begin: Callable[..., Poll]) -> None:
    poll = begin()
    await decided(stores, poll, 3)
    poll.rewind()

    await poll.until_read()

    assert poll.acked_until == BEGINNING


async def test_with_after_only_the_client_acks(stores: Stores, begin: Callable[..., Poll]) -> None:
    poll = begin(after="")
    entries = await stores.queued(poll.lease.channel, 3)
    poll.loop.wake()
    await poll.loop.wait_idle()
    assert poll.is_open, "what the client has handled is acked before anything is read"

    poll.begin()
    await wait_until(lambda: not poll.is_open)
    await poll.until_read()
    await poll.loop.stop()

    assert stores.entries(poll.lease.channel) == entries
    assert poll.last_uid == "2"


async def test_open_poll_keeps_its_lease_and_an_ending_one_does_not(
    stores: Stores, begin: Callable[..., Poll], peer: Peer
) -> None:
    poll = begin()
    channel = poll.lease.channel

    second = asyncio.create_task(stores.leases.claim_poll(channel, owner=f"{EDGE}/2"))
    await woken_while(poll, second)
    with pytest.raises(HeldByAnother):
        await second

    await decided(stores, poll, 3)
    third = asyncio.create_task(stores.leases.claim_poll(channel, owner=f"{EDGE}/3"))
    await woken_while(poll, third, at_most=5)
    assert not third.done(), "it waits for the response that is being read"
    await poll.until_read()
    await poll.loop.stop()
    await stores.leases.release(poll.lease)
    assert (await third).previous == ""


async def test_poll_without_a_client_keeps_no_lease(
    stores: Stores, begin: Callable[..., Poll], peer: Peer
) -> None:
    poll = begin()
    peer.is_open = False

    second = asyncio.create_task(stores.leases.claim_poll(poll.lease.channel, owner=f"{EDGE}/2"))
    await woken_while(poll, second, at_most=5)

    assert not second.done()
    await stores.leases.release(poll.lease)
    assert (await second).owner == f"{EDGE}/2"


async def woken_while(poll: Poll, claim: asyncio.Task[Lease], *, at_most: int = 1000) -> None:
    """Wakes the poll, as the contest of its lease does, until the claim has ended."""
    while not claim.done() and at_most:
        at_most -= 1
        await asyncio.wait([claim], timeout=0.01)
        poll.wake()
        await poll.loop.wait_idle()


async def test_what_comes_too_late_stays_in_the_queue(begin: Callable[..., Poll]) -> None:
    poll = begin()
    poll.decided.set()

    assert poll.deliver(pending(1, 2)) is None
    assert poll.window.count == 0
    await poll.close(CloseReason.CHANNEL_DELETED)
    assert poll.outcome == "nothing"
