"""Which visits wait for a place, what they hold meanwhile, and whom they keep waiting."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from services.webhook_dispatcher import dispatcher as module
from services.webhook_dispatcher import lanes, retry_pace
from services.webhook_dispatcher.dispatcher import Dispatcher
from services.webhook_dispatcher.retry_pace import RetryPace
from tests.harness.waiting import wait_until
from tests.store.stores import RedisClock, Stores
from tests.webhook_dispatcher.conftest import (
    HOUR_S,
    Attempts,
    FakeOutbound,
    Request,
    delivered,
    make_dispatcher,
    webhook,
)

DEAD, SLOW, GOOD = (f"https://{name}.example.com/" for name in ("dead", "slow", "good"))
Make = Callable[..., Dispatcher]


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LINGER_S", 0.0)
    monkeypatch.setattr(lanes, "_TURN_S", HOUR_S)


@pytest.fixture
async def make(
    stores: Stores, deliveries: Attempts, outbound: FakeOutbound, clock: RedisClock
) -> AsyncIterator[Make]:
    """Makes a dispatcher with so many places, and waits for the end of its visits."""
    made: list[Dispatcher] = []

    def make_one(requests: int, per_account: int) -> Dispatcher:
        dispatcher = make_dispatcher(
            stores, deliveries, outbound, clock, requests=requests, per_account=per_account
        )
        made.append(dispatcher)
        return dispatcher

    yield make_one
    await wait_until(lambda: not any(dispatcher._visits for dispatcher in made), what="the end of all visits")


async def test_a_visit_that_waits_for_a_place_has_no_lease(
    stores: Stores, make: Make, outbound: FakeOutbound
) -> None:
    dispatcher = make(requests=2, per_account=2)
    first, second = [await webhook(stores, queued=1) for _ in range(2)]
    unblocked = outbound.block()
    dispatcher.visit(first)
    await wait_until(lambda: outbound.requests)

    dispatcher.visit(second)
    await wait_until(lambda: dispatcher._visits[second].is_idle)
    assert stores.owner(second) is None, "another dispatcher with a free place may claim it"

    unblocked.set()
    await delivered(stores, first, second)


async def test_a_visit_that_lost_its_place_releases_its_lease(
    stores: Stores, make: Make, outbound: FakeOutbound
) -> None:
    """Its second batch waits for the place that another webhook has got."""
    dispatcher = make(requests=2, per_account=2)
    long, other = await webhook(stores, queued=150), await webhook(stores, GOOD, queued=1)
    asked, unblocked = asyncio.Event(), outbound.block(GOOD)
    hold = outbound.on_request
    assert hold is not None

    async def begin_the_other(request: Request) -> None:
        if not asked.is_set():
            asked.set()
            dispatcher.visit(other)
            await wait_until(lambda: dispatcher._visits[other].is_idle)
        await hold(request)

    outbound.on_request = begin_the_other
    dispatcher.visit(long)
    await wait_until(lambda: outbound.requests[1:])
    await wait_until(lambda: stores.owner(long) is None and long in dispatcher._visits)
    assert len(stores.entries(long)) == 50

    unblocked.set()
    await delivered(stores, long, other)


async def test_an_account_has_its_share_and_no_more(
    stores: Stores, make: Make, outbound: FakeOutbound
) -> None:
    dispatcher = make(requests=8, per_account=4)
    many = [await webhook(stores, DEAD, queued=1, account="many") for _ in range(20)]
    one = await webhook(stores, GOOD, queued=1, account="one")
    unblocked = outbound.block(DEAD)
    for channel in many:
        dispatcher.visit(channel)
    await wait_until(lambda: outbound.under_way == 2)
    await wait_until(lambda: sum(visit.is_idle for visit in dispatcher._visits.values()) == 18)

    dispatcher.visit(one)
    await delivered(stores, one)

    assert outbound.most_under_way == 3
    unblocked.set()
    await delivered(stores, *many)


async def test_dead_webhooks_of_many_accounts_leave_the_fast_lane(
    stores: Stores, make: Make, outbound: FakeOutbound, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each hangs in its first attempt, so nothing is known of it; then a healthy one comes."""
    monkeypatch.setattr(lanes, "_TURN_S", 0.001)
    dispatcher = make(requests=4, per_account=4)
    hanging = [await webhook(stores, DEAD, queued=1, account=f"account-{number}") for number in range(4)]
    healthy = await webhook(stores, GOOD, queued=1, account="healthy")
    unblocked = outbound.block(DEAD)
    for channel in hanging:
        dispatcher.visit(channel)
    await wait_until(lambda: outbound.under_way == 4)

    dispatcher.visit(healthy)
    await delivered(stores, healthy)

    unblocked.set()
    await delivered(stores, *hanging)


