"""A replay goes on from where it was when its dispatcher is killed, and queues nothing twice."""

import asyncio

import aiohttp
import pytest

from tests.conftest import Start
from tests.harness.api import Api
from tests.harness.channels import AccountChannels
from tests.harness.metrics import metric
from tests.harness.processes import Service
from tests.harness.stack import Stack
from tests.harness.waiting import wait_until
from tests.stories.test_replays import begin, ended, ids, publish, replay
from tests.stories.test_streams import put_rules

EVENTS = 400
KILLS = 3


async def worker(stack: Stack, http: aiohttp.ClientSession) -> Service:
    """The dispatcher that works at a replay."""
    found: list[Service] = []

    async def is_found() -> bool:
        found.extend([each for each in stack.dispatchers if await metric(http, each.url, "notify_replays")])
        return bool(found)

    await wait_until(is_found, within_s=60, what="a dispatcher with a replay")
    return found[0]


async def until_queued(mine: AccountChannels, channel: str, count: int) -> None:
    async def is_reached() -> bool:
        return bool((await replay(mine, channel))["queued"] >= count)

    await wait_until(is_reached, within_s=60, what=f"{count} queued")


@pytest.mark.long
async def test_a_replay_survives_its_dispatchers(start: Start, http: aiohttp.ClientSession) -> None:
    stack = start(edges=0, dispatchers=2)
    api = Api(http, stack.gateways[0].url, stack.admin_token)
    mine = AccountChannels(api, await api.api_key(scopes=("publish", "channels")))
    await put_rules(api, mine.key, [{"topics": ["orders.#"]}])
    for first in range(0, EVENTS, 50):
        await publish(mine, *range(first, first + 50), topic=f"orders.{first % 3}")
    channel = (await mine.create("pull", bindings=["orders.#"]))["id"]
    await begin(mine, channel, per_s=50)
    for kill in range(1, KILLS + 1):
        await until_queued(mine, channel, kill * EVENTS // (KILLS + 1))
        killed = await worker(stack, http)
        killed.kill()
        killed.start()
        await asyncio.to_thread(killed.wait_ready)

    shown = await ended(mine, channel, within_s=90)
    assert (shown["state"], shown["queued"], shown["passed"]) == ("done", EVENTS, EVENTS)
    assert await ids(mine, channel) == [f"e{number}" for number in range(EVENTS)]
