"""Leases of long polls: an open poll keeps its lease, an ending one is waited for, a dead one loses it."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from shared.model.api_keys import new_id
from shared.model.channels import CloseReason, Kind, Lease
from shared.model.errors import HeldByAnother, NoLongerOwner
from shared.store import keyspace, leases
from shared.store.queues import BEGINNING
from tests.harness.overheard import Overheard
from tests.harness.waiting import wait_until
from tests.store.stores import EDGE, OTHER_EDGE, Stores

CONTESTED = "contested_until_ms"


@pytest.fixture
async def channel(stores: Stores) -> str:
    key, _ = await stores.api_key()
    await stores.channels.create(stores.account_id, key.id, kind=Kind.PULL)
    return key.id


@pytest.fixture
async def first(stores: Stores, channel: str) -> Lease:
    """The lease of the first poll."""
    return await stores.leases.claim_poll(channel, owner=f"{EDGE}/1")


@pytest.fixture
def second(stores: Stores, channel: str, first: Lease) -> Callable[[], Awaitable[asyncio.Task[Lease]]]:
    """Begins to claim for another poll; returns when the lease of the first one is contested."""

    async def claim() -> asyncio.Task[Lease]:
        claiming = asyncio.create_task(stores.leases.claim_poll(channel, owner=f"{OTHER_EDGE}/1"))
        await wait_until(lambda: until_ms(stores, channel) is not None)
        return claiming

    return claim


def until_ms(stores: Stores, channel: str) -> int | None:
    until = stores.direct.hget(keyspace.channel(channel), CONTESTED)
    return int(until) if until else None


def end_time(stores: Stores, channel: str) -> None:
    """The owner's time is over."""
    stores.direct.hset(keyspace.channel(channel), CONTESTED, 1)


async def read(stores: Stores, lease: Lease, *, count: int) -> None:
    await stores.queues.read(lease, after=BEGINNING, count=count, size_bytes=1)


async def test_free_lease_is_claimed(stores: Stores, channel: str, first: Lease) -> None:
    assert (first.owner, first.previous) == (f"{EDGE}/1", "")
    assert first.generation
    assert stores.owner(channel) == f"{EDGE}/1"
    await stores.leases.release(first)

    assert (await stores.leases.claim_poll(channel, owner=f"{OTHER_EDGE}/1")).previous == ""


async def test_owner_that_takes_notifications_keeps_its_lease(
    stores: Stores, channel: str, first: Lease, second: Callable[[], Awaitable[asyncio.Task[Lease]]]
) -> None:
    claiming = await second()

    for _ in range(2):
        await wait_until(lambda: until_ms(stores, channel) is not None)
        await read(stores, first, count=1)

    with pytest.raises(HeldByAnother):
        await claiming
    assert stores.owner(channel) == f"{EDGE}/1"
    assert until_ms(stores, channel) is None


@pytest.mark.parametrize("ends", ["by its release", "by a takeover"])
async def test_read_that_was_sent_before_its_client_went_keeps_no_lease(
    stores: Stores,
    channel: str,
    first: Lease,
    second: Callable[[], Awaitable[asyncio.Task[Lease]]],
    ends: str,
) -> None:
    """Redis executes it when the next poll of the same client has contested the lease already."""
    claiming = await second()
    await read(stores, first, count=1)
    await wait_until(lambda: until_ms(stores, channel) is not None or claiming.done())
    assert not claiming.done(), "one read proves nothing"

    if ends == "by its release":
        await stores.leases.release(first)
    else:
        end_time(stores, channel)

    assert (await claiming).owner == f"{OTHER_EDGE}/1"


async def contested_again(overheard: Overheard) -> set[tuple[str, bytes]]:
    """Waits until a claim has contested the lease once more; returns the wakeups of that."""
    overheard.all()
    wakeups: list[tuple[str, bytes]] = []

    def woken() -> bool:
        wakeups.extend(overheard.all())
        return bool(wakeups)

    await wait_until(woken)
    return set(wakeups)


