"""A channel without a socket ends in its time, however its socket went; one with a socket never does."""

from collections.abc import Awaitable, Callable

import aiohttp

from tests.conftest import Listen, Start
from tests.harness.api import Api, ApiKey
from tests.harness.events import readings
from tests.harness.waiting import wait_until

EXPIRY_S = 2


def gone(api: Api, key: ApiKey) -> Callable[[], Awaitable[bool]]:
    """Whether the key's channel is not there any more."""

    async def is_gone() -> bool:
        return (await api.channel(key)).status == 404

    return is_gone


async def test_channels_end_when_nobody_has_been_there_for_too_long(
    start: Start, http: aiohttp.ClientSession, listen: Listen
) -> None:
    """Two reapers, as in a cluster; three channels: never opened, left, and held."""
    stack = start(edges=1, reapers=2, WEBSOCKET_EXPIRY_S=EXPIRY_S)
    api = Api(http, stack.gateways[0].url, stack.admin_token)
    idle, left, held = [await api.api_key() for _ in range(3)]
    for key in (idle, left, held):
        await api.register(key)
    holding = await listen(held, stack.edges[0].url)
    leaving = await listen(left, stack.edges[0].url)
    await leaving.close()

    for key in (idle, left):
        await wait_until(gone(api, key), within_s=30)

    assert await api.publish(idle, *readings(range(1), to=idle.id)) == [0], "what ended is pending nothing"
    await api.publish(held, *readings(range(5), to=held.id))
    await holding.received_numbers(range(5))
    assert (await api.channel(held)).status == 200
    await api.register(idle)
    for reaper in stack.reapers:
        assert reaper.get("/livez") == 200
        assert "Traceback" not in reaper.stderr


async def test_a_killed_edge_counts_from_its_last_heartbeat(
    start: Start, http: aiohttp.ClientSession, listen: Listen
) -> None:
    settings = {"WEBSOCKET_EXPIRY_S": EXPIRY_S, "HEARTBEAT_S": 0.2, "HEARTBEAT_TTL_S": 1}
    stack = start(edges=1, reapers=1, **settings)
    api = Api(http, stack.gateways[0].url, stack.admin_token)
    key = await api.api_key()
    await api.register(key)
    await listen(key, stack.edges[0].url)

    stack.edges[0].kill()

    await wait_until(gone(api, key), within_s=30)


async def test_a_reaper_outlives_its_redis(start: Start, http: aiohttp.ClientSession) -> None:
    stack = start(edges=0, reapers=1, WEBSOCKET_EXPIRY_S=EXPIRY_S, appendfsync="always")
    api = Api(http, stack.gateways[0].url, stack.admin_token)
    key = await api.api_key()
    await api.register(key)

    stack.valkey.kill()
    await wait_until(lambda: "reaper." in stack.reapers[0].stderr, within_s=30)
    stack.valkey.start()
    stack.valkey.wait_ready()

    await wait_until(gone(api, key), within_s=30)
    stack.reapers[0].terminate()
    await wait_until(lambda: stack.reapers[0].ended, within_s=10)
    assert stack.reapers[0].exit_code == 0
