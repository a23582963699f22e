"""The reaper and native channels: unfinished and idle ones end, and names are repaired."""

from services.expiry_reaper.reaper import Reaper
from shared.model.account_channels import ChannelSettings
from shared.model.channels import Kind
from shared.store import keyspace
from shared.store.account_channels import CREATION_MS
from tests.expiry_reaper.conftest import DAY_MS, run_round
from tests.expiry_reaper.test_walk import walk, walk_again
from tests.store.native import create, listed, receivers
from tests.store.stores import Stores


async def test_an_unfinished_channel_ends_after_a_minute(stores: Stores, reaper: Reaper) -> None:
    unfinished, finished = await create(stores, name="n"), await create(stores)
    stores.direct.hset(keyspace.channel(unfinished), "unfinished", 1)
    await run_round(reaper)
    assert stores.direct.exists(keyspace.api_key(unfinished))
    due_ms = stores.due_ms(unfinished)
    assert due_ms is not None
    assert due_ms <= stores.now_ms() + CREATION_MS

    stores.age(unfinished, by_ms=CREATION_MS)
    await run_round(reaper)

    assert not stores.direct.exists(*keyspace.channel_names(unfinished))
    assert await listed(stores) == [finished]
    assert await receivers(stores) == {finished}
    assert stores.direct.zcard(keyspace.names_of_channels(stores.account_id)) == 0


async def test_a_native_channel_ends_by_its_own_expiry_alone(stores: Stores, reaper: Reaper) -> None:
    hour = ChannelSettings(expires_after_ms=3600_000)
    ends = [await create(stores, kind=kind, name=kind, settings=hour) for kind in Kind]
    stays = [await create(stores, kind=kind) for kind in Kind]
    await run_round(reaper)
    for channel in (*ends, *stays):
        stores.age(channel, by_ms=3600_000 if channel in ends else 100 * DAY_MS)

    assert sorted((await run_round(reaper)).visited.expired) == sorted(ends)

    assert await listed(stores) == sorted(stays)
    assert await receivers(stores) == set(stays)
    assert not any(stores.direct.exists(keyspace.api_key(channel)) for channel in ends)
    assert stores.direct.scard(keyspace.WEBHOOKS) == 1
    assert stores.direct.zcard(keyspace.names_of_channels(stores.account_id)) == 0


async def test_a_queue_with_a_shorter_age_is_visited_earlier(stores: Stores, reaper: Reaper) -> None:
    channel = await create(stores, settings=ChannelSettings(queue_age_ms=3600_000))
    await stores.queued(channel, 1)
    await run_round(reaper)

    due_ms = stores.due_ms(channel)

    assert due_ms is not None
    assert due_ms <= stores.now_ms() + 3600_000


async def test_what_the_account_has_lost_of_a_native_channel_is_written_again(
    stores: Stores, reaper: Reaper
) -> None:
    channel = await create(stores, name="n", customer="c")
    stores.direct.delete(
        keyspace.routing(stores.account_id),
        keyspace.channel_ids(stores.account_id),
        keyspace.names_of_channels(stores.account_id),
    )

    assert await walk(reaper) == 2

    assert await listed(stores) == await listed(stores, name_prefix="n") == [channel]
    assert await receivers(stores, to="n") == {channel}
    walk_again(stores)
    assert await walk(reaper) == 0


async def test_names_without_their_channels_are_dropped(stores: Stores, reaper: Reaper) -> None:
    channel = await create(stores, name="n")
    names = keyspace.names_of_channels(stores.account_id)
    stores.direct.zadd(names, {f"old\0{channel}": 0, "gone\0" + "0" * 32: 0})

    await walk(reaper)

    assert stores.direct.zrange(names, 0, -1) == [f"n\0{channel}".encode()]