async def test_requests_without_a_place_are_bounded(
    stores: Stores, make: Make, outbound: FakeOutbound, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "_TURN_S", 0.001)
    dispatcher = make(requests=4, per_account=4)
    hanging = [await webhook(stores, DEAD, queued=1) for _ in range(20)]
    unblocked = outbound.block()
    for channel in hanging:
        dispatcher.visit(channel)
    await wait_until(lambda: outbound.under_way == 6)
    await wait_until(lambda: sum(visit.is_idle for visit in dispatcher._visits.values()) == 14)

    assert outbound.most_under_way == 6, "two in the fast lane, four that left it"
    unblocked.set()
    await delivered(stores, *hanging)


async def test_a_slow_webhook_has_the_slow_lane(stores: Stores, make: Make, outbound: FakeOutbound) -> None:
    dispatcher = make(requests=2, per_account=2)
    slow = await webhook(stores, SLOW, queued=1)
    outbound.took_ms = 3000
    dispatcher.visit(slow)
    await delivered(stores, slow)
    await wait_until(lambda: not dispatcher._visits)
    good = await webhook(stores, GOOD, queued=1)
    unblocked = outbound.block(SLOW)
    await stores.queued(slow, 1)
    dispatcher.visit(slow)
    await wait_until(lambda: outbound.under_way == 1)

    dispatcher.visit(good)
    await delivered(stores, good)

    unblocked.set()
    await delivered(stores, slow)


async def test_a_lookup_holds_no_place_and_no_lease(
    stores: Stores, make: Make, outbound: FakeOutbound
) -> None:
    dispatcher = make(requests=2, per_account=2)
    unresolved = [await webhook(stores, DEAD, queued=1, account="a") for _ in range(10)]
    good = await webhook(stores, GOOD, queued=1, account="b")
    found = asyncio.Event()

    async def respond_later(url: str) -> None:
        if url == DEAD:
            await found.wait()

    outbound.on_lookup = respond_later
    for channel in unresolved:
        dispatcher.visit(channel)
    await wait_until(lambda: len(outbound.resolved) == len(unresolved))

    dispatcher.visit(good)
    await delivered(stores, good)

    assert outbound.resolved[-1] == (GOOD, "b")
    assert not any(map(stores.owner, unresolved))
    found.set()
    await delivered(stores, *unresolved)


async def test_a_shutdown_waits_neither_for_places_nor_for_names(
    stores: Stores, make: Make, outbound: FakeOutbound
) -> None:
    dispatcher = make(requests=2, per_account=2)
    running, waiting, unresolved = [await webhook(stores, url, queued=1) for url in (GOOD, GOOD, DEAD)]

    async def respond_never(url: str) -> None:
        if url == DEAD:
            await asyncio.Event().wait()

    outbound.on_lookup = respond_never
    unblocked = outbound.block()
    async with dispatcher.running():
        for channel in (running, waiting, unresolved):
            dispatcher.visit(channel)
        await wait_until(lambda: outbound.under_way and len(outbound.resolved) == 3)
        await wait_until(lambda: dispatcher._visits[waiting].is_idle)
        asyncio.get_running_loop().call_later(0.05, unblocked.set)

    assert len(outbound.requests) == 1
    assert stores.entries(running) == []
    assert not any(map(stores.owner, (running, waiting, unresolved)))


def test_retries_of_an_account_are_spread_over_seconds() -> None:
    pace = RetryPace()

    times = [pace.plan("many", now_ms=0, earliest_ms=1500) for _ in range(1000)]

    most = retry_pace._PER_SECOND
    assert times[:most] == [1500] * most
    assert max(sum(time // 1000 == second for time in times) for second in range(100)) == most
    assert pace.plan("other", now_ms=0, earliest_ms=1500) == 1500
    pace.plan("other", now_ms=3_600_000, earliest_ms=3_600_000)
    assert len(pace._counts) == 1, "past seconds are forgotten"
