"""Dispatchers that die, a Redis that goes, receivers that hurt: nothing is lost, and order is kept."""

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest

from tests.conftest import Start
from tests.harness.api import Api, ApiKey
from tests.harness.events import number_of, reading, readings
from tests.harness.publisher import Publisher
from tests.harness.stack import Stack
from tests.harness.waiting import wait_until
from tests.harness.webhooks import Webhook, webhook

BACKLOG = 5000


@pytest.fixture
async def hook() -> AsyncIterator[Webhook]:
    async with webhook() as receiver:
        yield receiver


async def hooked(stack: Stack, http: aiohttp.ClientSession, hook: Webhook) -> tuple[Api, ApiKey]:
    api = Api(http, stack.gateways[0].url, stack.admin_token)
    key = await api.api_key()
    await api.register_webhook(key, hook.url)
    return api, key


def numbers(hook: Webhook) -> list[int]:
    return [number_of(item) for item in hook.items]


def assert_in_order_from_each_repetition(found: list[int], count: int) -> None:
    """Nothing is missing; what comes again goes on from there in order."""
    assert set(found) == set(range(count))
    newest = -1
    for before, number in zip([-1, *found], found, strict=False):
        assert number == before + 1 or number <= newest, f"{number} after {before}"
        newest = max(newest, number)


async def test_a_killed_dispatcher_loses_nothing(
    start: Start, http: aiohttp.ClientSession, hook: Webhook
) -> None:
    """kill -9 in the middle of a backlog; the other takes over when the heartbeat has run out."""
    short = {"HEARTBEAT_S": 0.3, "HEARTBEAT_TTL_S": 1, "SWEEP_S": 0.5, "WEBHOOK_BATCH_BYTES": 4096}
    stack = start(gateways=1, edges=0, dispatchers=2, ALLOW_PRIVATE_CALLBACKS="1", **short)
    api, key = await hooked(stack, http, hook)
    hook.says(500)
    await Publisher(api, key, to=key, batch=500).publish(BACKLOG)
    hook.takes()
    await wait_until(lambda: len(set(numbers(hook))) > BACKLOG // 10, what=lambda: len(hook.calls))

    owner = stack.valkey.client().get(f"{{{key.id}}}:lease")
    holder = next(d for d in stack.dispatchers if owner is None or owner.startswith(d.name.encode()))
    holder.kill()

    await wait_until(lambda: numbers(hook)[-1] == BACKLOG - 1, within_s=60, what=lambda: numbers(hook)[-1])
    assert_in_order_from_each_repetition(numbers(hook), BACKLOG)
    assert max(call.at_once for call in hook.calls) <= 2, "the dead one's request may still be under way"


async def test_a_stopped_dispatcher_hands_over_at_once(
    start: Start, http: aiohttp.ClientSession, hook: Webhook
) -> None:
    stack = start(gateways=1, edges=0, dispatchers=2, ALLOW_PRIVATE_CALLBACKS="1", SWEEP_S=60)
    api, key = await hooked(stack, http, hook)
    publisher = Publisher(api, key, to=key)

    async with publisher.publishing():
        await publisher.has_published(100)
        stack.dispatchers[0].terminate()
        await wait_until(lambda: stack.dispatchers[0].ended)
        await publisher.has_published(100)
        stack.dispatchers[0].start()
        stack.dispatchers[0].wait_ready()
        stack.dispatchers[1].terminate()
        await wait_until(lambda: stack.dispatchers[1].ended)
        await publisher.has_published(100)

    accepted = publisher.accepted
    await wait_until(lambda: numbers(hook)[-1] == accepted - 1, what=lambda: (numbers(hook)[-1], accepted))
    assert_in_order_from_each_repetition(numbers(hook), accepted)


async def test_redis_is_killed_and_comes_back(
    start: Start, http: aiohttp.ClientSession, hook: Webhook
) -> None:
    stack = start(
        gateways=1, edges=0, dispatchers=1, appendfsync="always", ALLOW_PRIVATE_CALLBACKS="1", SWEEP_S=1
    )
    api, key = await hooked(stack, http, hook)
    publisher = Publisher(api, key, to=key)

    async with publisher.publishing():
        await publisher.has_published(100)
        stack.valkey.kill()
        stack.valkey.start()
        await publisher.has_published(100)

    accepted = publisher.accepted
    await wait_until(
        lambda: accepted - 1 in numbers(hook), within_s=30, what=lambda: (numbers(hook)[-1], accepted)
    )
    # What a publisher sent again after a 503 may be queued twice; of what is new the order is kept.
    first_seen = list(dict.fromkeys(numbers(hook)))
    assert first_seen == list(range(accepted))


async def test_a_backlog_for_a_dead_receiver_costs_the_dispatcher_little_memory(
    start: Start, http: aiohttp.ClientSession, hook: Webhook
) -> None:
    stack = start(gateways=1, edges=0, dispatchers=1, ALLOW_PRIVATE_CALLBACKS="1", CALLBACK_TIMEOUT_S=1)
    api, key = await hooked(stack, http, hook)
    [dispatcher] = stack.dispatchers
    before = dispatcher.rss_bytes
    hook.hangs()

    for first in range(0, 4000, 400):
        await api.publish(key, *readings(range(first, first + 400), to=key.id, padding=5000))
    await wait_until(lambda: len(hook.calls) >= 2)

    grown = dispatcher.peak_rss_bytes - before
    assert grown < 10 * 1024 * 1024, f"20 MB wait, and the dispatcher grew by {grown}"


async def test_dead_receivers_do_not_slow_a_healthy_one(
    start: Start, http: aiohttp.ClientSession, hook: Webhook
) -> None:
    """A hundred channels hang; the healthy one's notifications arrive before any of them has timed out."""
    stack = start(gateways=1, edges=0, dispatchers=1, ALLOW_PRIVATE_CALLBACKS="1")
    api, key = await hooked(stack, http, hook)
    async with webhook() as dead:
        dead.hangs()
        account = await api.account()
        keys = [await api.api_key(account=account) for _ in range(100)]
        for dying in keys:
            await api.register_webhook(dying, dead.url)
        await asyncio.gather(*(api.publish(dying, reading(0, to=dying.id)) for dying in keys))
        await wait_until(lambda: dead.under_way == len(keys), what=lambda: dead.under_way)

        for number in range(50):
            await api.publish(key, reading(number, to=key.id))
            await wait_until(lambda: len(hook.items) == number + 1)  # noqa: B023

        assert dead.under_way == len(keys)


async def test_after_a_day_of_failures_the_channel_is_gone(
    start: Start, http: aiohttp.ClientSession, hook: Webhook
) -> None:
    stack = start(gateways=1, edges=0, dispatchers=1, ALLOW_PRIVATE_CALLBACKS="1", WEBHOOK_EXPIRY_S=2)
    api, key = await hooked(stack, http, hook)
    hook.says(500)
    await api.publish(key, reading(1, to=key.id))

    async def is_gone() -> bool:
        return (await api.call("GET", "/v2/notification/callback", key=key)).status == 404

    await wait_until(is_gone)
    assert len(hook.calls) >= 3
    assert await api.publish(key, reading(2, to=key.id)) == [0]
    told = (await api.call("GET", f"/v1/channels/{key.id}/deliveries", key=key)).json["deliveries"]
    assert told[0]["next_try_at"] is None
