"""Freshness of routing tables: how long a check holds, and how long a change waits."""

import time
from collections.abc import Callable

import pytest
from redis.asyncio import Redis

from shared.model.api_keys import new_id
from shared.store.routing import Routing
from shared.store.routing_table_cache import FRESH_S, SPREAD_S
from shared.wire.pelion.subscriptions import compiled
from tests.store.routing import RecordingPipeline
from tests.store.stores import Backend

LONG_S = 3600.0
MAKE = Callable[..., Routing]


@pytest.fixture
def calls(redis: Redis, backend: Backend) -> RecordingPipeline:
    return RecordingPipeline(redis, scripts=backend.scripts)


@pytest.fixture
def gateway(calls: RecordingPipeline) -> MAKE:
    """Makes the routing of one more gateway."""
    return lambda **times: Routing(calls, compiled, **times)


async def test_fresh_table_is_not_checked_again(calls: RecordingPipeline, gateway: MAKE) -> None:
    routing = gateway(fresh_s=LONG_S)
    account = new_id()

    for _ in range(5):
        await routing.tables_for_publish(account)

    assert calls.checks == 2, "one for the account, one for all accounts"


async def test_stale_table_is_checked_each_time(calls: RecordingPipeline, gateway: MAKE) -> None:
    routing = gateway(fresh_s=0)

    for _ in range(5):
        await routing.table(new_id())

    assert calls.checks == 5


async def test_change_waits_until_older_checks_have_run_out(gateway: MAKE) -> None:
    began_s = time.monotonic()

    await gateway(spread_s=0.1).add_key(new_id(), new_id())

    assert time.monotonic() - began_s >= 0.1
    assert SPREAD_S > FRESH_S


async def test_finished_change_is_seen_by_every_gateway(gateway: MAKE) -> None:
    here, elsewhere, account = gateway(), gateway(), new_id()

    for _ in range(20):
        await elsewhere.table(account)
        await here.add_key(account, key := new_id())
        assert key in (await elsewhere.table(account)).api_keys


async def test_without_the_wait_a_gateway_could_miss_a_change(gateway: MAKE) -> None:
    here, elsewhere, account = gateway(spread_s=0), gateway(fresh_s=LONG_S), new_id()
    await here.add_key(account, new_id())
    await elsewhere.table(account)

    await here.add_key(account, key := new_id())

    assert key not in (await elsewhere.table(account)).api_keys


async def test_table_is_not_fresh_while_it_is_updated(gateway: MAKE) -> None:
    here, elsewhere, account = gateway(), gateway(fresh_s=LONG_S), new_id()
    await elsewhere.table(account)
    cached = elsewhere._cache._cached[account]
    assert cached.fresh_until_s > time.monotonic()
    cached.fresh_until_s = 0
    await here.add_key(account, key := new_id())

    assert key in (await elsewhere.table(account)).api_keys
    assert cached.fresh_until_s > time.monotonic()
