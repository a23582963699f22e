"""Shutdown while Redis hangs: a service cannot release its leases and still exits in time."""

import time

import aiohttp

from tests.conftest import Listen, ListenSilently, Start
from tests.harness.api import Api
from tests.harness.events import readings
from tests.harness.waiting import wait_until

LIMIT_S = 10


async def test_every_service_exits_in_time(
    start: Start, http: aiohttp.ClientSession, listen: Listen, listen_silently: ListenSilently
) -> None:
    stack = start(edges=1)
    [edge] = stack.edges
    api = Api(http, stack.gateways[0].url, stack.admin_token)
    keys = [await api.api_key() for _ in range(10)]
    for key in keys:
        await api.register(key)
    receivers = [await listen(key, edge.url) for key in keys[:-1]]
    silent = await listen_silently(keys[-1], edge.url)
    await api.publish(keys[-1], *readings(range(3), to=keys[-1].id))
    await wait_until(lambda: silent.numbers == [0, 1, 2] and silent.pings)

    stack.valkey.freeze()
    # An ack that Redis does not take.
    await silent.pong(silent.pings[-1])
    began = time.monotonic()
    for service in stack.services:
        service.terminate()

    assert [await receiver.closed(within_s=LIMIT_S) for receiver in receivers] == [1001] * len(receivers)
    await wait_until(lambda: all(service.ended for service in stack.services), within_s=2 * LIMIT_S)
    assert time.monotonic() - began < LIMIT_S
    assert [service.exit_code for service in stack.services] == [0, 0]
    assert all("Traceback" not in service.stderr for service in stack.services)
    assert silent.ended

    stack.valkey.thaw()
    successor = stack.new_edge("edge-successor")
    try:
        successor.start()
        successor.wait_ready()
        await (await listen(keys[-1], successor.url)).received_numbers([0, 1, 2])
    finally:
        successor.close()
