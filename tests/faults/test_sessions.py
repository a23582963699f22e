"""Session sockets when an edge is killed or stops, Redis loses data, or a client does not read."""

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from tests.conftest import Start
from tests.faults.handmade import Line
from tests.harness.api import Api, ApiKey
from tests.harness.blackhole import Blackhole
from tests.harness.stack import Stack
from tests.harness.waiting import wait_until

JOIN = "/api/v1/websocket"
BROWSERS = ("call.CHANNEL_CREATE.*", "call.CHANNEL_ANSWER.*", "object.doc_edited.user")


def headers_of(key: ApiKey) -> dict[str, str]:
    return {"X-API-AccessToken": key.id, "X-API-SecretKey": key.secret}


def handshake(headers: dict[str, str]) -> bytes:
    """Made by hand, for a client that reads only when the test says so."""
    upgrade = {"Host": "x", "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    lines = {**upgrade, "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", **headers}
    return "\r\n".join([f"GET {JOIN} HTTP/1.1", *(f"{k}: {v}" for k, v in lines.items()), "\r\n"]).encode()


def call(number: int) -> dict[str, Any]:
    return {"topic": f"call.CHANNEL_CREATE.{number}", "name": "CHANNEL_CREATE", "data": {"number": number}}


def api_of(stack: Stack, http: aiohttp.ClientSession) -> Api:
    return Api(http, stack.gateways[0].url, stack.admin_token)


async def authenticated(http: aiohttp.ClientSession, url: str, key: ApiKey, *bindings: str) -> Blackhole:
    client = await Blackhole.open(http, url + "/socket")
    assert (await client.ask("ping", token=key.secret))["status"] == "success"
    if bindings:
        await client.subscribe(*bindings)
    return client


async def listed(api: Api, key: ApiKey) -> int:
    answer = await api.call("GET", f"/v2/accounts/{key.account}/websockets", key=key)
    return len(answer.json["data"])


async def test_sockets_of_a_killed_edge_are_no_longer_listed(
    start: Start, http: aiohttp.ClientSession
) -> None:
    stack = start(edges=2, reapers=1, HEARTBEAT_S=0.3, HEARTBEAT_TTL_S=1)
    api = api_of(stack, http)
    key = await api.api_key()
    killed = await authenticated(http, stack.edges[0].url, key, BROWSERS[0])
    living = await authenticated(http, stack.edges[1].url, key, BROWSERS[0])
    assert await listed(api, key) == 2

    stack.edges[0].kill()

    async def is_one() -> bool:
        return await listed(api, key) == 1

    await wait_until(is_one)
    await api.publish(key, call(1))
    assert (await living.event())["data"] == {"number": 1}
    await killed.close()
    await living.close()


async def test_a_browser_continues_on_another_edge(start: Start, http: aiohttp.ClientSession) -> None:
    """As Kazoo's own: three bindings, a socket that closes, another one, the same bindings again."""
    stack = start(edges=2)
    api = api_of(stack, http)
    key = await api.api_key()
    client = await authenticated(http, stack.edges[0].url, key, *BROWSERS)
    await api.publish(key, call(1))
    assert (await client.event())["data"] == {"number": 1}

    stack.edges[0].terminate()
    assert await client.closed() == 1001
    again = await authenticated(http, stack.edges[1].url, key, *BROWSERS)

    await api.publish(key, call(2), {"topic": "object.doc_edited.user.u", "data": {"id": "u"}})
    assert (await again.event())["data"] == {"number": 2}
    assert (await again.event())["subscribed_key"] == BROWSERS[2]
    await again.close()


@pytest.mark.parametrize(("codes", "code"), [(2019, 1001), (2020, 1012)])
async def test_a_shutdown_closes_all_sockets_authenticated_or_not(
    start: Start, http: aiohttp.ClientSession, codes: int, code: int
) -> None:
    stack = start(edges=1, PELION_CLOSE_CODES=codes)
    api = api_of(stack, http)
    key = await api.api_key()
    known = await authenticated(http, stack.edges[0].url, key, BROWSERS[0])
    unknown = await Blackhole.open(http, stack.edges[0].url)
    trigger = Blackhole(await http.ws_connect(stack.edges[0].url + JOIN, headers=headers_of(key)))

    stack.edges[0].terminate()

    assert [await each.closed() for each in (known, unknown, trigger)] == [code] * 3
    await wait_until(lambda: stack.edges[0].ended)
    assert await listed(api, key) == 0
    assert await api.publish(key, call(1)) == [0]


async def test_sessions_outlive_a_redis_that_forgets_them(start: Start, http: aiohttp.ClientSession) -> None:
    stack = start(edges=1)
    api = api_of(stack, http)
    key = await api.api_key()
    client = await authenticated(http, stack.edges[0].url, key, BROWSERS[0])
    with stack.valkey.client() as redis:
        for pattern in ("*:session", "*:sessions", "*:routing"):
            redis.delete(*redis.scan_iter(pattern))
        redis.client_kill_filter(_type="pubsub")

    async def is_queued() -> bool:
        return await api.publish(key, call(1)) == [1]

    await wait_until(is_queued)
    assert (await client.event())["data"] == {"number": 1}
    assert await listed(api, key) == 1
    await client.close()


async def test_a_slow_reader_loses_the_newest_events_and_delays_no_other(
    start: Start, http: aiohttp.ClientSession
) -> None:
    stack = start(edges=1)
    api = api_of(stack, http)
    key = await api.api_key()
    before = stack.edges[0].rss_bytes
    slow = await Line.open(stack.edges[0].url, receive_buffer=4096)
    await slow.write(handshake(headers_of(key)))
    await slow.read_until(b'{"session"')
    quick = await http.ws_connect(stack.edges[0].url + JOIN, headers=headers_of(key))
    await quick.receive_str()

    for first in range(0, 2000, 50):
        numbers = range(first, first + 50)
        large = [{"topic": "t", "data": {"number": number, "x": "x" * 10_000}} for number in numbers]
        assert await api.publish(key, *large) == [2] * 50
        for number in numbers:
            assert json.loads(await quick.receive_str(timeout=20))["number"] == number

    grown = stack.edges[0].peak_rss_bytes - before
    assert grown < 16 * 1024 * 1024, f"with 20 MB for a client that does not read the edge grew by {grown}"
    page = (await api.at(stack.edges[0].url).call("GET", "/metrics")).text
    assert 'notify_dropped_total{reason="slow-reader"}' in page
    slow.close()
    await quick.close()


async def test_an_idle_client_is_closed_even_if_it_answers_pings(
    start: Start, http: aiohttp.ClientSession
) -> None:
    stack = start(edges=1, BLACKHOLE_IDLE_S=1.5, PING_INTERVAL_S=0.2)
    api = api_of(stack, http)
    key = await api.api_key()
    client = await authenticated(http, stack.edges[0].url, key)
    talking = await authenticated(http, stack.edges[0].url, key)

    closing = asyncio.create_task(client.closed())
    while not closing.done():
        await talking.ask("ping")
        await asyncio.wait([closing], timeout=0.2)

    assert await closing == 1000
    assert (await talking.ask("ping"))["status"] == "success"
    await talking.close()


async def test_sockets_per_address_are_limited_and_trusted_proxies_name_the_address(
    start: Start, http: aiohttp.ClientSession
) -> None:
    stack = start(edges=1, MAX_SOCKETS_PER_ADDRESS=2, TRUSTED_PROXIES="127.0.0.0/8")
    url = stack.edges[0].url + "/socket"
    api = api_of(stack, http)
    key = await api.api_key()

    def by(*addresses: str) -> dict[str, str]:
        return {"X-Forwarded-For": ", ".join(addresses)}

    first = await Blackhole.open(http, url, headers=by("6.6.6.6", "192.0.2.1"))
    await first.ask("ping", token=key.secret)
    second = await Blackhole.open(http, url, headers=by("192.0.2.1"))
    await second.ask("ping", token=key.secret)
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await http.ws_connect(url, headers=by("7.7.7.7", "192.0.2.1"))
    assert refused.value.status == 429
    third = await Blackhole.open(http, url, headers=by("192.0.2.2", "127.0.0.9"))
    await third.ask("ping", token=key.secret)

    answer = await api.call("GET", f"/v2/accounts/{key.account}/websockets", key=key)
    sources = sorted(each["source"] for each in answer.json["data"])
    assert sources == ["192.0.2.1", "192.0.2.1", "192.0.2.2"]
    await first.close()

    async def has_room() -> bool:
        try:
            await (await Blackhole.open(http, url, headers=by("192.0.2.1"))).close()
        except aiohttp.WSServerHandshakeError:
            return False
        return True

    await wait_until(has_room)
    await second.close()
    await third.close()
