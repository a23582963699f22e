"""Visits: which channels are visited, how many at a time, how a visit ends, and what a shutdown leaves."""

import asyncio
import logging

import fakeredis
import pytest

from services.webhook_dispatcher import dispatcher as module
from services.webhook_dispatcher.delivery import Deliveries
from services.webhook_dispatcher.dispatcher import Dispatcher
from shared import telemetry
from shared.store.replicas import Heartbeat
from tests.harness.waiting import wait_until
from tests.store.stores import RedisClock, Stores
from tests.webhook_dispatcher.conftest import (
    HOUR_MS,
    HOUR_S,
    INSTANCE,
    OTHER_INSTANCE,
    URL,
    FakeOutbound,
    Request,
    claim,
    delivered,
    ended,
    make_dispatcher,
    register,
    webhook,
)

NEW_URL = "https://example.com/new"


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LINGER_S", 0.0)
    monkeypatch.setattr(module, "_ERROR_PAUSE_S", 0.0)
    monkeypatch.setattr(module, "_SHUTDOWN_S", 0.05)


@pytest.fixture
def lags(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What every sweep records."""
    found: list[int] = []
    monkeypatch.setattr(telemetry, "record_webhook_lag", lambda oldest_ms, **_: found.append(oldest_ms))
    return found


async def test_a_visit_delivers_everything_and_releases_the_lease(
    stores: Stores, dispatcher: Dispatcher, outbound: FakeOutbound
) -> None:
    channel = await webhook(stores, queued=250)

    dispatcher.visit(channel)
    await ended(dispatcher)

    assert stores.entries(channel) == []
    assert stores.owner(channel) is None
    assert len(outbound.requests) == 3


async def test_a_visit_lingers_and_is_woken_again(
    stores: Stores, dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LINGER_S", HOUR_S)
    channel = await webhook(stores, queued=1)
    dispatcher.visit(channel)
    await delivered(stores, channel)
    await stores.queued(channel, 1)

    dispatcher.visit(channel)
    await delivered(stores, channel)

    assert stores.owner(channel) == f"{INSTANCE}/1", "the lease was kept"
    async with dispatcher.running():
        pass
    assert stores.owner(channel) is None


async def test_a_wakeup_during_a_request_begins_no_second_one(
    stores: Stores, dispatcher: Dispatcher, outbound: FakeOutbound
) -> None:
    channel = await webhook(stores, queued=1)
    unblocked = outbound.block()
    dispatcher.visit(channel)
    await wait_until(lambda: outbound.requests)
    await stores.queued(channel, 1)
    for _ in range(3):
        dispatcher.visit(channel)
    unblocked.set()

    await delivered(stores, channel)
    await ended(dispatcher)

    assert outbound.most_under_way == 1


async def test_a_channel_of_a_live_instance_is_left_alone(
    stores: Stores, dispatcher: Dispatcher, outbound: FakeOutbound, clock: RedisClock
) -> None:
    channel = await webhook(stores, queued=1)
    await claim(stores, channel, f"{OTHER_INSTANCE}/1")
    other = Heartbeat(stores.calls, instance=OTHER_INSTANCE, ttl_ms=HOUR_MS)
    await other.beat()

    dispatcher.visit(channel)
    await ended(dispatcher)
    assert outbound.requests == []

    await other.stop()
    dispatcher.visit(channel)
    await delivered(stores, channel)


async def test_a_lease_that_this_process_failed_to_release_is_claimed_again(
    stores: Stores, dispatcher: Dispatcher, clock: RedisClock
) -> None:
    channel = await webhook(stores, queued=1)
    await claim(stores, channel, f"{INSTANCE}/0")
    await Heartbeat(stores.calls, instance=INSTANCE, ttl_ms=HOUR_MS).beat()

    dispatcher.visit(channel)

    await delivered(stores, channel)


async def test_a_failing_channel_occupies_only_the_slots_of_retries(
    stores: Stores, deliveries: Deliveries, outbound: FakeOutbound, clock: RedisClock
) -> None:
    dispatcher = make_dispatcher(stores, deliveries, outbound, clock, requests=2)
    failing, next_failing, healthy = [
        await webhook(stores, f"https://{name}.example.com/", queued=1) for name in ("a", "b", "c")
    ]
    unblocked = outbound.block("https://a.example.com/")

    dispatcher.retry(failing)
    await wait_until(lambda: outbound.under_way == 1)
    dispatcher.retry(next_failing)
    dispatcher.visit(healthy)
    await delivered(stores, healthy)
    assert len(stores.entries(next_failing)) == 1, "it waits for the slot"

    unblocked.set()
    await delivered(stores, failing, next_failing)


async def test_a_success_returns_a_channel_to_the_ordinary_slots(
    stores: Stores, deliveries: Deliveries, outbound: FakeOutbound, clock: RedisClock
) -> None:
    dispatcher = make_dispatcher(stores, deliveries, outbound, clock, requests=2)
    recovered = await webhook(stores, queued=150)
    failing = await webhook(stores, "https://failing.example.com/", queued=1)
    first, unblocked = asyncio.Event(), asyncio.Event()

    async def wait(request: Request) -> None:
        await (first if request.url == URL else unblocked).wait()

    outbound.on_request = wait
    dispatcher.retry(recovered)
    await wait_until(lambda: outbound.requests)
    dispatcher.retry(failing)
    await wait_until(lambda: dispatcher._visits[failing].is_idle)
    first.set()

    await delivered(stores, recovered)
    unblocked.set()
    await delivered(stores, failing)


async def test_a_failure_ends_the_visit_and_the_retry_makes_another(
    stores: Stores, dispatcher: Dispatcher, outbound: FakeOutbound, clock: RedisClock
) -> None:
    channel = await webhook(stores, queued=1)
    outbound.status = 500
    dispatcher.visit(channel)
    await ended(dispatcher)
    dispatcher.visit(channel)
    await ended(dispatcher)
    assert len(outbound.requests) == 1, "not during the backoff"
    assert stores.owner(channel) is None

    clock.ahead_ms = 1000
    outbound.status = 200
    dispatcher.retry(channel)

    await delivered(stores, channel)


async def test_a_changed_url_is_visited_again_at_once(
    stores: Stores, dispatcher: Dispatcher, outbound: FakeOutbound
) -> None:
    channel = await webhook(stores, queued=1)
    outbound.statuses[URL] = 500

    async def change(request: Request) -> None:
        if request.url == URL:
            await register(stores, channel, NEW_URL)

    outbound.on_request = change
    dispatcher.visit(channel)

    await delivered(stores, channel)
    assert [request.url for request in outbound.requests] == [URL, NEW_URL]


async def test_an_unexpected_error_is_logged_and_the_channel_visited_again(
    stores: Stores, dispatcher: Dispatcher, outbound: FakeOutbound, caplog: pytest.LogCaptureFixture
) -> None:
    channel = await webhook(stores, queued=1)

    async def fail_once(_: Request) -> None:
        if len(outbound.requests) == 1:
            raise RuntimeError("unexpected")

    outbound.on_request = fail_once
    dispatcher.visit(channel)

    await delivered(stores, channel)
    assert "visit.failed" in caplog.messages


async def test_without_redis_a_visit_ends_and_a_later_one_delivers(
    server: fakeredis.FakeServer,
    stores: Stores,
    dispatcher: Dispatcher,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    channel = await webhook(stores, queued=1)
    server.connected = False
    dispatcher.visit(channel)
    await ended(dispatcher)
    assert "visit.cut-short" in caplog.messages

    server.connected = True
    dispatcher.visit(channel)

    await delivered(stores, channel)


async def test_a_sweep_makes_a_retry_that_no_job_made(
    stores: Stores, deliveries: Deliveries, outbound: FakeOutbound, clock: RedisClock, lags: list[int]
) -> None:
    channel = await webhook(stores, queued=1)
    outbound.status = 500
    dispatcher = make_dispatcher(stores, deliveries, outbound, clock, sweep_s=0.01)

    async with dispatcher.running():
        await wait_until(lambda: outbound.requests)
        await wait_until(lambda: not dispatcher._visits)
        clock.ahead_ms = 1000
        outbound.status = 200
        await delivered(stores, channel)

    assert lags, "each sweep records the lag"


async def test_a_wakeup_begins_a_visit(stores: Stores, dispatcher: Dispatcher, lags: list[int]) -> None:
    channel = await webhook(stores)

    async with dispatcher.running():
        await wait_until(lambda: lags, what="the sweep that follows the subscription")
        await stores.queued(channel, 1)
        await delivered(stores, channel)


async def test_a_shutdown_hands_over_to_another_dispatcher(
    stores: Stores, deliveries: Deliveries, dispatcher: Dispatcher, outbound: FakeOutbound, clock: RedisClock
) -> None:
    channel = await webhook(stores, queued=1)
    outbound.block()
    async with dispatcher.running():
        dispatcher.visit(channel)
        await wait_until(lambda: outbound.requests)

    dispatcher.visit(channel)
    assert not dispatcher._visits, "it begins nothing more"
    assert stores.owner(channel) is None
    assert len(stores.entries(channel)) == 1
    outbound.on_request = None
    make_dispatcher(stores, deliveries, outbound, clock, instance=OTHER_INSTANCE).visit(channel)
    await delivered(stores, channel)
    cut, repeated = outbound.requests
    assert repeated.webhook_id == cut.webhook_id


async def test_a_shutdown_waits_for_requests_under_way(
    stores: Stores, dispatcher: Dispatcher, outbound: FakeOutbound, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SHUTDOWN_S", 20.0)
    channel = await webhook(stores, queued=150)
    unblocked = outbound.block()

    async with dispatcher.running():
        dispatcher.visit(channel)
        await wait_until(lambda: outbound.requests)
        asyncio.get_running_loop().call_later(0.05, unblocked.set)

    assert len(outbound.requests) == 1, "it begins no other"
    assert len(stores.entries(channel)) == 50
    assert stores.owner(channel) is None
