"""What a publish costs: one round trip while the tables in memory are current."""

import asyncio

import orjson
import pytest

from shared.model.api_keys import new_id
from shared.model.events import DEVICE_NOTIFICATIONS, Event
from shared.model.routing_table import RoutingTable
from shared.publish import repair
from shared.publish.repair import BindingsKeepChanging
from shared.store import keyspace, routing_tables
from tests.publish.conftest import NewGateway
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


@pytest.mark.parametrize("more", [0, 0.1])
async def test_accounts_beyond_the_size_of_the_cache_cost_little(
    new_gateway: NewGateway, monkeypatch: pytest.MonkeyPatch, more: float
) -> None:
    """Accounts publish in turn. Without a place in the cache a publish takes two round trips."""
    size = 40
    monkeypatch.setattr(routing_tables, "_SMALL_TABLES_BYTES", size * RoutingTable(orjson.loads).size_bytes)
    gateway = new_gateway()
    accounts = [new_id() for _ in range(round(size * (1 + more)))]
    for account in accounts:
        await gateway.publish(event(0), account_id=account)
    gateway.redis.pipelines.clear()

    for number in range(10):
        for account in accounts:
            await gateway.publish(event(number), account_id=account)

    publishes = 10 * len(accounts)
    commands = sum(map(len, gateway.redis.pipelines)) / publishes
    pipelines = gateway.count_pipelines() / publishes
    print(f"{len(accounts)} accounts: {commands:.2f} commands, {pipelines:.2f} round trips a publish")
    assert (commands, pipelines) == (2, 1) if not more else (commands < 3 and pipelines < 1.4)


async def test_table_that_is_not_in_memory_costs_one_round_trip(gateway: Gateway, stores: Stores) -> None:
    await bound_channel(stores)
    await gateway.publish(event(0), account_id=new_id())
    gateway.redis.pipelines.clear()

    accounts = [stores.account_id, stores.account_id, *(new_id() for _ in range(4))]

    await asyncio.gather(*(gateway.publish(event(1), account_id=account) for account in accounts))

    # Then the appends. The second publish to a channel with a new version waits for the first one.
    reading, *_ = gateway.redis.pipelines
    assert sorted(str(c.arguments[0]) for c in reading) == ["EVALSHA"] * 5 + ["HMGET"]
    assert gateway.count_pipelines() <= 4


async def test_publishes_of_one_turn_share_the_reads_of_versions(gateway: Gateway, stores: Stores) -> None:
    topics = [f"t.{number}" for number in range(5)]
    for topic in topics:
        await bound_channel(stores, topic)
    for topic in topics:
        await gateway.publish(event(0, topic))
    gateway.count_pipelines()

    await asyncio.gather(*(gateway.publish(event(1, topic)) for topic in topics))

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
