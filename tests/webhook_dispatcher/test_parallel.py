"""Webhooks with several requests at once: how many, what a failure holds up, and what is left at the end."""

import asyncio
from dataclasses import replace

import orjson
import pytest

from services.webhook_dispatcher import dispatcher as module
from services.webhook_dispatcher import entry_delivery, lanes, native_failures, parallel
from services.webhook_dispatcher.dispatcher import Dispatcher
from shared.model.callbacks import Callback
from shared.model.channels import Kind
from shared.model.errors import StoreUnavailable
from shared.model.webhooks import WebhookPolicy
from shared.outbound.client import Attempt
from shared.store import keyspace
from shared.store.parallel_batches import ParallelBatches
from tests.harness.waiting import wait_until
from tests.store.native import HOOK, create
from tests.store.stores import RedisClock, Stores, events
from tests.webhook_dispatcher.conftest import (
    HOUR_S,
    OTHER_INSTANCE,
    Attempts,
    FakeOutbound,
    FakeRetries,
    Request,
    claim,
    delivered,
    ended,
    make_dispatcher,
)

POLICY = WebhookPolicy(max_in_flight=20, backoff_s=(10, 20), give_up_after_s=60, disable_after_s=600)
NEW = Callback("https://example.com/new")


@pytest.fixture(autouse=True)
def _no_pauses(clock: RedisClock, monkeypatch: pytest.MonkeyPatch) -> None:
    clock.ahead_ms = 0
    for each in (native_failures, entry_delivery, parallel):
        monkeypatch.setattr(each, "now_ms", clock)
    delay_ms = WebhookPolicy.delay_ms
    monkeypatch.setattr(WebhookPolicy, "delay_ms", lambda self, n: delay_ms(self, n, chance=lambda: 0.0))
    monkeypatch.setattr(module, "_LINGER_S", 0.0)
    monkeypatch.setattr(module, "_ERROR_PAUSE_S", 0.0)
    monkeypatch.setattr(module, "_SHUTDOWN_S", 0.05)
    monkeypatch.setattr(lanes, "_TURN_S", HOUR_S)


@pytest.fixture(name="dispatcher")
async def a_dispatcher(
    stores: Stores, deliveries: Attempts, outbound: FakeOutbound, clock: RedisClock
) -> Dispatcher:
    """With more places than any webhook needs."""
    return make_dispatcher(stores, deliveries, outbound, clock, requests=800)


async def native(
    stores: Stores, policy: WebhookPolicy = POLICY, *, queued: int = 1, callback: Callback = HOOK
) -> str:
    channel = await create(stores, kind=Kind.WEBHOOK, policy=policy, callback=callback, bindings=b"[]")
    await stores.queued(channel, queued)
    return channel


async def change(stores: Stores, channel: str, callback: Callback, policy: WebhookPolicy) -> None:
    found = await stores.account_channels.read(channel)
    assert found is not None
    await stores.account_channels.change_webhook(found, lambda _: (callback, policy))


def event_of(request: Request) -> str:
    return str(orjson.loads(request.body)["id"])


def sent(outbound: FakeOutbound) -> list[str]:
    return [event_of(request) for request in outbound.requests]


def refusing(outbound: FakeOutbound, *ids: str, status: int = 500) -> None:
    """Responds with the status to requests with these events."""
    outbound.answer = lambda request: Attempt(
        status if event_of(request) in ids else 200, "", 5, was_reached=True
    )


async def all_under_way(outbound: FakeOutbound) -> None:
    await wait_until(lambda: outbound.under_way == 20, what=lambda: outbound.under_way)


async def held(dispatcher: Dispatcher, channel: str, outbound: FakeOutbound) -> asyncio.Event:
    """Visits, and returns with all requests under way; the receiver responds once the event is set."""
    unblocked = outbound.block()
    dispatcher.visit(channel)
    await all_under_way(outbound)
    return unblocked


async def test_as_many_requests_at_once_as_the_webhook_says(
    stores: Stores, dispatcher: Dispatcher, outbound: FakeOutbound
) -> None:
    channel = await native(stores, queued=70)
    unblocked = await held(dispatcher, channel, outbound)
    unblocked.set()
    await delivered(stores, channel)
    await ended(dispatcher)

    assert outbound.most_under_way == 20
    assert sorted(sent(outbound), key=int) == [str(number) for number in range(70)]
    assert len({request.webhook_id for request in outbound.requests}) == 70
    assert stores.owner(channel) is None
    assert not stores.direct.exists(keyspace.taken(channel))


