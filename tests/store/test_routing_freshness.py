"""A check of routes is good for a while; a change is answered when every check from before it has run out."""

import time
from collections.abc import Callable

import pytest
from redis.asyncio import Redis

from shared.model.api_keys import new_id
from shared.store.routing import Routing
from shared.store.routing_table_cache import FRESH_S, SPREAD_S
from shared.wire.pelion.subscriptions import compiled
from tests.store.routing import WatchedCalls
from tests.store.stores import Backend

LONG_S = 3600.0
MAKE = Callable[..., Routing]


@pytest.fixture
def calls(redis: Redis, backend: Backend) -> WatchedCalls:
    return WatchedCalls(redis, scripts=backend.scripts)


@pytest.fixture
def gateway(calls: WatchedCalls) -> MAKE:
    """Makes the routes as one more gateway sees them."""
    return lambda **times: Routing(calls, compiled, **times)


async def test_within_its_time_a_check_is_not_made_again(calls: WatchedCalls, gateway: MAKE) -> None:
    routing = gateway(fresh_s=LONG_S)
    account = new_id()

    for _ in range(5):
        await routing.tables_for_publish(account)

    assert calls.looks == 2, "one for the account, one for what is everybody's"


async def test_after_its_time_it_is(calls: WatchedCalls, gateway: MAKE) -> None:
    routing = gateway(fresh_s=0)

    for _ in range(5):
        await routing.table(new_id())

    assert calls.looks == 5


async def test_a_change_is_answered_when_older_checks_have_run_out(gateway: MAKE) -> None:
    began_s = time.monotonic()

    await gateway(spread_s=0.1).add_key(new_id(), new_id())

    assert time.monotonic() - began_s >= 0.1
    assert SPREAD_S > FRESH_S


async def test_a_change_that_was_answered_counts_at_once_elsewhere(gateway: MAKE) -> None:
    here, elsewhere, account = gateway(), gateway(), new_id()

    for _ in range(20):
        await elsewhere.table(account)
        await here.add_key(account, key := new_id())
        assert key in (await elsewhere.table(account)).api_keys


async def test_without_the_waiting_it_would_not(gateway: MAKE) -> None:
    here, elsewhere, account = gateway(spread_s=0), gateway(fresh_s=LONG_S), new_id()
    await here.add_key(account, new_id())
    await elsewhere.table(account)

    await here.add_key(account, key := new_id())

    assert key not in (await elsewhere.table(account)).api_keys


async def test_while_a_copy_is_brought_up_to_date_nobody_takes_it_for_fresh(gateway: MAKE) -> None:
    here, elsewhere, account = gateway(), gateway(fresh_s=LONG_S), new_id()
    await elsewhere.table(account)
    copy = elsewhere._cache._cached[account]
    assert copy.fresh_until_s > time.monotonic()
    copy.fresh_until_s = 0
    await here.add_key(account, key := new_id())

    assert key in (await elsewhere.table(account)).api_keys
    assert copy.fresh_until_s > time.monotonic()
