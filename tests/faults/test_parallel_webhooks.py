"""A dispatcher is killed with twenty requests of one webhook under way: nothing is lost, few come twice."""

import asyncio
import json
import random
from collections import Counter

import aiohttp
import pytest
from aiohttp import web

from tests.conftest import Start
from tests.faults.test_channels_killed import sha
from tests.faults.test_native_webhooks_killed import Scene, scene
from tests.harness.api import Api
from tests.harness.channels import AccountChannels
from tests.harness.native_webhooks import assert_repeats_are_known, create, numbers
from tests.harness.native_webhooks import publish as publish_events
from tests.harness.processes import Service
from tests.harness.stack import Stack
from tests.harness.waiting import wait_until
from tests.harness.webhooks import Call, Webhook, webhook

__all__ = ["scene"]

AT_ONCE = 20
# A dispatcher that dies leaves its claims until its heartbeat has expired.
SHORT = {"HEARTBEAT_S": 0.3, "HEARTBEAT_TTL_S": 1, "SWEEP_S": 0.5, "ALLOW_PRIVATE_CALLBACKS": "1"}


async def made(stack: Stack, http: aiohttp.ClientSession, url: str) -> tuple[AccountChannels, str]:
    api = Api(http, stack.gateways[0].url, stack.admin_token)
    mine = AccountChannels(api, await api.api_key(scopes=("publish", "channels")))
    target = {"url": url, "max_in_flight": AT_ONCE, "backoff": [1]}
    return mine, str((await mine.create("webhook", bindings=["orders.#"], webhook=target))["id"])


async def publish(mine: AccountChannels, count: int) -> None:
    for first in range(0, count, 100):
        events = [
            {"topic": "orders.paid", "data": number} for number in range(first, min(first + 100, count))
        ]
        await mine.api.publish(mine.key, *events)


async def until_called(hook: Webhook, count: int) -> None:
    await wait_until(lambda: len(hook.calls) > count, within_s=120, what=lambda: len(hook.calls))


async def until_all_called(hook: Webhook, count: int) -> None:
    await wait_until(
        lambda: len({number_in(call) for call in hook.calls}) == count,
        within_s=180,
        what=lambda: len(hook.calls),
    )


async def until_empty(mine: AccountChannels, channel: str) -> None:
    async def is_empty() -> bool:
        return bool((await mine.get(channel))["pending"] == 0)

    await wait_until(is_empty, within_s=60)


def number_in(call: Call) -> int:
    return int(json.loads(call.body)["data"])


async def kill_the_owner(stack: Stack, channel: str) -> Service:
    """The dispatcher that was killed."""
    name = f"{{{channel.removeprefix('ch_')}}}:channel"
    with stack.valkey.client() as redis:
        await wait_until(lambda: redis.hexists(name, "owner"), what="an owner")
        owner = (redis.hget(name, "owner") or b"").decode()
    [killed] = [each for each in stack.dispatchers if owner.startswith(f"{each.name}/")]
    killed.kill()
    return killed


async def test_another_dispatcher_repeats_only_what_was_under_way(
    start: Start, http: aiohttp.ClientSession
) -> None:
    stack = start(gateways=1, edges=0, dispatchers=2, **SHORT)
    async with webhook() as hook:
        mine, channel = await made(stack, http, hook.url)
        hangs, may_go_on, accepted = False, asyncio.Event(), set()

        async def answer(call: Call) -> web.StreamResponse:
            if hangs and not may_go_on.is_set():
                await may_go_on.wait()
            accepted.add(number_in(call))
            return web.Response(status=200)

        hook.answer = answer
        await publish(mine, 200)
        await mine.until(channel, pending=0)
        hangs = True
        await publish(mine, 300)
        await wait_until(lambda: hook.under_way == AT_ONCE)
        before = [number_in(call) for call in hook.calls[200:]]

        await kill_the_owner(stack, channel)

        await wait_until(lambda: len(hook.calls) > 200 + AT_ONCE, what="the other dispatcher")
        may_go_on.set()
        await mine.until(channel, pending=0)
        counts = Counter(number_in(call) for call in hook.calls[200:])
        assert set(counts) == set(range(300))
        assert {number for number, count in counts.items() if count > 1} <= set(before)
        assert set(counts.values()) <= {1, 2}


