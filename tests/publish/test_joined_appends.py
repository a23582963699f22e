"""Publishes of an account that wait for each other share appends, and each channel keeps its order."""

import asyncio
import random

import fakeredis
import pytest

from shared.model.errors import StoreUnavailable
from shared.model.events import Event
from shared.publish.lots import LOT_COST
from tests.publish.publishing import WIDE, Gateway, appends, bind, bound_channel, event, queued, turns
from tests.store.stores import Stores


async def test_publishes_that_wait_share_appends_in_the_order_of_arrival(
    gateway: Gateway, channels: list[str], stores: Stores
) -> None:
    """Each goes to other channels too, in another order; one to a single channel is among them."""
    first, last = channels[0], channels[-1]
    everywhere = [asyncio.create_task(gateway.publish(event(n))) for n in range(1, 12)]
    alone = asyncio.create_task(gateway.publish(event(12, to=first)))
    behind = [asyncio.create_task(gateway.publish(event(n))) for n in range(13, 16)]

    counts = await asyncio.gather(*everywhere, alone, *behind)

    assert counts == [[WIDE]] * 11 + [[1]] + [[WIDE]] * 3
    numbers = [str(n) for n in range(16)]
    assert queued(stores, first) == numbers
    assert queued(stores, last) == [n for n in numbers if n != "12"]
    assert {tuple(queued(stores, channel)) for channel in channels[1:]} == {tuple(queued(stores, last))}
    per_pipeline = appends(gateway)
    # Two of them are sent as far as they fit before others wait.
    assert sum(per_pipeline) < 7 * WIDE, "of 14 times so many"
    assert max(per_pipeline) <= LOT_COST // 4 + 1


@pytest.mark.parametrize("seed", range(5))
async def test_any_publishes_at_once_reach_each_channel_once_and_in_order(
    gateway: Gateway, stores: Stores, seed: int
) -> None:
    # None is so wide that it is matched in turns: others may pass that.
    choose = random.Random(seed)
    topics = [f"t{n}" for n in range(8)]
    of_channel = {}
    for _ in range(40):
        wanted = choose.sample(topics, choose.randint(1, 5))
        of_channel[await bound_channel(stores, *wanted)] = wanted
    await gateway.publish(event(0, "none"))
    numbers, publishes = iter(range(1, 10_000)), list[list[Event]]()
    for _ in range(30):
        events = [event(next(numbers), choose.choice(topics)) for _ in range(choose.choice([1, 2, 5, 20]))]
        if choose.random() < 0.2:
            events = [each._replace(to=choose.choice(list(of_channel))) for each in events]
        elif choose.random() < 0.2:
            events[0] = events[0]._replace(receipt=True)
        elif choose.random() < 0.2:
            events[0] = events[0]._replace(data=b"1" * 10_000)
        publishes.append(events)

    await asyncio.gather(*(gateway.publish(*events) for events in publishes))

    for channel, wanted in of_channel.items():
        own = [e for es in publishes for e in es if e.to == channel or (e.to is None and e.topic in wanted)]
        assert queued(stores, channel) == [each.id for each in own]


async def test_publish_with_a_receipt_joins_no_other(
    gateway: Gateway, channels: list[str], stores: Stores
) -> None:
    wanted = [event(n)._replace(receipt=n == 3) for n in range(1, 6)]
    await asyncio.gather(*(gateway.publish(each) for each in wanted))

    assert {tuple(queued(stores, channel)) for channel in channels} == {("0", "1", "2", "3", "4", "5")}


async def test_channel_that_refuses_a_shared_append_is_repaired_for_each(
    gateway: Gateway, channels: list[str], stores: Stores
) -> None:
    """Its bindings change in Redis alone: the gateway finds out by the refusals."""
    publishing = [asyncio.create_task(gateway.publish(event(n, "orders"))) for n in range(1, 6)]
    while not sum(appends(gateway)):
        await turns(1)
    await bind(stores, channels[-1], "other")
    await bind(stores, channels[-2], "orders", "other")

    counts = await asyncio.gather(*publishing)

    ids = [queued(stores, channel) for channel in channels]
    assert ids[:-1] == [["0", "1", "2", "3", "4", "5"]] * (WIDE - 1)
    assert counts == [[sum(str(n) in each for each in ids)] for n in range(1, 6)]
    assert await gateway.is_idle()


@pytest.mark.parametrize("lost_at", [1, 2, 3, 5])
async def test_lost_redis_ends_all_that_share_appends(
    gateway: Gateway, channels: list[str], stores: Stores, server: fakeredis.FakeServer, lost_at: int
) -> None:
    def lose() -> None:
        server.connected = len(gateway.redis.pipelines) != lost_at

    gateway.redis.before = lose
    results = await asyncio.gather(*(gateway.publish(event(n)) for n in range(1, 8)), return_exceptions=True)

    gateway.redis.before, server.connected = None, True
    failed = [n for n, result in enumerate(results, start=1) if isinstance(result, StoreUnavailable)]
    assert failed
    assert [result for result in results if not isinstance(result, StoreUnavailable)] == [[WIDE]] * (
        7 - len(failed)
    )
    taken = [queued(stores, channel) for channel in channels]
    assert all(each == sorted(set(each)) for each in taken), "once and in order"
    for number in set(range(1, 8)) - set(failed):
        assert all(str(number) in each for each in taken), "what was answered is there"
    assert await gateway.is_idle()
