"""Expiry: a channel without a socket ends after its expiry; one with a socket never does."""

from collections.abc import Awaitable, Callable

import aiohttp

from tests.conftest import Listen, Start
from tests.harness.api import Api, ApiKey
from tests.harness.events import readings
from tests.harness.waiting import wait_until

EXPIRY_S = 1


def gone(api: Api, key: ApiKey) -> Callable[[], Awaitable[bool]]:
    """A condition: the key's channel does not exist."""

    async def is_gone() -> bool:
        return (await api.channel(key)).status == 404

    return is_gone


async def test_channels_without_a_socket_expire(
    start: Start, http: aiohttp.ClientSession, listen: Listen
) -> None:
    """Two reapers; three channels: never connected, disconnected, and connected."""
    stack = start(edges=1, reapers=2, WEBSOCKET_EXPIRY_S=EXPIRY_S)
    api = Api(http, stack.gateways[0].url, stack.admin_token)
    never_connected, disconnected, connected = [await api.api_key() for _ in range(3)]
    for key in (never_connected, disconnected, connected):
        await api.register(key)
    open_socket = await listen(connected, stack.edges[0].url)
    closed_socket = await listen(disconnected, stack.edges[0].url)
    await closed_socket.close()

    for key in (never_connected, disconnected):
        await wait_until(gone(api, key), within_s=30)

    assert await api.publish(never_connected, *readings(range(1), to=never_connected.id)) == [0], (
        "the expired channel receives nothing"
    )
    await api.publish(connected, *readings(range(5), to=connected.id))
    await open_socket.received_numbers(range(5))
    assert (await api.channel(connected)).status == 200
    await api.register(never_connected)
    for reaper in stack.reapers:
        assert reaper.get("/livez") == 200
        assert "Traceback" not in reaper.stderr


async def test_expiry_after_a_killed_edge_counts_from_its_last_heartbeat(
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


async def test_the_reaper_survives_a_restart_of_redis(start: Start, http: aiohttp.ClientSession) -> None:
    stack = start(edges=0, reapers=1, WEBSOCKET_EXPIRY_S=EXPIRY_S, appendfsync="always")
    api = Api(http, stack.gateways[0].url, stack.admin_token)
    key = await api.api_key()
    await api.register(key)

    stack.valkey.kill()
    await wait_until(lambda: "worker.ended" in stack.reapers[0].stderr, within_s=30)
    stack.valkey.start()
    stack.valkey.wait_ready()

    await wait_until(gone(api, key), within_s=30)
    stack.reapers[0].terminate()
    await wait_until(lambda: stack.reapers[0].ended, within_s=10)
    assert stack.reapers[0].exit_code == 0
