"""The sweep: who walks, what hurries it, and what it makes up for."""

from collections.abc import Callable

import fakeredis
import pytest

from services.webhook_dispatcher import dispatcher as module
from services.webhook_dispatcher.dispatcher import Dispatcher
from shared.runtime.loops import in_background
from shared.store import due_webhooks, keyspace
from shared.store.due_webhooks import DueWebhooks
from shared.store.replicas import Heartbeat
from tests.harness.waiting import wait_until
from tests.store.stores import RedisClock, Stores
from tests.webhook_dispatcher.conftest import (
    HOUR_MS,
    INSTANCE,
    OTHER_INSTANCE,
    Attempts,
    FakeOutbound,
    claim,
    make_dispatcher,
    webhook,
)

Make = Callable[..., Dispatcher]


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LINGER_S", 0.0)


@pytest.fixture
async def swept(
    stores: Stores, deliveries: Attempts, outbound: FakeOutbound, clock: RedisClock
) -> Dispatcher:
    """A dispatcher whose slow walk another one makes."""
    stores.direct.set(keyspace.SWEEP, OTHER_INSTANCE, px=HOUR_MS)
    return make_dispatcher(stores, deliveries, outbound, clock, sweep_s=0.01)


async def test_one_dispatcher_walks_at_a_time(stores: Stores, clock: RedisClock) -> None:
    one, other = (
        DueWebhooks(clock.calls_of(stores), instance=instance) for instance in (INSTANCE, OTHER_INSTANCE)
    )

    assert await one.begin_walk(ttl_ms=HOUR_MS)
    assert not await other.begin_walk(ttl_ms=HOUR_MS)
    assert await one.go_on(ttl_ms=1)
    await wait_until(lambda: not stores.direct.exists(keyspace.SWEEP))
    assert await other.begin_walk(ttl_ms=HOUR_MS)
    assert not await one.go_on(ttl_ms=1), "it was late, and the other one walks"
    assert stores.direct.pttl(keyspace.SWEEP) > 1


async def test_a_late_walk_that_meets_no_other_goes_on(stores: Stores, clock: RedisClock) -> None:
    one, other = (
        DueWebhooks(clock.calls_of(stores), instance=instance) for instance in (INSTANCE, OTHER_INSTANCE)
    )
    assert await one.begin_walk(ttl_ms=HOUR_MS)
    stores.direct.delete(keyspace.SWEEP)  # as when its TTL ends

    assert await one.go_on(ttl_ms=HOUR_MS)
    assert not await other.begin_walk(ttl_ms=HOUR_MS)


async def test_a_walk_visits_every_page(
    stores: Stores, clock: RedisClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(due_webhooks, "PAGE_SIZE", 3)
    channels = {await webhook(stores, queued=1) for _ in range(10)}

    walk = DueWebhooks(clock.calls_of(stores), instance=INSTANCE).pages()
    pages = [[due.channel for due in page] async for page in walk]

    assert {channel for page in pages for channel in page} == channels
    assert max(map(len, pages)) <= 5, "a page asks for about three"


async def test_a_dead_dispatchers_webhooks_are_found_by_its_heartbeat(
    stores: Stores, swept: Dispatcher, clock: RedisClock
) -> None:
    """The slow walk, of another one, does not come."""
    channel = await webhook(stores)
    other = Heartbeat(stores.calls, instance=OTHER_INSTANCE, ttl_ms=HOUR_MS)
    await other.beat()
    await claim(stores, channel, f"{OTHER_INSTANCE}/1")
    swept._sweep._ttl_s = 0.5
    async with swept.running():
        await wait_until(lambda: OTHER_INSTANCE.encode() in swept._sweep._heartbeats)
        await stores.queued(channel, 1)
        stores.direct.delete(keyspace.heartbeat(OTHER_INSTANCE))

        await wait_until(lambda: not stores.entries(channel))


async def test_a_live_instance_hurries_nothing(swept: Dispatcher, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep, now_s = swept._sweep, [0.0]
    monkeypatch.setattr("services.webhook_dispatcher.sweep.time.monotonic", lambda: now_s[0])
    sweep._ttl_s = 15

    found = []
    for at_s, beat in ((0, b"1"), (10, b"2"), (24, b"2"), (26, b"2"), (90, b"2"), (91, b"3")):
        now_s[0] = at_s
        found.append(sweep._has_died({b"a/1": beat}))

    assert found == [False, False, False, True, False, False], "once, 15 s after its last heartbeat"
    sweep._has_died({})
    assert sweep._heartbeats == {}, "nothing is kept of one that has stopped"


async def test_a_visit_that_redis_cut_short_is_made_again(
    server: fakeredis.FakeServer, stores: Stores, swept: Dispatcher
) -> None:
    channel = await webhook(stores, queued=1)
    server.connected = False
    swept.visit(channel)
    await wait_until(lambda: swept._cut_short)
    server.connected = True

    async with in_background(swept._repeat):
        await wait_until(lambda: not stores.entries(channel))
    assert not swept._cut_short
    await wait_until(lambda: not swept._visits)
