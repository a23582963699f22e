"""An edge whose subscription broke delivers as fast as before, while it registers its sessions again."""

import asyncio
import time

import aiohttp

from tests.conftest import Listen, Measured, Start
from tests.harness.api import Api, ApiKey
from tests.harness.events import reading
from tests.harness.sockets import Receiver
from tests.harness.stack import Stack
from tests.harness.waiting import wait_until

SESSIONS = 300
PUBLISHES = 5
WITHIN_S = 0.2
# On a machine so slow that this matters.
TIMES_AS_LONG = 5


async def session(http: aiohttp.ClientSession, url: str, key: ApiKey) -> aiohttp.ClientWebSocketResponse:
    headers = {"X-API-AccessToken": key.id, "X-API-SecretKey": key.secret}
    socket = await http.ws_connect(url + "/api/v1/websocket", headers=headers)
    await socket.receive_str()
    return socket


async def resubscribed(stack: Stack) -> None:
    """Kills the edge's subscription and waits for the next one."""
    with stack.valkey.client() as redis:

        def subscriptions() -> set[str]:
            return {each["id"] for each in redis.client_list(_type="pubsub") if int(each["sub"]) == 2}

        before = subscriptions()
        redis.client_kill_filter(_type="pubsub")
        await wait_until(lambda: subscriptions() - before, what="the edge to subscribe again")


async def publish_s(api: Api, key: ApiKey, receiver: Receiver) -> float:
    """How long one notification takes from the publish to its arrival."""
    count = len(receiver.numbers)
    began_s = time.monotonic()
    await api.publish(key, reading(count, to=key.id))
    await receiver.received(count + 1)
    return receiver.arrived_at[-1] - began_s


async def test_a_publish_does_not_wait_for_sessions_to_be_registered_again(
    start: Start, http: aiohttp.ClientSession, listen: Listen, record_property: Measured
) -> None:
    stack = start(edges=1)
    url = stack.edges[0].url
    api = Api(http, stack.gateways[0].url, stack.admin_token)
    key, of_sessions = await api.api_key(), await api.api_key()
    await api.register(key)
    receiver = await listen(key, url)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as many:
        sockets = [await session(many, url, of_sessions) for _ in range(SESSIONS)]
        await publish_s(api, key, receiver)
        usual_s = [await publish_s(api, key, receiver) for _ in range(PUBLISHES)]

        await resubscribed(stack)
        after_s = [await publish_s(api, key, receiver) for _ in range(PUBLISHES)]

        record_property("publish with the subscription up", f"{max(usual_s) * 1000:.0f} ms")
        record_property("publish after it broke", f"{max(after_s) * 1000:.0f} ms")
        assert max(after_s) < max(WITHIN_S, TIMES_AS_LONG * max(usual_s))
        await asyncio.gather(*(socket.close() for socket in sockets))
