"""Webhooks when a dispatcher or Redis dies, or a receiver hangs: nothing is lost, and order is kept."""

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web

from tests.conftest import Start
from tests.harness.api import Api, ApiKey
from tests.harness.events import number_of, reading, readings
from tests.harness.publisher import Publisher
from tests.harness.stack import Stack
from tests.harness.waiting import wait_until
from tests.harness.webhooks import Call, Webhook, webhook

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
    """Nothing is missing; a repetition continues in order."""
    assert set(found) == set(range(count))
    newest = -1
    for before, number in zip([-1, *found], found, strict=False):
        assert number == before + 1 or number <= newest, f"{number} after {before}"
        newest = max(newest, number)


async def test_another_dispatcher_takes_over_from_a_killed_one(
    start: Start, http: aiohttp.ClientSession, hook: Webhook
) -> None:
    """kill -9 during a backlog; the other dispatcher takes over when the heartbeat has expired."""
    short = {"HEARTBEAT_S": 0.3, "HEARTBEAT_TTL_S": 1, "SWEEP_S": 0.5, "WEBHOOK_BATCH_BYTES": 4096}
    stack = start(gateways=1, edges=0, dispatchers=2, ALLOW_PRIVATE_CALLBACKS="1", **short)
    api, key = await hooked(stack, http, hook)
    hook.says(500)
    await Publisher(api, key, to=key, batch=500).publish(BACKLOG)
    hook.takes()
    await api.call("POST", f"/v1/channels/{key.id}/deliveries/retry", key=key)
    await wait_until(lambda: len(set(numbers(hook))) > BACKLOG // 10, what=lambda: len(hook.calls))

    owner = stack.valkey.client().hget(f"{{{key.id}}}:channel", "owner")
    killed = next(d for d in stack.dispatchers if owner is None or owner.startswith(d.name.encode()))
    killed.kill()

    await wait_until(lambda: numbers(hook)[-1] == BACKLOG - 1, within_s=60, what=lambda: numbers(hook)[-1])
    assert_in_order_from_each_repetition(numbers(hook), BACKLOG)
    assert max(call.at_once for call in hook.calls) <= 2, "the killed dispatcher's request may still be open"


async def test_a_stopped_dispatcher_releases_its_leases(
    start: Start, http: aiohttp.ClientSession, hook: Webhook
) -> None:
    stack = start(gateways=1, edges=0, dispatchers=2, ALLOW_PRIVATE_CALLBACKS="1", SWEEP_S=60)
    api, key = await hooked(stack, http, hook)
    publisher = Publisher(api, key, to=key)

    async with publisher.publishing():
        await publisher.wait_for_accepted(100)
        stack.dispatchers[0].terminate()
        await wait_until(lambda: stack.dispatchers[0].ended)
        await publisher.wait_for_accepted(100)
        stack.dispatchers[0].start()
        stack.dispatchers[0].wait_ready()
        stack.dispatchers[1].terminate()
        await wait_until(lambda: stack.dispatchers[1].ended)
        await publisher.wait_for_accepted(100)

    accepted = publisher.accepted
    await wait_until(lambda: numbers(hook)[-1] == accepted - 1, what=lambda: (numbers(hook)[-1], accepted))
    assert_in_order_from_each_repetition(numbers(hook), accepted)


async def test_delivery_continues_after_a_restart_of_redis(
    start: Start, http: aiohttp.ClientSession, hook: Webhook
) -> None:
    stack = start(
        gateways=1, edges=0, dispatchers=1, appendfsync="always", ALLOW_PRIVATE_CALLBACKS="1", SWEEP_S=1
    )
    api, key = await hooked(stack, http, hook)
    publisher = Publisher(api, key, to=key)

    async with publisher.publishing():
        await publisher.wait_for_accepted(100)
        stack.valkey.kill()
        stack.valkey.start()
        await publisher.wait_for_accepted(100)

    accepted = publisher.accepted
    await wait_until(
        lambda: accepted - 1 in numbers(hook), within_s=30, what=lambda: (numbers(hook)[-1], accepted)
    )
    # A batch that the publisher repeated after a 503 may be queued twice; first arrivals are in order.
    first_seen = list(dict.fromkeys(numbers(hook)))
    assert first_seen == list(range(accepted))


async def test_a_backlog_for_a_hanging_receiver_costs_little_memory(
    start: Start, http: aiohttp.ClientSession, hook: Webhook
) -> None:
    stack = start(gateways=1, edges=0, dispatchers=1, ALLOW_PRIVATE_CALLBACKS="1", CALLBACK_TIMEOUT_S=0.3)
    api, key = await hooked(stack, http, hook)
    [dispatcher] = stack.dispatchers
    before = dispatcher.rss_bytes
    hook.hangs()

    for first in range(0, 4000, 400):
        await api.publish(key, *readings(range(first, first + 400), to=key.id, padding=5000))
    await wait_until(lambda: len(hook.calls) >= 2)

    grown = dispatcher.peak_rss_bytes - before
    assert grown < 10 * 1024 * 1024, f"20 MB are queued, and the dispatcher grew by {grown}"


async def test_100_hanging_receivers_do_not_delay_a_healthy_one(
    start: Start, http: aiohttp.ClientSession, hook: Webhook
) -> None:
    """The healthy receiver gets its notifications before any of the others has timed out."""
    stack = start(gateways=1, edges=0, dispatchers=1, ALLOW_PRIVATE_CALLBACKS="1")
    api, key = await hooked(stack, http, hook)
    async with webhook() as hanging_hook:
        hanging_hook.hangs()
        account = await api.account()
        keys = [await api.api_key(account=account) for _ in range(100)]
        # A gateway sends a limited number of test requests at once.
        for some in (keys[first : first + 10] for first in range(0, len(keys), 10)):
            await asyncio.gather(*(api.register_webhook(each, hanging_hook.url) for each in some))
        await asyncio.gather(*(api.publish(each, reading(0, to=each.id)) for each in keys))
        await wait_until(lambda: hanging_hook.under_way == len(keys), what=lambda: hanging_hook.under_way)

        for number in range(50):
            await api.publish(key, reading(number, to=key.id))
            await wait_until(lambda: len(hook.items) == number + 1)  # noqa: B023

        assert hanging_hook.under_way == len(keys)


async def test_events_during_a_hanging_attempt_do_not_delay_the_retry(
    start: Start, http: aiohttp.ClientSession, hook: Webhook
) -> None:
    """Either dispatcher may get the retry job: the owner of the failed attempt must not block the other."""
    stack = start(gateways=1, edges=0, dispatchers=2, ALLOW_PRIVATE_CALLBACKS="1", SWEEP_S=600)
    api = Api(http, stack.gateways[0].url, stack.admin_token)
    account = await api.account()
    keys = [await api.api_key(account=account) for _ in range(12)]
    release = asyncio.Event()

    async def fail_when_released(_: Call) -> web.StreamResponse:
        await release.wait()
        return web.Response(status=503)

    hook.answer = fail_when_released
    for key in keys:
        await api.register_webhook(key, hook.url)
        await api.publish(key, reading(1, to=key.id))
    await wait_until(lambda: hook.under_way == len(keys))
    for key in keys:
        await api.publish(key, reading(2, to=key.id))
    hook.takes()
    release.set()

    await wait_until(lambda: numbers(hook).count(2) == len(keys), what=lambda: numbers(hook))


async def test_a_stopping_dispatcher_starts_no_more_requests(
    start: Start, http: aiohttp.ClientSession, hook: Webhook
) -> None:
    """Many webhooks wait for two places; each would get one before the shutdown ends."""
    stack = start(gateways=1, edges=0, dispatchers=1, ALLOW_PRIVATE_CALLBACKS="1", WEBHOOK_REQUESTS=2)
    [dispatcher] = stack.dispatchers
    api = Api(http, stack.gateways[0].url, stack.admin_token)
    account = await api.account()
    keys = [await api.api_key(account=account) for _ in range(30)]
    stopping = asyncio.Event()

    async def slow(_: Call) -> web.StreamResponse:
        await stopping.wait()
        await asyncio.sleep(0.1)
        return web.Response(status=200)

    hook.answer = slow
    for key in keys:
        await api.register_webhook(key, hook.url)
        await api.publish(key, reading(1, to=key.id))
    with stack.valkey.client() as redis:

        def owned() -> int:
            return sum(redis.hexists(f"{{{key.id}}}:channel", "owner") for key in keys)

        await wait_until(lambda: hook.calls)
        dispatcher.terminate()
        await wait_until(lambda: dispatcher.get("/readyz") != 200)
        stopping.set()

        await wait_until(lambda: dispatcher.ended)
        assert len(hook.calls) < len(keys) // 2
        assert owned() == 0, "it has released all leases"


async def test_an_expired_api_key_gets_no_more_attempts(
    start: Start, http: aiohttp.ClientSession, hook: Webhook
) -> None:
    stack = start(gateways=1, edges=0, dispatchers=1, ALLOW_PRIVATE_CALLBACKS="1", SWEEP_S=0.2)
    api, key = await hooked(stack, http, hook)
    hook.says(500)
    await api.publish(key, reading(1, to=key.id))
    await wait_until(lambda: len(hook.calls) >= 1)
    other = await api.api_key()
    with stack.valkey.client() as redis:
        redis.hset(f"{{{key.id}}}:key", "expires_at_ms", 1)
    await wait_until(lambda: not hook.under_way)
    before = len(hook.calls)

    # The first webhook's retry is due before the retry of a later one.
    async with webhook() as later:
        later.says(500)
        await api.register_webhook(other, later.url)
        await api.publish(other, reading(1, to=other.id))
        await wait_until(lambda: len(later.calls) >= 2)

    assert len(hook.calls) == before


async def test_the_channel_expires_after_a_time_of_failures(
    start: Start, http: aiohttp.ClientSession, hook: Webhook
) -> None:
    stack = start(gateways=1, edges=0, dispatchers=1, ALLOW_PRIVATE_CALLBACKS="1", WEBHOOK_EXPIRY_S=0.5)
    api, key = await hooked(stack, http, hook)
    hook.says(500)
    await api.publish(key, reading(1, to=key.id))

    async def is_gone() -> bool:
        return (await api.call("GET", "/v2/notification/callback", key=key)).status == 404

    await wait_until(is_gone)
    assert len(hook.calls) >= 2
    assert await api.publish(key, reading(2, to=key.id)) == [0]
    attempts = (await api.call("GET", f"/v1/channels/{key.id}/deliveries", key=key)).json["deliveries"]
    assert attempts[0]["next_attempt_at"] is None


async def test_a_new_url_need_not_wait_for_the_old_receiver(
    start: Start, http: aiohttp.ClientSession, hook: Webhook
) -> None:
    """Which hangs for longer than the test. What it has got comes again, at the new URL."""
    stack = start(gateways=1, edges=0, dispatchers=1, ALLOW_PRIVATE_CALLBACKS="1", CALLBACK_TIMEOUT_S=600)
    api, key = await hooked(stack, http, hook)
    hook.hangs()
    await api.publish(key, *readings(range(3), to=key.id))
    await wait_until(lambda: hook.under_way == 1)

    async with webhook() as newer:
        await api.register_webhook(key, newer.url)
        await wait_until(lambda: numbers(newer) == [0, 1, 2])
        await wait_until(lambda: hook.under_way == 0)
        await api.publish(key, reading(3, to=key.id))
        await wait_until(lambda: numbers(newer) == [0, 1, 2, 3])


@pytest.mark.parametrize("how", ["deleted", "revoked"])
async def test_a_channel_made_again_need_not_wait_for_the_old_receiver(
    start: Start, http: aiohttp.ClientSession, hook: Webhook, how: str
) -> None:
    stack = start(gateways=1, edges=0, dispatchers=1, ALLOW_PRIVATE_CALLBACKS="1", CALLBACK_TIMEOUT_S=600)
    api, key = await hooked(stack, http, hook)
    hook.hangs()
    await api.publish(key, reading(0, to=key.id))
    await wait_until(lambda: hook.under_way == 1)

    if how == "revoked":
        await api.revoke(key)
        await wait_until(lambda: hook.under_way == 0)
        return
    await api.delete_callback(key)
    await wait_until(lambda: hook.under_way == 0)
    async with webhook() as newer:
        await api.register_webhook(key, newer.url)
        await api.publish(key, reading(1, to=key.id))
        await wait_until(lambda: numbers(newer) == [1])


async def test_the_same_registration_again_leaves_a_request_alone(
    start: Start, http: aiohttp.ClientSession, hook: Webhook
) -> None:
    """As applications send it at each of their starts: it must double nothing."""
    stack = start(gateways=1, edges=0, dispatchers=1, ALLOW_PRIVATE_CALLBACKS="1")
    api, key = await hooked(stack, http, hook)
    finish = asyncio.Event()

    async def answer(_: Call) -> web.StreamResponse:
        await finish.wait()
        return web.Response(status=204)

    hook.answer = answer
    await api.publish(key, reading(0, to=key.id))
    await wait_until(lambda: hook.under_way == 1)
    with stack.valkey.client() as direct:
        before = direct.info("commandstats")["cmdstat_hmget"]["calls"]
        await api.register_webhook(key, hook.url)
        # The dispatcher has looked.
        await wait_until(lambda: direct.info("commandstats")["cmdstat_hmget"]["calls"] > before)
    await api.publish(key, reading(1, to=key.id))
    finish.set()

    await wait_until(lambda: numbers(hook)[-1] == 1)
    assert numbers(hook) == [0, 1]
