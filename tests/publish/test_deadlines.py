"""A publish that has a deadline: what Redis refuses as late ends it, and only it."""

import asyncio

import pytest

from shared.model.errors import DeadlinePassed
from shared.model.events import DEVICE_REGISTRATIONS, Event
from shared.model.idempotency import Deadline
from shared.store.idempotency import PASSED_MS
from tests.publish.publishing import Gateway, bound_channel, event, listen, posted, queued, turns
from tests.store.stores import Stores

WIDE = 150
"""Channels: three lots."""
FAR_AHEAD_MS = 10**14
# Other commands have fewer arguments.
_OF_AN_APPEND = 10


async def publish(gateway: Gateway, deadline: Deadline, *events: Event) -> list[int]:
    return await gateway.publisher.publish(posted(gateway.stores.account_id, *events), deadline=deadline)


@pytest.fixture
async def channel(gateway: Gateway, stores: Stores) -> str:
    """A channel with a binding that the gateway knows."""
    channel = await bound_channel(stores)
    await gateway.publish(event(0))
    return channel


async def test_within_its_deadline_a_publish_is_as_any_other(
    gateway: Gateway, stores: Stores, channel: str
) -> None:
    session = await listen(stores, "orders")
    one = event(1)._replace(receipt=True)

    assert await publish(gateway, Deadline(FAR_AHEAD_MS), one) == [2]

    assert (queued(stores, channel), queued(stores, session)) == (["0", "1"], ["1"])
    assert await stores.receipts.find(stores.account_id, "1") is not None


@pytest.mark.parametrize("is_behind", [False, True])
async def test_after_its_deadline_nothing_of_it_is_written(
    gateway: Gateway, stores: Stores, channel: str, is_behind: bool
) -> None:
    session = await listen(stores, "orders")
    if not is_behind:
        await gateway.publish(event(1))
    one = event(2)._replace(receipt=True)

    with pytest.raises(DeadlinePassed):
        await publish(gateway, Deadline(PASSED_MS), one)

    assert "2" not in queued(stores, channel) + queued(stores, session)
    assert await stores.receipts.find(stores.account_id, "2") is None
    assert await gateway.is_idle()


async def test_a_late_device_type_does_not_replace_a_newer_one(gateway: Gateway, stores: Stores) -> None:
    """No channel gets the event: only the type is late."""

    def registered(kind: str) -> Event:
        return event(1, DEVICE_REGISTRATIONS)._replace(fields={"ep": "lamp", "ept": kind})

    await gateway.publish(registered("new"))

    with pytest.raises(DeadlinePassed):
        await publish(gateway, Deadline(PASSED_MS), registered("old"))

    assert await stores.routing.device_types(stores.account_id, ["lamp"]) == {"lamp": "new"}


async def test_a_deadline_that_passes_on_the_way_ends_a_wide_publish_and_no_other(
    gateway: Gateway, stores: Stores
) -> None:
    channels = [await bound_channel(stores) for _ in range(WIDE)]
    await gateway.publish(event(0))
    deadline = Deadline(FAR_AHEAD_MS)
    wide = asyncio.create_task(publish(gateway, deadline, event(1)))
    await turns(1)
    deadline.ms = PASSED_MS
    behind = asyncio.create_task(gateway.publish(event(2)))

    with pytest.raises(DeadlinePassed):
        await wide

    assert await behind == [WIDE]
    took = sum(queued(stores, each) == ["0", "1", "2"] for each in channels)
    assert 0 < took < WIDE
    assert all(queued(stores, each) in (["0", "1", "2"], ["0", "2"]) for each in channels)
    assert await gateway.is_idle()


async def test_a_later_lot_names_the_deadline_of_then(gateway: Gateway, stores: Stores) -> None:
    channels = [await bound_channel(stores) for _ in range(WIDE)]
    await gateway.publish(event(0))
    deadline = Deadline(FAR_AHEAD_MS)
    gateway.count_pipelines()
    wide = asyncio.create_task(publish(gateway, deadline, event(1)))
    await turns(1)
    deadline.ms = FAR_AHEAD_MS + 1

    assert await wide == [WIDE]

    appends = [each for lot in gateway.redis.pipelines for each in lot if len(each.arguments) > _OF_AN_APPEND]
    named = [FAR_AHEAD_MS in each.arguments for each in appends]
    assert (len(channels), len(named)) == (WIDE, WIDE)
    assert named[0]
    assert not named[-1]
