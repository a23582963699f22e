"""Readers of topics on a real Valkey: where they begin, and that they miss nothing and get nothing twice."""

from collections.abc import AsyncIterator

import pytest

from tests.harness.waiting import wait_until
from tests.socket_edge.topics import Hubs, running_hub
from tests.store.conftest import _one_slot, backend, redis, shared_valkey, stores
from tests.store.stores import Stores

__all__ = ["_one_slot", "backend", "redis", "shared_valkey", "stores"]


@pytest.fixture
async def hubs(stores: Stores) -> AsyncIterator[Hubs]:
    async with running_hub(stores) as hubs:
        yield hubs


async def test_it_begins_at_the_end(hubs: Hubs) -> None:
    offsets = await hubs.publish(3)
    reader = await hubs.joined()
    assert [each.mark.offset for each in reader.starts] == [offsets[-1]]
    assert reader.ids == []
    await hubs.publish(2)
    await wait_until(lambda: reader.ids == ["3", "4"])