async def test_what_comes_while_requests_are_under_way_is_sent_beside_them(
    stores: Stores, dispatcher: Dispatcher, outbound: FakeOutbound
) -> None:
    channel = await native(stores, queued=1)
    unblocked = outbound.block()
    dispatcher.visit(channel)
    await wait_until(lambda: outbound.under_way == 1)

    await stores.queued(channel, 1)
    dispatcher.visit(channel)
    await wait_until(lambda: outbound.under_way == 2)
    await stores.queued(channel, 1)
    dispatcher.visit(channel)
    await wait_until(lambda: outbound.under_way == 3)
    unblocked.set()

    await delivered(stores, channel)
    await ended(dispatcher)


async def test_one_event_that_fails_does_not_hold_up_the_others(
    stores: Stores, dispatcher: Dispatcher, outbound: FakeOutbound, retries: FakeRetries, clock: RedisClock
) -> None:
    channel = await native(stores, queued=100)
    refusing(outbound, "3")

    dispatcher.visit(channel)
    await ended(dispatcher)

    assert len(stores.entries(channel)) == 1
    assert len(outbound.requests) == 100
    assert retries.scheduled == [(channel, 1, 10_000)]
    [failed] = [request for request in outbound.requests if event_of(request) == "3"]
    clock.ahead_ms = 10_000
    refusing(outbound)
    dispatcher.retry(channel)
    await delivered(stores, channel)
    await ended(dispatcher)
    assert (sent(outbound)[-1], outbound.requests[-1].webhook_id) == ("3", failed.webhook_id)
    assert len(outbound.requests) == 101


async def test_retries_grow_by_themselves_until_the_event_is_given_up(
    stores: Stores, dispatcher: Dispatcher, outbound: FakeOutbound, retries: FakeRetries, clock: RedisClock
) -> None:
    channel = await native(stores, queued=3)
    refusing(outbound, "1")
    for clock.ahead_ms in (0, 10_000, 30_000, 50_000, 70_000):
        dispatcher.retry(channel)
        await ended(dispatcher)

    assert [ahead_ms for *_, ahead_ms in retries.scheduled] == [10_000, 30_000, 50_000, 70_000]
    assert stores.entries(channel) == []
    found = await stores.account_channels.read(channel)
    assert found is not None
    assert found.dropped == 1


async def test_a_receiver_that_is_down_is_not_asked_for_every_event(
    stores: Stores, dispatcher: Dispatcher, outbound: FakeOutbound, retries: FakeRetries, clock: RedisClock
) -> None:
    channel = await native(stores, queued=500)
    outbound.status = 503

    dispatcher.visit(channel)
    await ended(dispatcher)
    first = len(outbound.requests)
    clock.ahead_ms = 10_000
    dispatcher.retry(channel)
    await ended(dispatcher)

    assert 20 <= first <= 40, "those that were taken before the first failure was known"
    assert len(outbound.requests) <= 2 * first + 2
    assert len(stores.entries(channel)) == 500
    outbound.status = 200
    clock.ahead_ms = 40_000
    dispatcher.retry(channel)
    await delivered(stores, channel)
    await ended(dispatcher)


async def test_a_gone_receiver_is_asked_once_by_each_request_under_way(
    stores: Stores, dispatcher: Dispatcher, outbound: FakeOutbound
) -> None:
    channel = await native(stores, queued=100)
    outbound.status = 410

    dispatcher.visit(channel)
    await ended(dispatcher)

    found = await stores.account_channels.read(channel)
    assert found is not None
    assert (found.state, found.pending) == ("disabled", 100)
    assert len(outbound.requests) <= 40


async def test_a_channel_leaves_places_to_other_accounts(
    stores: Stores, deliveries: Attempts, outbound: FakeOutbound, clock: RedisClock
) -> None:
    dispatcher = make_dispatcher(stores, deliveries, outbound, clock, requests=16, per_account=8)
    wide = await native(stores, replace(POLICY, max_in_flight=100), queued=50)
    other = await native(stores, queued=1, callback=NEW)
    stores.direct.hset(keyspace.api_key(other), "account_id", "another")
    unblocked = outbound.block(HOOK.url)

    dispatcher.visit(wide)
    await wait_until(lambda: outbound.under_way == 4)
    dispatcher.visit(other)
    await delivered(stores, other)
    assert outbound.under_way == 4, "the share of an account in one lane"

    unblocked.set()
    await delivered(stores, wide)
    await ended(dispatcher)


async def test_another_url_gets_what_was_under_way_to_the_old_one(
    stores: Stores, dispatcher: Dispatcher, outbound: FakeOutbound
) -> None:
    channel = await native(stores, queued=30)
    outbound.block(HOOK.url)
    async with dispatcher.running():
        dispatcher.visit(channel)
        await all_under_way(outbound)

        await change(stores, channel, NEW, POLICY)
        dispatcher.on_messages([b"webhook:" + channel.encode()])

        await delivered(stores, channel)
        await ended(dispatcher)
    assert outbound.under_way == 0
    assert {event_of(each) for each in outbound.requests if each.url == NEW.url} == {
        str(number) for number in range(30)
    }


