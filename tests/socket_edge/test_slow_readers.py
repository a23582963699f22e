"""A reader who has no room for the pages of a gap holds up nobody, and gets them when it has."""

from collections.abc import AsyncIterator

import pytest

from shared.model.streams import Start
from tests.harness.waiting import wait_until
from tests.socket_edge.topics import Dropping, Hubs, hears, numbers, running_hub
from tests.store.conftest import _one_slot, backend, redis, shared_valkey, stores
from tests.store.stores import Stores

__all__ = ["_one_slot", "backend", "redis", "shared_valkey", "stores"]

PAGE = 100


@pytest.fixture
async def hubs(stores: Stores) -> AsyncIterator[Hubs]:
    async with running_hub(stores) as hubs:
        yield hubs


async def test_a_slow_reader_in_a_gap_holds_up_nobody(hubs: Hubs) -> None:
    await hubs.publish(500)
    live, slow = await hubs.joined(), hubs.join(Start.EARLIEST)
    slow.room.clear()
    await wait_until(lambda: slow.pages == 1)
    quick = await hubs.joined(Start.EARLIEST)
    await hubs.publish(2)
    await hears(live, ["500", "501"])
    await hears(quick, numbers(0, 502))
    assert slow.ids == [*numbers(0, PAGE)], "no page without room"
    slow.room.set()
    await hears(slow, numbers(0, 502))


async def test_a_reader_who_ends_in_a_gap_leaves(hubs: Hubs) -> None:
    await hubs.publish(500)
    ends = hubs.join(Start.EARLIEST)
    ends.room.clear()
    await wait_until(lambda: ends.pages == 1)
    ends.has_ended = True
    ends.room.set()
    await wait_until(lambda: ends.reading.has_left)
    assert not hubs.feed().readings


async def test_more_than_a_page_is_read_as_each_reader_has_room(
    hubs: Hubs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Live readers who have missed much: their buffers are bounded."""
    slow, quick = await hubs.joined(), await hubs.joined()
    slow.room.clear()
    with monkeypatch.context() as patched:
        Dropping(hubs, patched, lambda: True)
        await hubs.publish(400)
    await hubs.publish(1)
    await hears(quick, numbers(0, 401))
    assert slow.pages == 1
    assert slow.ids == []
    slow.room.set()
    await hears(slow, numbers(0, 401))
    assert len(slow.starts) == len(quick.starts) == 1
