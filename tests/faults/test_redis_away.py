"""Redis is away: what is new must wait, open sockets stay, and all goes on by itself when it is back."""

import asyncio

import aiohttp
import pytest
from websockets.exceptions import InvalidStatus

from tests.conftest import Listen, Start
from tests.harness.api import Api, ApiKey, Response
from tests.harness.events import reading
from tests.harness.sockets import Receiver
from tests.harness.stack import Stack
from tests.harness.waiting import wait_until


@pytest.mark.parametrize("how", ["frozen", "stopped"])
async def test_a_while_without_redis(
    start: Start, http: aiohttp.ClientSession, listen: Listen, how: str
) -> None:
    stack = start(edges=2)
    api = Api(http, stack.gateways[0].url, stack.admin_token)
    key = await api.api_key()
    await api.register(key)
    await api.subscribe(key, {"endpoint-name": "*"})
    receiver = await listen(key, stack.edges[0].url)
    await api.publish(key, reading(1))
    await receiver.received_numbers([1])
    await api.until(key, queue_size=0)

    _send_away(stack, how)
    *responses, refused = await asyncio.gather(
        api.post_events(key, reading(2)),
        api.call("PUT", "/v2/notification/websocket", key=key),
        api.put_subscriptions(key, []),
        api.admin("POST", "/v1/accounts", json={"name": "late"}),
        Receiver.open(stack.edges[1].url, key),
        return_exceptions=True,
    )
    for response in responses:
        assert_says_come_back(response)
    crossbar = await api.call("GET", "/v2/account/websockets", key=key)
    assert (crossbar.status, crossbar.json["error"], crossbar.json["status"]) == (503, "503", "error")
    assert crossbar.json["message"] == "could not reach websockets tracking"
    assert int(crossbar.headers["Retry-After"]) >= 1
    assert isinstance(refused, InvalidStatus), refused
    assert refused.response.status_code == 503
    assert int(refused.response.headers["Retry-After"]) >= 1
    for service in stack.services:
        assert service.get("/livez") == 200
        assert service.get("/readyz") == 200
        assert service.get("/metrics") == 200
    assert receiver.open_now

    await _bring_back(stack, how)
    await wait_until(lambda: _is_published(api, key, 3), within_s=30)
    await wait_until(lambda: 3 in receiver.numbers)
    await api.until(key, status="connected", queue_size=0)
    assert receiver.open_now
    newer = await listen(key, stack.edges[1].url)
    assert await receiver.closed() == 1001
    await api.publish(key, reading(4))
    await newer.received_numbers([4])


async def test_a_long_absence_ends_the_sockets(
    start: Start, http: aiohttp.ClientSession, listen: Listen
) -> None:
    stack = start(edges=1, HEARTBEAT_S=1, HEARTBEAT_TTL_S=3, REDIS_OUTAGE_LIMIT_S=2)
    api = Api(http, stack.gateways[0].url, stack.admin_token)
    key = await api.api_key()
    await api.register(key)
    receiver = await listen(key, stack.edges[0].url)

    stack.valkey.kill()

    assert await receiver.closed(within_s=30) == 1011
    await _bring_back(stack, "stopped")
    await wait_until(lambda: _is_published(api, key, 1), within_s=30)
    await api.until(key, status="disconnected")
    again = await listen(key, stack.edges[0].url)
    await again.received(1)


async def test_services_that_start_before_redis_wait_for_it(
    start: Start, http: aiohttp.ClientSession, listen: Listen
) -> None:
    stack = start(edges=1)
    stack.valkey.kill()
    edge = stack.new_edge("edge-early")
    try:
        edge.start()
        await wait_until(lambda: edge.get("/livez") == 200, within_s=60)
        await _bring_back(stack, "stopped")
        await wait_until(lambda: edge.ready, within_s=60)
        api = Api(http, stack.gateways[0].url, stack.admin_token)
        await wait_until(lambda: _answers(api), within_s=30)
        key = await api.api_key()
        await api.register(key)
        receiver = await listen(key, edge.url)
        await api.publish(key, reading(1, to=key.id))
        await receiver.received_numbers([1])
    finally:
        edge.close()


def _send_away(stack: Stack, how: str) -> None:
    if how == "frozen":
        stack.valkey.freeze()
    else:
        stack.valkey.kill()


async def _bring_back(stack: Stack, how: str) -> None:
    if how == "frozen":
        stack.valkey.thaw()
    else:
        stack.valkey.start()
    await wait_until(lambda: stack.valkey.answers, within_s=60)


async def _is_published(api: Api, key: ApiKey, number: int) -> bool:
    return (await api.post_events(key, reading(number, to=key.id))).status == 202


def assert_says_come_back(response: object) -> None:
    assert isinstance(response, Response), response
    assert response.status == 503, response
    assert response.json["type"] == "service_unavailable"
    assert int(response.headers["Retry-After"]) >= 1


async def _answers(api: Api) -> bool:
    return (await api.admin("POST", "/v1/accounts", json={"name": "probe"})).status == 201
