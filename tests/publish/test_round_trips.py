"""What a publish costs: one round trip while the tables in memory are current."""

import asyncio

import pytest

from shared.model.api_keys import new_id
from shared.model.events import DEVICE_NOTIFICATIONS, Event
from shared.publish import repair
from shared.publish.repair import BindingsKeepChanging
from shared.store import keyspace
from tests.publish.publishing import Gateway, bind, bound_channel, event, queued
from tests.store.stores import Stores


async def test_publish_takes_one_round_trip(gateway: Gateway, stores: Stores) -> None:
    channels = [await bound_channel(stores) for _ in range(3)]
    await gateway.publish(event(0))

    for number in range(1, 6):
        gateway.count_pipelines()
        assert await gateway.publish(event(number)) == [3]
        assert gateway.count_pipelines() == 1

    assert [queued(stores, channel) for channel in channels] == [[*"012345"]] * 3


async def test_publish_to_one_of_a_thousand_accounts_reads_no_tables(
    gateway: Gateway, stores: Stores
) -> None:
    await bound_channel(stores)
    accounts = [stores.account_id, *(new_id() for _ in range(1000))]
    await asyncio.gather(*(gateway.publish(event(1), account_id=account) for account in accounts))
    assert await gateway.is_idle()

    for account in accounts[:10]:
        gateway.count_pipelines()
        await gateway.publish(event(2), account_id=account)
        [commands] = gateway.redis.pipelines
        names = [command.arguments[0] for command in commands]
        assert {"HGET", "HMGET"} <= set(names), "the versions of both tables"
        assert len(names) == 2 + (account == stores.account_id)


async def test_publishes_of_one_turn_share_the_reads_of_versions(gateway: Gateway, stores: Stores) -> None:
    await bound_channel(stores)
    await gateway.publish(event(0))
    gateway.count_pipelines()

    await asyncio.gather(*(gateway.publish(event(number)) for number in range(1, 6)))

    [commands] = gateway.redis.pipelines
    assert len(commands) == 5 + 2


async def test_change_of_other_bindings_costs_one_repair(gateway: Gateway, stores: Stores) -> None:
    channel, other = await bound_channel(stores), await bound_channel(stores, "other")
    for topic in ("orders", "other"):
        await gateway.publish(event(0, topic))
    await bind(stores, other, "others")

    costs = []
    for number in range(1, 4):
        gateway.count_pipelines()
        await gateway.publish(event(number))
        costs.append(gateway.count_pipelines())

    assert costs[0] > 1
    assert costs[1:] == [1, 1]
    assert queued(stores, channel) == [*"0123"]


async def test_stored_device_types_cost_one_more_round_trip(gateway: Gateway, stores: Stores) -> None:
    channel = await stores.channel()
    await stores.routing.put_bindings(stores.account_id, channel, b'[{"endpoint-type":"light"}]')
    lamp = Event("1", DEVICE_NOTIFICATIONS, b"{}", fields={"ep": "lamp", "path": "/3"})
    await gateway.publish(lamp)
    gateway.count_pipelines()

    await gateway.publish(lamp)

    assert gateway.count_pipelines() == 3, "the versions, the types, the appends"


async def test_repairs_end_when_the_table_never_comes_to_rest(gateway: Gateway, stores: Stores) -> None:
    await bound_channel(stores)
    gateway.redis.before = lambda: stores.direct.hset(
        keyspace.routing(stores.account_id), "version", new_id()
    )

    with pytest.raises(BindingsKeepChanging):
        await gateway.publish(event(1))

    # The version, the changes, the size and the whole table, the append.
    assert gateway.count_pipelines() <= 5 * (repair._ROUNDS + 1)
    assert await gateway.is_idle()
    gateway.redis.before = None
    assert await gateway.publish(event(2)) == [1]
