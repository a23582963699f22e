"""Metrics of lag: the age of the oldest pending notification, and the time from publish to ack."""

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

# The reaper's interval is a hundredth of the shortest expiry, at least a second.
SHORT_INTERVALS = {"PULL_EXPIRY_S": 100, "SWEEP_S": 0.2}


async def metric(api: Api, service: Service, name: str) -> float | None:
    """The metric's value; None if the page does not have it."""
    text = (await api.at(service.url).call("GET", "/metrics")).text
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, flags=re.M)
    return float(found[1]) if found else None


async def test_lag_metrics_grow_while_something_is_pending_and_return_to_zero(
    start: Start, http: aiohttp.ClientSession, listen: Listen
) -> None:
    stack = start(edges=1, dispatchers=1, reapers=1, ALLOW_PRIVATE_CALLBACKS="1", **SHORT_INTERVALS)
    [edge], [dispatcher], [reaper] = stack.edges, stack.dispatchers, stack.reapers
    api = Api(http, stack.gateways[0].url, stack.admin_token)
    offline, with_webhook = await api.api_key(), await api.api_key()
    await api.register(offline)
    pending = 'notify_oldest_pending_seconds{connected="no",kind="websocket"}'
    lag = "notify_webhook_delivery_lag_seconds"

    async def is_pending() -> bool:
        return (await metric(api, reaper, pending) or 0) > 0

    async def is_lagging() -> bool:
        return (await metric(api, dispatcher, lag) or 0) > 0

    async def nothing_is_pending() -> bool:
        return (await metric(api, reaper, pending), await metric(api, dispatcher, lag)) == (0, 0)

    accept = asyncio.Event()

    async def when_accepted(_: Call) -> web.StreamResponse:
        await accept.wait()
        return web.Response(status=200)

    async with webhook() as hook:
        await wait_until(nothing_is_pending)
        await api.register_webhook(with_webhook, hook.url)
        hook.answer = when_accepted
        await api.publish(offline, reading(1, to=offline.id))
        await api.publish(with_webhook, reading(1, to=with_webhook.id))
        await wait_until(is_pending)
        await wait_until(is_lagging)

        assert await metric(api, edge, "notify_delivery_seconds_count") is None
        receiver = await listen(offline, edge.url)
        await receiver.received_numbers([1])
        await api.until(offline, queue_size=0)
        accept.set()
        await wait_until(nothing_is_pending)

    for service in (edge, dispatcher):
        assert await metric(api, service, "notify_delivery_seconds_count") == 1
        assert await metric(api, service, 'notify_delivery_seconds_bucket{le="+Inf"}') == 1
        assert (await metric(api, service, "notify_delivery_seconds_sum") or 0) > 0
