"""What a gateway knows of an account: what one changes is seen by all others at once."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import pytest
from redis.asyncio import Redis

from shared.model.api_keys import new_id
from shared.model.bindings import Fields
from shared.store import keyspace
from shared.store.routes import Routing
from tests.store.stores import Backend, Stores

ANY_DEVICE = b'[{"endpoint-name":"*"}]'
A_LAMP = b'[{"endpoint-name":"lamp","endpoint-type":"light"}]'
OTHER = "0" * 32
Change: TypeAlias = Callable[[Routing, str, str], Awaitable[None]]

CHANGES: dict[str, Change] = {
    "add a key": lambda routing, account, _: routing.add_key(account, new_id()),
    "drop a key": lambda routing, account, key: routing.drop_key(account, key, incarnation="1"),
    "add a channel": lambda routing, account, key: routing.add_channel(account, OTHER, incarnation="2"),
    "drop a channel": lambda routing, account, key: routing.drop_channel(account, key, incarnation="1"),
    "put bindings": lambda routing, account, key: routing.put_bindings(account, key, A_LAMP),
    "drop bindings": lambda routing, account, key: routing.drop_bindings(account, key),
}


@pytest.fixture
def elsewhere(redis: Redis, backend: Backend) -> Stores:
    """Another gateway, with a copy of its own."""
    return Stores(redis, backend)


async def test_an_account_of_which_nothing_is_known(stores: Stores) -> None:
    routes = await stores.routing.routes(new_id())

    assert (routes.api_keys, routes.channels, routes.bindings) == (frozenset(), frozenset(), {})


async def test_routes_hold_what_was_set(stores: Stores) -> None:
    account, key = stores.account_id, new_id()
    await stores.routing.add_key(account, key)
    await stores.routing.add_channel(account, key, incarnation="1")
    await stores.routing.put_bindings(account, key, A_LAMP)

    routes = await stores.routing.routes(account)

    assert (routes.api_keys, routes.channels) == (frozenset({key}), frozenset({key}))
    lamp = Fields(topic="device.notifications", wanted=(("ep", ("lamp",)), ("ept", ("light",))))
    assert routes.bindings == {key: (lamp,)}
    assert await stores.routing.bindings(account, key) == A_LAMP
    assert await stores.routing.bindings(account, new_id()) is None


@pytest.mark.parametrize("name", CHANGES)
async def test_a_change_is_seen_elsewhere_at_once(stores: Stores, elsewhere: Stores, name: str) -> None:
    account, key = stores.account_id, new_id()
    for each in (key, OTHER):
        await stores.routing.add_key(account, each)
    await stores.routing.add_channel(account, key, incarnation="1")
    await stores.routing.put_bindings(account, key, ANY_DEVICE)
    before = await elsewhere.routing.routes(account)

    await CHANGES[name](stores.routing, account, key)

    after = await elsewhere.routing.routes(account)
    assert after.version != before.version
    known = [(routes.api_keys, routes.channels, dict(routes.bindings)) for routes in (before, after)]
    assert known[0] != known[1]


async def test_what_did_not_change_is_not_read_again(stores: Stores, elsewhere: Stores) -> None:
    await stores.routing.add_key(stores.account_id, new_id())

    first = await elsewhere.routing.routes(stores.account_id)

    assert await elsewhere.routing.routes(stores.account_id) is first


async def test_an_account_knows_nothing_of_another(stores: Stores) -> None:
    await stores.routing.add_key(stores.account_id, new_id())

    assert (await stores.routing.routes(new_id())).api_keys == frozenset()


async def test_dropping_a_key_leaves_the_others(stores: Stores) -> None:
    account, gone, stays = stores.account_id, new_id(), new_id()
    for key in (gone, stays):
        await stores.routing.add_key(account, key)
        await stores.routing.add_channel(account, key, incarnation="1")
        await stores.routing.put_bindings(account, key, ANY_DEVICE)

    await stores.routing.drop_key(account, gone, incarnation="1")

    routes = await stores.routing.routes(account)
    assert set(routes.api_keys) == set(routes.channels) == set(routes.bindings) == {stays}


async def test_versions_are_random_so_that_a_lost_write_is_not_mistaken_for_another(
    stores: Stores, elsewhere: Stores
) -> None:
    account, lost, kept = stores.account_id, new_id(), new_id()
    name = keyspace.routes(account)
    await stores.routing.add_key(account, new_id())
    on_disk = stores.direct.hgetall(name)
    await stores.routing.add_key(account, lost)
    assert lost in (await elsewhere.routing.routes(account)).api_keys

    # Redis comes back without its last write, and takes another in its place.
    stores.direct.delete(name)
    stores.direct.hset(name, mapping=on_disk)
    await stores.routing.add_key(account, kept)

    api_keys = (await elsewhere.routing.routes(account)).api_keys
    assert kept in api_keys
    assert lost not in api_keys


async def test_many_changes_at_once_are_all_kept(stores: Stores, elsewhere: Stores) -> None:
    keys = [new_id() for _ in range(50)]
    both = (stores.routing, elsewhere.routing)

    await asyncio.gather(*(both[n % 2].add_key(stores.account_id, key) for n, key in enumerate(keys)))

    assert (await elsewhere.routing.routes(stores.account_id)).api_keys == frozenset(keys)


# Device types


async def test_device_types_are_learnt_and_forgotten(stores: Stores, elsewhere: Stores) -> None:
    account = stores.account_id

    await stores.routing.learn_device_types(account, {"lamp": "light", "dörte": "tür", "old": "x"})
    await stores.routing.learn_device_types(account, {"lamp": "lamp-2", "old": None, "never": None})

    found = await elsewhere.routing.device_types(account, ["lamp", "old", "dörte", "never"])
    assert found == {"lamp": "lamp-2", "dörte": "tür"}


async def test_learning_nothing_is_no_call(stores: Stores) -> None:
    await stores.routing.learn_device_types(stores.account_id, {})

    assert await stores.routing.device_types(stores.account_id, ["lamp"]) == {}


async def test_device_types_are_an_accounts_own(stores: Stores) -> None:
    await stores.routing.learn_device_types(stores.account_id, {"lamp": "light"})

    assert await stores.routing.device_types(new_id(), ["lamp"]) == {}