@pytest.mark.long
async def test_nothing_is_lost_when_dispatchers_are_killed_again_and_again(
    start: Start, http: aiohttp.ClientSession
) -> None:
    stack = start(gateways=1, edges=0, dispatchers=2, **SHORT)
    count, kills = 6000, 5
    async with webhook() as hook:
        mine, channel = await made(stack, http, hook.url)
        refused: Counter[int] = Counter()

        async def answer(call: Call) -> web.StreamResponse:
            await asyncio.sleep(random.uniform(0.01, 0.1))
            number = number_in(call)
            # Some fail at first.
            if number % 50 == 0 and refused[number] < 2:
                refused[number] += 1
                return web.Response(status=500)
            return web.Response(status=200)

        hook.answer = answer
        await publish(mine, count)
        for part in range(count // (kills + 2), count * kills // (kills + 2) + 1, count // (kills + 2)):
            await until_called(hook, part)
            killed = await kill_the_owner(stack, channel)
            killed.start()
            killed.wait_ready()

        await until_all_called(hook, count)
        await until_empty(mine, channel)
        counts = Counter(number_in(call) for call in hook.calls)
        doubles = sum(n - 1 - refused[number] for number, n in counts.items())
        assert doubles <= kills * AT_ONCE


@pytest.mark.long
async def test_nothing_is_lost_when_redis_is_killed(start: Start, http: aiohttp.ClientSession) -> None:
    stack = start(gateways=1, edges=0, dispatchers=2, appendfsync="always", **SHORT)
    count = 2000
    async with webhook() as hook:
        mine, channel = await made(stack, http, hook.url)

        async def answer(call: Call) -> web.StreamResponse:
            await asyncio.sleep(random.uniform(0.01, 0.05))
            return web.Response(status=500 if number_in(call) % 50 == 0 and len(hook.calls) < 800 else 200)

        hook.answer = answer
        await publish(mine, count)
        await until_called(hook, 500)
        stack.valkey.kill()
        stack.valkey.start()

        await until_all_called(hook, count)
        await until_empty(mine, channel)
        counts = Counter(number_in(call) for call in hook.calls)
        # Those that were under way when it died, and those that failed at first.
        twice = {number for number, times in counts.items() if times > 1 and number % 50}
        assert len(twice) <= AT_ONCE


# The dispatcher is killed before it sends this command, and how many requests may come twice then.
POINTS = {"entry_take": 0, "receipt_mark_sent": 0, "entry_ack": AT_ONCE, "entry_fail": AT_ONCE}


@pytest.mark.long
@pytest.mark.parametrize("point", POINTS)
async def test_a_dispatcher_dies_before(scene: Scene, point: str) -> None:
    hook, mine = scene.hook, scene.mine
    channel = await create(mine, hook, max_in_flight=AT_ONCE, backoff=[1])
    await scene.warm(channel)
    if point == "entry_fail":
        hook.says(500)
    scene.proxy.hold_from(sha(point))
    await publish_events(mine, *range(1, 60), receipt=True)
    await scene.kill_at()
    hook.takes()
    await scene.inherit()

    await scene.until_delivered(channel)
    assert_repeats_are_known(hook)
    counts = Counter(numbers(hook))
    assert set(counts) == set(range(60))
    assert sum(counts.values()) - 60 <= POINTS[point]
    for number in (0, 1, 30, 59):
        [receipt] = (await mine.api.receipt(mine.key, f"e{number}")).json["channels"]
        assert receipt["state"] == "acked"
    assert (await mine.get(channel))["dropped"] == 0
