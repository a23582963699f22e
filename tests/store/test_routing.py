"""Routing tables: what they hold, and their versions."""

import asyncio

import pytest

from shared.model.api_keys import new_id
from shared.model.bindings import Fields, Source
from shared.model.errors import KeyRevoked
from shared.store import keyspace
from tests.store.routing import (
    A_LAMP,
    ANY_DEVICE,
    CHANGES,
    TOPICS,
    Gateway,
    add_line,
    drop_lines,
    one_of_each,
    table_of,
)
from tests.store.stores import Stores


async def test_table_of_another_account_is_empty(stores: Stores) -> None:
    await stores.routing.add_key(stores.account_id, new_id())

    routes = await table_of(stores.routing, new_id())

    assert (set(routes.api_keys), set(routes.channels), dict(routes.bindings)) == (set(), set(), {})


async def test_table_has_keys_channels_and_bindings(stores: Stores) -> None:
    account, key = stores.account_id, new_id()
    await stores.routing.add_key(account, key)
    await stores.routing.add_channel(account, key, generation="1")
    await stores.routing.put_bindings(account, key, A_LAMP)

    routes = await table_of(stores.routing, account)

    assert (set(routes.api_keys), set(routes.channels)) == ({key}, {key})
    lamp = Fields(topic="device.notifications", wanted=(("ep", ("lamp",)), ("ept", ("light",))))
    assert routes.bindings == {key: (lamp,)}
    assert await stores.routing.bindings(account, key) == A_LAMP
    assert await stores.routing.bindings(account, new_id()) is None


@pytest.mark.parametrize("name", [name for name in CHANGES if name != "add a key"])
async def test_repeated_change_keeps_the_version(stores: Stores, name: str) -> None:
    account = stores.account_id
    key = await one_of_each(stores.routing, account)
    versions = []
    for _ in range(2):
        await CHANGES[name](stores.routing, account, key)
        versions.append(stores.direct.hget(keyspace.routing(account), "version"))

    assert versions[0] == versions[1]


async def test_unchanged_table_is_not_read_again(stores: Stores, elsewhere: Gateway) -> None:
    await stores.routing.add_key(stores.account_id, new_id())

    first = await table_of(elsewhere.routing, stores.account_id)

    assert await table_of(elsewhere.routing, stores.account_id) is first


async def test_drop_key_leaves_other_keys(stores: Stores) -> None:
    account, gone, stays = stores.account_id, new_id(), new_id()
    for key in (gone, stays):
        await stores.routing.add_key(account, key)
        await stores.routing.add_channel(account, key, generation="1")
        await stores.routing.put_bindings(account, key, ANY_DEVICE)
        await stores.routing.put_bindings(account, key, TOPICS, source=Source.TOPICS)
        await add_line(stores.routing, account, key)

    await stores.routing.drop_key(account, gone, generation="1")

    routes = await table_of(stores.routing, account)
    assert set(routes.api_keys) == set(routes.channels) == set(routes.bindings) == {stays}
    fields = stores.direct.hkeys(keyspace.routing(account))
    assert not [field for field in fields if gone.encode() in field]


async def test_version_lost_in_a_crash_is_never_used_again(stores: Stores, elsewhere: Gateway) -> None:
    account, lost, kept = stores.account_id, new_id(), new_id()
    name = keyspace.routing(account)
    await stores.routing.add_key(account, new_id())
    on_disk = stores.direct.hgetall(name)
    await stores.routing.add_key(account, lost)
    assert lost in (await table_of(elsewhere.routing, account)).api_keys

    # Redis restarts without its last write, and another change follows.
    stores.direct.delete(name)
    stores.direct.hset(name, mapping=on_disk)
    await stores.routing.add_key(account, kept)

    api_keys = (await table_of(elsewhere.routing, account)).api_keys
    assert kept in api_keys
    assert lost not in api_keys


async def test_concurrent_changes_are_all_kept(stores: Stores, elsewhere: Gateway) -> None:
    keys = [new_id() for _ in range(50)]
    both = (stores.routing, elsewhere.routing)

    await asyncio.gather(*(both[n % 2].add_key(stores.account_id, key) for n, key in enumerate(keys)))

    assert (await table_of(elsewhere.routing, stores.account_id)).api_keys == frozenset(keys)


# Bindings that are stored as lines


async def lines(stores: Stores, key: str) -> bytes | None:
    return await stores.routing.bindings(stores.account_id, key, Source.RESOURCES)


async def test_lines_are_added_once_and_dropped_by_prefix(stores: Stores) -> None:
    account, key = stores.account_id, new_id()
    await stores.routing.add_key(account, key)
    added = ("lamp\t/3\n", "lamp\t/3/0\n", "amp\t/3\n", "lamp\t/3\n")
    outcomes = [await add_line(stores.routing, account, key, line) for line in added]
    assert outcomes == [True] * 4

    await drop_lines(stores.routing, account, key, "lamp\t/3\n")
    assert await lines(stores, key) == b"lamp\t/3/0\namp\t/3\n"
    await drop_lines(stores.routing, account, key, "lamp\t")
    assert await lines(stores, key) == b"amp\t/3\n"
    await drop_lines(stores.routing, account, key, "amp\t")
    assert await lines(stores, key) is None


async def test_limit_of_lines_does_not_refuse_existing_ones(stores: Stores) -> None:
    account, key = stores.account_id, new_id()
    await stores.routing.add_key(account, key)
    outcomes = [await add_line(stores.routing, account, key, f"lamp\t/{n}\n") for n in range(10)]

    assert outcomes == [True] * 9 + [False]
    assert await add_line(stores.routing, account, key, "lamp\t/4\n"), "it is there already"


async def test_revoked_key_gets_no_line(stores: Stores) -> None:
    with pytest.raises(KeyRevoked):
        await add_line(stores.routing, stores.account_id, new_id())


# Device types


async def learn(stores: Stores, account: str, types: dict[str, str | None]) -> None:
    await asyncio.gather(*stores.routing.learn_device_types(account, types))


async def test_device_types_round_trip(stores: Stores, elsewhere: Gateway) -> None:
    account = stores.account_id

    await learn(stores, account, {"lamp": "light", "dörte": "tür", "old": "x"})
    await learn(stores, account, {"lamp": "lamp-2", "old": None, "never": None})

    found = await elsewhere.routing.device_types(account, ["lamp", "old", "dörte", "never"])
    assert found == {"lamp": "lamp-2", "dörte": "tür"}


async def test_learning_no_types_is_allowed(stores: Stores) -> None:
    await learn(stores, stores.account_id, {})

    assert await stores.routing.device_types(stores.account_id, ["lamp"]) == {}


async def test_device_types_of_accounts_are_separate(stores: Stores) -> None:
    await learn(stores, stores.account_id, {"lamp": "light"})

    assert await stores.routing.device_types(new_id(), ["lamp"]) == {}
