"""The effect of a dead webhook on healthy ones: `python -m tests.benchmarks.webhooks`.

Two hundred channels receive at an even rate, in turns without and with one more that never responds and has
10,000 notifications pending. Latency is from the publish request to the webhook. Exits with 1 if the dead one
makes the p99 of the healthy ones over 20 % longer.
"""

import asyncio
import sys
import time
from itertools import cycle, islice

import aiohttp
from aiohttp import web

from tests.harness.api import Api, ApiKey
from tests.harness.events import number_of, reading, readings
from tests.harness.stack import running_stack
from tests.harness.waiting import wait_until
from tests.harness.webhooks import Call, Webhook, webhook

CHANNELS = 200
BACKLOG = 10_000
LIMIT = 1.2
_RATE = 100
_TURN_S = 10
_TURNS = 4


class _Timed:
    """A webhook that measures the latency of each number."""

    def __init__(self, hook: Webhook) -> None:
        self.published_s: dict[int, float] = {}
        self.took_ms: dict[int, float] = {}
        self._respond = hook.answer
        hook.answer = self._answer

    async def _answer(self, call: Call) -> web.StreamResponse:
        now_s = time.perf_counter()
        for item in call.message["notifications"]:
            number = number_of(item)
            self.took_ms.setdefault(number, (now_s - self.published_s[number]) * 1000)
        return await self._respond(call)


async def _turn(api: Api, keys: list[ApiKey], timed: _Timed, first: int) -> list[float]:
    """One turn's latencies in ms, sorted."""
    numbers = range(first, first + _RATE * _TURN_S)
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    async with asyncio.TaskGroup() as group:
        for count, (number, key) in enumerate(zip(numbers, islice(cycle(keys), len(numbers)), strict=True)):
            await asyncio.sleep(began_s + count / _RATE - loop.time())
            timed.published_s[number] = time.perf_counter()
            group.create_task(api.publish(keys[0], reading(number, to=key.id)))
    await wait_until(lambda: all(number in timed.took_ms for number in numbers))
    return sorted(timed.took_ms[number] for number in numbers)


async def _run(api: Api) -> bool:
    async with webhook() as hook, webhook() as dead:
        timed = _Timed(hook)
        dead.hangs()
        account = await api.account()
        keys = [await api.api_key(account=account) for _ in range(CHANNELS)]
        dying = await api.api_key(account=account)
        for key in keys:
            await api.register_webhook(key, hook.url)

        found: dict[bool, list[float]] = {False: [], True: []}
        await _turn(api, keys, timed, 0)
        for turn in range(1, 2 * _TURNS + 1):
            with_dead = turn % 2 == 0
            if with_dead:
                await api.register_webhook(dying, dead.url)
                for first in range(0, BACKLOG, 1000):
                    await api.publish(dying, *readings(range(first, first + 1000), to=dying.id))
            found[with_dead] += await _turn(api, keys, timed, turn * 1_000_000)
            if with_dead:
                await api.call("DELETE", "/v2/notification/callback", key=dying)
    print(f"{CHANNELS} webhooks, {_RATE} notifications/s, {_TURNS} turns of {_TURN_S} s each, in turns\n")
    p99_ms = {}
    for with_dead, took in found.items():
        took.sort()
        p50, p99_ms[with_dead] = took[len(took) // 2], took[len(took) * 99 // 100]
        name = "with a dead one" if with_dead else "all healthy"
        print(f"  {name:16} p50 {p50:6.1f} ms   p99 {p99_ms[with_dead]:6.1f} ms   max {took[-1]:6.1f} ms")
    ratio = p99_ms[True] / p99_ms[False]
    print(f"\nthe dead one makes the p99 {ratio:.2f} times as long; the limit is {LIMIT}")
    return ratio <= LIMIT


async def _measure(url: str, admin_token: str) -> bool:
    async with aiohttp.ClientSession() as http:
        return await _run(Api(http, url, admin_token))


def main() -> int:
    """Measures on processes of its own. Returns the exit code."""
    with running_stack(
        gateways=1, edges=0, dispatchers=1, ALLOW_PRIVATE_CALLBACKS="1", CALLBACK_TIMEOUT_S=2
    ) as stack:
        return 0 if asyncio.run(_measure(stack.gateways[0].url, stack.admin_token)) else 1


if __name__ == "__main__":
    sys.exit(main())
