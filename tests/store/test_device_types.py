"""Device types: an account's are bounded in number, size and age."""

import asyncio

from shared.model.api_keys import new_id
from shared.store import keyspace
from shared.store.device_types import DeviceTypes
from tests.store.stores import Stores

DAY_MS = 24 * 3600 * 1000


async def learn(types: DeviceTypes, account: str, known: dict[str, str | None]) -> int:
    return sum(await asyncio.gather(*types.learn(account, known)))


def sizes(stores: Stores, account: str) -> list[int]:
    return [stores.direct.hlen(name) for name in keyspace.device_types(account)]


async def test_those_that_registered_longest_ago_are_forgotten(stores: Stores) -> None:
    account, types = new_id(), DeviceTypes(stores.calls, most_devices=20)

    for number in range(100):
        await learn(types, account, {f"lamp-{number}": "light", "first": "heater"})

    assert sum(sizes(stores, account)) <= 22
    found = await types.find(account, ["first", "lamp-99", "lamp-95", "lamp-1"])
    assert found == {"first": "heater", "lamp-99": "light", "lamp-95": "light"}


async def test_a_large_request_learns_in_bounded_steps(stores: Stores) -> None:
    account, types = new_id(), DeviceTypes(stores.calls, most_devices=100_000)
    known: dict[str, str | None] = {f"lamp-{n}": "light" for n in range(10_000)}

    replies = types.learn(account, known)
    assert len(replies) == 40
    grown = sum(await asyncio.gather(*replies))

    assert len(await types.find(account, list(known))) == 10_000
    used = stores.direct.memory_usage(keyspace.device_types(account)[0], samples=0)
    assert 0.7 * used < grown < 1.4 * used


async def test_a_type_is_kept_for_half_of_the_time_at_least_and_then_forgotten(stores: Stores) -> None:
    account, types = new_id(), DeviceTypes(stores.calls)
    young, old = keyspace.device_types(account)
    await learn(types, account, {"lamp": "light"})
    assert 59 * DAY_MS < stores.direct.pttl(young) <= 60 * DAY_MS

    await learn(types, account, {"next": "light"})
    assert not stores.direct.exists(old)

    stores.direct.pexpire(young, 30 * DAY_MS - 1)
    await learn(types, account, {"last": "light"})
    assert len(await types.find(account, ["lamp", "next", "last"])) == 3
    assert stores.direct.pttl(old) < 30 * DAY_MS
    assert stores.direct.pttl(young) > 59 * DAY_MS

    stores.direct.pexpire(young, 30 * DAY_MS - 1)
    await learn(types, account, {"lamp": "light"})
    assert (await types.find(account, ["lamp", "next", "last"])).keys() == {"lamp", "last"}


async def test_long_names_and_types_take_no_more_than_others(stores: Stores) -> None:
    account, types = new_id(), DeviceTypes(stores.calls)
    name, kind = "n" * 100_000, "t" * 100_000

    assert await learn(types, account, {name: kind}) < 200

    assert await types.find(account, [name, name + "n"]) == {name: "t" * 65}


async def test_what_is_forgotten_is_counted_once(stores: Stores) -> None:
    account, types = new_id(), DeviceTypes(stores.calls)

    assert await learn(types, account, {"lamp": "light"}) > 0
    assert await learn(types, account, {"lamp": "light"}) == 0
    assert await learn(types, account, {"lamp": None}) < 0
    assert await learn(types, account, {"lamp": None}) == 0


async def test_an_account_that_is_being_deleted_learns_nothing(stores: Stores) -> None:
    account, types = new_id(), DeviceTypes(stores.calls)
    stores.direct.hset(keyspace.account(account), "deleting", "1")

    assert await learn(types, account, {"lamp": "light"}) == 0

    assert sizes(stores, account) == [0, 0]
    stores.direct.delete(keyspace.account(account))
