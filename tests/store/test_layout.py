"""The version of the data layout: the first process writes it, and each later one compares."""

import asyncio

import pytest
from redis.asyncio import Redis

from shared.model.errors import WrongLayout
from shared.store import keyspace
from shared.store.commands import commands_to
from shared.store.layout import check_layout
from tests.store.stores import Stores

OURS = str(keyspace.LAYOUT_VERSION).encode()


async def test_first_process_writes_the_version(stores: Stores) -> None:
    await check_layout(stores.calls)
    assert stores.direct.get(keyspace.LAYOUT) == OURS

    await check_layout(stores.calls)


async def test_processes_may_start_together(stores: Stores, redis: Redis) -> None:
    await asyncio.gather(*(check_layout(commands_to(redis)) for _ in range(10)))

    assert stores.direct.get(keyspace.LAYOUT) == OURS


@pytest.mark.parametrize("found", [keyspace.LAYOUT_VERSION + 1, keyspace.LAYOUT_VERSION - 1, "a\nb"])
async def test_another_version_is_refused_in_one_line(stores: Stores, found: int | str) -> None:
    stores.direct.set(keyspace.LAYOUT, found)

    with pytest.raises(WrongLayout) as raised:
        await check_layout(stores.calls)

    [line] = str(raised.value).splitlines()
    assert repr(str(found)) in line
    assert f"'{keyspace.LAYOUT_VERSION}'" in line
    assert "empty the database" in line
    assert stores.direct.get(keyspace.LAYOUT) == str(found).encode()
