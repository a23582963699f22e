"""A process that is killed takes nothing of its account's quotas with it for long."""

import asyncio
import contextlib
import time

import aiohttp
import pytest
from websockets.exceptions import InvalidStatus

from tests.conftest import Listen, Start
from tests.harness.api import Api, ApiKey
from tests.harness.sockets import Receiver
from tests.harness.waiting import wait_until

pytestmark = pytest.mark.long

RATE = 200
EVENT = {"topic": "orders.paid", "data": 1}


async def quotas(api: Api, key: ApiKey, **values: float) -> None:
    response = await api.admin("PATCH", f"/v1/accounts/{key.account}", json={"quotas": values})
    assert response.status == 200, response.text


async def test_the_sockets_of_a_killed_edge_keep_no_client_out(
    start: Start, http: aiohttp.ClientSession, listen: Listen
) -> None:
    stack = start(edges=2, HEARTBEAT_S=0.3, HEARTBEAT_TTL_S=1)
    api = Api(http, stack.gateways[0].url, stack.admin_token)
    key = await api.api_key()
    keys = [key, *[await api.api_key(account=key.account) for _ in range(2)]]
    for each in keys:
        await api.register(each)
    await quotas(api, key, sockets=2)
    for each in keys[:2]:
        await listen(each, stack.edges[0].url)

    async def used() -> bool:
        response = await api.admin("GET", f"/v1/accounts/{key.account}/usage")
        return bool(response.json["sockets"]["used"] == 2)

    await wait_until(used)
    with contextlib.suppress(InvalidStatus):
        await listen(keys[2], stack.edges[1].url)
        raise AssertionError("a third socket was let in")

    stack.edges[0].kill()

    opened: list[Receiver] = []

    async def is_let_in() -> bool:
        with contextlib.suppress(InvalidStatus):
            opened.append(await listen(keys[2], stack.edges[1].url))
        return bool(opened)

    # By then its heartbeat has expired, and what this edge knows is a second old.
    await wait_until(is_let_in, within_s=10)
    await listen(keys[0], stack.edges[1].url)


async def test_the_tokens_of_a_killed_gateway_are_soon_replaced(
    start: Start, http: aiohttp.ClientSession
) -> None:
    stack = start(gateways=2, edges=0)
    api, other = (Api(http, gateway.url, stack.admin_token) for gateway in stack.gateways)
    key = await api.api_key()
    await quotas(api, key, events_per_s=RATE, burst_s=0.5)
    until_s = time.monotonic() + 2

    async def flood() -> None:
        while time.monotonic() < until_s:
            await other.post_events(key, EVENT)

    await asyncio.gather(*(flood() for _ in range(8)))
    stack.gateways[1].kill()

    async def is_full() -> bool:
        usage = (await api.admin("GET", f"/v1/accounts/{key.account}/usage")).json
        return bool(usage["events_per_s"]["used"] == 0)

    # Its reserve was a tenth of a second's; the bucket is full again after half a second.
    await wait_until(is_full, within_s=5)
    statuses = []
    for _ in range(100):
        statuses.append((await api.post_events(key, EVENT)).status)
        await asyncio.sleep(2 / RATE)
    assert statuses == [202] * 100
