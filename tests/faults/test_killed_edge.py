"""An edge is killed during delivery; its client reconnects to another edge and misses nothing."""

import asyncio

import aiohttp

from tests.conftest import Listen, Start
from tests.harness.api import Api
from tests.harness.events import reading
from tests.harness.publisher import Publisher
from tests.harness.waiting import wait_until

COUNT = 5000


async def test_an_edge_is_killed_during_5000_notifications(
    start: Start, http: aiohttp.ClientSession, listen: Listen
) -> None:
    stack = start(edges=2, HEARTBEAT_S=0.3, HEARTBEAT_TTL_S=1)
    api = Api(http, stack.gateways[0].url, stack.admin_token)
    key = await api.api_key()
    await api.register(key)
    publisher = Publisher(api, key, to=key, batch=50)
    first = await listen(key, stack.edges[0].url)

    publishing = asyncio.create_task(publisher.publish(COUNT))
    await wait_until(lambda: len(first.numbers) >= COUNT // 3)
    stack.edges[0].kill()
    assert await first.closed() == 1006
    await publishing

    # The dead edge acks nothing more: the queue now holds exactly what was not acked.
    acked = COUNT - await api.queue_size(key)
    assert 0 < acked < COUNT
    assert first.numbers == [*range(len(first.numbers))]
    assert acked <= first.acked_until, "acked without a pong of the client"
    second = await listen(key, stack.edges[1].url)
    await second.received_numbers(range(acked, COUNT))
    await api.until(key, queue_size=0)

    stack.edges[1].kill()
    await api.until(key, status="disconnected")
    stack.edges[0].start()
    await wait_until(lambda: stack.edges[0].ready, within_s=60)
    third = await listen(key, stack.edges[0].url)
    await api.publish(key, reading(COUNT, to=key.id))
    await third.received_numbers([COUNT])