async def test_one_request_at_a_time_after_a_change_and_in_order(
    stores: Stores, dispatcher: Dispatcher, outbound: FakeOutbound
) -> None:
    channel = await native(stores, queued=40)
    unblocked = await held(dispatcher, channel, outbound)
    await change(stores, channel, HOOK, replace(POLICY, max_in_flight=1))
    begun = len(outbound.requests)
    outbound.most_under_way = 0
    unblocked.set()

    await delivered(stores, channel)
    await ended(dispatcher)

    assert outbound.most_under_way <= 1
    assert sent(outbound)[begun:] == [str(number) for number in range(begun, 40)]
    assert not stores.direct.exists(keyspace.taken(channel))


async def test_a_shutdown_leaves_the_rest_to_another_dispatcher(
    stores: Stores, deliveries: Attempts, dispatcher: Dispatcher, outbound: FakeOutbound, clock: RedisClock
) -> None:
    channel = await native(stores, queued=50)
    async with dispatcher.running():
        unblocked = await held(dispatcher, channel, outbound)
    assert stores.owner(channel) is None
    assert outbound.under_way == 0
    unblocked.set()
    before = len(outbound.requests)

    other = make_dispatcher(stores, deliveries, outbound, clock, instance=OTHER_INSTANCE)
    other.visit(channel)
    await delivered(stores, channel)
    await ended(other)

    assert before == 20
    assert len(outbound.requests) == 70, "doubles are what was under way"


async def test_a_shutdown_lets_requests_end_that_are_quick_enough(
    stores: Stores, dispatcher: Dispatcher, outbound: FakeOutbound, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SHUTDOWN_S", HOUR_S)
    channel = await native(stores, queued=50)
    async with dispatcher.running():
        unblocked = await held(dispatcher, channel, outbound)
        asyncio.get_running_loop().call_soon(unblocked.set)

    assert len(outbound.requests) == 20, "none begins"
    assert len(stores.entries(channel)) == 30
    assert stores.owner(channel) is None


async def test_an_owner_that_was_replaced_removes_nothing(
    stores: Stores, dispatcher: Dispatcher, outbound: FakeOutbound
) -> None:
    channel = await native(stores, queued=30)
    unblocked = await held(dispatcher, channel, outbound)
    other = await claim(stores, channel, f"{OTHER_INSTANCE}/1")

    unblocked.set()
    await ended(dispatcher)

    assert len(stores.entries(channel)) == 30
    assert stores.owner(channel) == other.owner


async def test_requests_go_on_while_redis_is_away_for_a_moment(
    stores: Stores, dispatcher: Dispatcher, outbound: FakeOutbound, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel = await native(stores, queued=30)
    unblocked = await held(dispatcher, channel, outbound)

    async def fail(*_: object, **__: object) -> None:
        raise StoreUnavailable(why="a test")

    with monkeypatch.context() as away:
        away.setattr(ParallelBatches, "take", fail)
        unblocked.set()
        await ended(dispatcher)
    assert len(stores.entries(channel)) == 10, "what was under way is acked"

    dispatcher.visit(channel)
    await delivered(stores, channel)
    await ended(dispatcher)
    assert len(outbound.requests) == 30


async def test_retries_take_half_of_the_requests_at_most(
    stores: Stores, dispatcher: Dispatcher, outbound: FakeOutbound, clock: RedisClock
) -> None:
    channel = await native(stores, replace(POLICY, max_in_flight=4), queued=8)
    # Between them others succeed: the receiver is not down.
    slow = ("0", "2", "4", "6")
    refusing(outbound, *slow)
    dispatcher.visit(channel)
    await ended(dispatcher)
    assert len(stores.entries(channel)) == 4
    unblocked = asyncio.Event()

    async def hang(request: Request) -> None:
        if event_of(request) in slow:
            await unblocked.wait()

    outbound.on_request = hang
    clock.ahead_ms = 10_000
    dispatcher.retry(channel)
    await wait_until(lambda: outbound.under_way == 2)
    await stores.queues.append(channel, events(*range(100, 120)))
    dispatcher.visit(channel)
    await wait_until(lambda: len(stores.entries(channel)) == 4, what="what is new is delivered")
    assert outbound.under_way == 2

    refusing(outbound)
    unblocked.set()
    await delivered(stores, channel)
    await ended(dispatcher)
