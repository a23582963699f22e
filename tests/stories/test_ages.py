"""The metrics tell for how long somebody has been waiting, and how long it took until all was acked."""

import asyncio
import re

import aiohttp
from aiohttp import web

from tests.conftest import Listen, Start
from tests.harness.api import Api
from tests.harness.events import reading
from tests.harness.processes import Service
from tests.harness.waiting import wait_until
from tests.harness.webhooks import Call, webhook

# The reaper's rounds take a hundredth of the shortest expiry, and a second at the least.
OFTEN = {"PULL_EXPIRY_S": 100, "SWEEP_S": 0.2}


async def metric(api: Api, service: Service, name: str) -> float | None:
    """Its value; None while it is not there."""
    text = (await api.at(service.url).call("GET", "/metrics")).text
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, flags=re.M)
    return float(found[1]) if found else None


async def test_what_is_pending_and_due_grows_old_and_is_gone_once_acked(
    start: Start, http: aiohttp.ClientSession, listen: Listen
) -> None:
    stack = start(edges=1, dispatchers=1, reapers=1, ALLOW_PRIVATE_CALLBACKS="1", **OFTEN)
    [edge], [dispatcher], [reaper] = stack.edges, stack.dispatchers, stack.reapers
    api = Api(http, stack.gateways[0].url, stack.admin_token)
    away, hooked = await api.api_key(), await api.api_key()
    await api.register(away)
    pending = 'notify_oldest_pending_seconds{connected="no",kind="websocket"}'
    due = "notify_webhook_delivery_lag_seconds"

    async def is_pending() -> bool:
        return (await metric(api, reaper, pending) or 0) > 0

    async def is_due() -> bool:
        return (await metric(api, dispatcher, due) or 0) > 0

    async def nothing_is_pending_or_due() -> bool:
        return (await metric(api, reaper, pending), await metric(api, dispatcher, due)) == (0, 0)

    taken = asyncio.Event()

    async def when_taken(_: Call) -> web.StreamResponse:
        await taken.wait()
        return web.Response(status=200)

    async with webhook() as hook:
        await wait_until(nothing_is_pending_or_due)
        await api.register_webhook(hooked, hook.url)
        hook.answer = when_taken
        await api.publish(away, reading(1, to=away.id))
        await api.publish(hooked, reading(1, to=hooked.id))
        await wait_until(is_pending)
        await wait_until(is_due)

        assert await metric(api, edge, "notify_delivery_seconds_count") is None
        receiver = await listen(away, edge.url)
        await receiver.received_numbers([1])
        await api.until(away, queue_size=0)
        taken.set()
        await wait_until(nothing_is_pending_or_due)

    for service in (edge, dispatcher):
        assert await metric(api, service, "notify_delivery_seconds_count") == 1
        assert await metric(api, service, 'notify_delivery_seconds_bucket{le="+Inf"}') == 1
        assert (await metric(api, service, "notify_delivery_seconds_sum") or 0) > 0