async def test_owner_that_takes_none_is_waited_for(
    stores: Stores,
    channel: str,
    overheard: Overheard,
    first: Lease,
    second: Callable[[], Awaitable[asyncio.Task[Lease]]],
) -> None:
    claiming = await second()
    for _ in range(3):
        # Far ahead: a claim in between would take over from an owner whose time is over.
        stores.direct.hset(keyspace.channel(channel), CONTESTED, 10**15)
        await read(stores, first, count=0)
        assert 1 < (until_ms(stores, channel) or 0) < 10**15, "it has another second from now"
        await contested_again(overheard)
        assert not claiming.done()

    await stores.leases.release(first)

    assert (await claiming).previous == ""
    assert until_ms(stores, channel) is None


async def test_owner_that_does_not_read_loses_its_lease(
    stores: Stores,
    channel: str,
    overheard: Overheard,
    first: Lease,
    second: Callable[[], Awaitable[asyncio.Task[Lease]]],
) -> None:
    claiming = await second()
    await contested_again(overheard)
    assert not claiming.done(), "it has a second by Redis' clock"
    end_time(stores, channel)

    assert (await claiming).previous == f"{EDGE}/1"
    with pytest.raises(NoLongerOwner) as raised:
        await read(stores, first, count=1)
    assert raised.value.close_reason is CloseReason.TAKEN_OVER
    assert await stores.leases.release(first) is False


async def test_contest_wakes_the_owner_again_and_again(
    stores: Stores, channel: str, overheard: Overheard, second: Callable[[], Awaitable[asyncio.Task[Lease]]]
) -> None:
    await stores.wakeups.flush()
    overheard.all()

    claiming = await second()
    for _ in range(2):
        # One may be lost.
        assert await contested_again(overheard) == {(EDGE, channel.encode())}
    end_time(stores, channel)
    await claiming


async def test_owner_gets_its_whole_time_from_each_contest(
    stores: Stores, channel: str, second: Callable[[], Awaitable[asyncio.Task[Lease]]]
) -> None:
    """An earlier contest may have been given up long ago."""
    claiming = await second()
    claiming.cancel()
    await asyncio.wait([claiming])
    end_time(stores, channel)

    again = asyncio.create_task(stores.leases.claim_poll(channel, owner=f"{OTHER_EDGE}/2"))
    await wait_until(lambda: (until_ms(stores, channel) or 0) > 1)

    assert stores.owner(channel) == f"{EDGE}/1"
    again.cancel()
    await asyncio.wait([again])


async def test_one_of_many_claims_replaces_a_dead_owner(
    stores: Stores, channel: str, overheard: Overheard, first: Lease
) -> None:
    owners = [f"{OTHER_EDGE}/{number}" for number in range(10)]
    claims = [asyncio.create_task(stores.leases.claim_poll(channel, owner=owner)) for owner in owners]
    await wait_until(lambda: until_ms(stores, channel) is not None)
    await contested_again(overheard)
    end_time(stores, channel)
    [winner], rest = await asyncio.wait(claims, return_when=asyncio.FIRST_COMPLETED)
    lease = await winner
    assert lease.previous == first.owner

    async def is_refused(claim: asyncio.Task[Lease]) -> bool:
        await read(stores, lease, count=1)
        return claim.done()

    for claim in rest:
        await wait_until(lambda: is_refused(claim))  # noqa: B023
        with pytest.raises(HeldByAnother):
            await claim


async def test_response_that_is_read_for_long_belongs_to_an_open_poll(
    stores: Stores, channel: str, first: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "_LONGEST_WAIT_S", 0.05)

    with pytest.raises(HeldByAnother):
        await stores.leases.claim_poll(channel, owner=f"{OTHER_EDGE}/1")


async def test_claim_needs_a_channel_of_long_polls(stores: Stores) -> None:
    for channel, reason in (
        (await stores.channel(), CloseReason.NO_CHANNEL),
        (new_id(), CloseReason.KEY_REVOKED),
    ):
        with pytest.raises(NoLongerOwner) as raised:
            await stores.leases.claim_poll(channel, owner=f"{EDGE}/1")
        assert raised.value.close_reason is reason
