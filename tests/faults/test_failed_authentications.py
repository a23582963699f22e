"""Strangers who guess: refused without a look at Redis, while customers of the same address are served."""

from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest

from tests.conftest import Start
from tests.harness.api import Api, ApiKey, Response
from tests.harness.blackhole import Blackhole
from tests.harness.events import reading
from tests.harness.metrics import metric
from tests.harness.sockets import CONNECT_PATH
from tests.harness.stack import Stack, running_stack
from tests.harness.waiting import wait_until

BURST = 20
HERE, ELSEWHERE = "192.0.2.1", "2001:db8:1:2::1"
NEIGHBOUR_OF_ELSEWHERE = "2001:db8:1:2:ffff::7"
TRY_AGAIN_LATER, POLICY = 1013, 1008
LIMITS: dict[str, Any] = {
    "TRUSTED_PROXIES": "127.0.0.0/8",
    "FAILED_AUTHENTICATION_BURST_PER_ADDRESS": BURST,
    # One more failure each 100 s: the tests wait for none.
    "FAILED_AUTHENTICATION_RATE_PER_ADDRESS": 0.01,
    "HANDSHAKE_BURST_PER_ADDRESS": BURST,
    "HANDSHAKE_RATE_PER_ADDRESS": 0.01,
}


@pytest.fixture(scope="module")
def installation() -> Iterator[Stack]:
    with running_stack(edges=1, **LIMITS) as stack:
        yield stack


def address(number: int) -> str:
    """One for each test: the tests share the processes."""
    return f"198.51.100.{number}"


@pytest.fixture
def api(installation: Stack, http: aiohttp.ClientSession) -> Api:
    return Api(http, installation.gateways[0].url, installation.admin_token)


def wrong(number: int) -> str:
    return f"ak_{number:032x}{number:048x}"


def is_refusal(response: Response) -> bool:
    return response.status == 429 and int(response.headers["retry-after"]) >= 1


@pytest.mark.parametrize(
    ("method", "path", "number"),
    [
        ("POST", "/v1/events", 1),
        ("GET", "/v2/notification/websocket", 2),
        ("POST", "/v1/accounts", 3),
        ("GET", "/v2/account/websockets", 4),
    ],
)
async def test_a_gateway_asks_redis_for_so_many_wrong_secrets_and_no_more(
    api: Api, installation: Stack, method: str, path: str, number: int
) -> None:
    here = {"X-Forwarded-For": address(number)}
    customer, late = await api.api_key(), await api.api_key()
    # The customer is known here, as one whose key was valid before.
    assert (await api.call("GET", "/v2/notification/websocket", key=customer, headers=here)).status == 404
    with installation.valkey.client() as redis:
        before = calls(redis.info("commandstats"), "hmget")
        tries = [
            await api.call(method, path, token=wrong(each), headers=here, json=[])
            for each in range(10 * BURST)
        ]
        reads = calls(redis.info("commandstats"), "hmget") - before

    print(f"{10 * BURST} wrong secrets at {method} {path}: {reads} reads of API keys")
    assert [each.status for each in tries[:BURST]] == [401] * BURST
    assert all(map(is_refusal, tries[BURST:]))
    assert reads <= 2 * BURST
    # The customer is served, cached or not. A key that is new to this gateway is, from elsewhere.
    assert (await api.call("POST", "/v1/events", key=customer, headers=here, json=[])).status != 429
    assert (await api.call("GET", "/v2/notification/websocket", key=customer, headers=here)).status == 404
    assert is_refusal(await api.call("GET", "/v2/notification/websocket", key=late, headers=here))
    assert await api.publish(late, reading(1, to=late.id)) == [0]
    assert (await api.call("GET", "/v2/notification/websocket", key=late, headers=here)).status == 404


async def test_tokens_are_minted_for_no_more_wrong_secrets(api: Api) -> None:
    here = {"X-Forwarded-For": address(10)}
    statuses = []
    for number in range(2 * BURST):
        body = {"data": {"api_key": wrong(number)}}
        statuses.append(await api.call("PUT", "/v2/api_auth", headers=here, json=body))

    assert [each.status for each in statuses[:BURST]] == [401] * BURST
    assert all(map(is_refusal, statuses[BURST:]))
    assert statuses[-1].json["error"] == "429"
    assert statuses[-1].json["status"] == "error"


async def test_pushes_with_wrong_credentials_have_the_same_limit(api: Api) -> None:
    here = {"X-Forwarded-For": address(11)}
    session = f"/api/v1/websocket/session?session={'0f' * 16}"
    statuses = []
    for number in range(2 * BURST):
        secret = wrong(number)
        query = f"&accessToken={secret[3:35]}&secretKey={secret}"
        statuses.append(await api.call("POST", session + query, headers=here, json={}))

    assert [each.status for each in statuses[:BURST]] == [401] * BURST
    assert all(map(is_refusal, statuses[BURST:]))


@pytest.mark.parametrize(
    ("path", "refusals", "number"),
    [(CONNECT_PATH, 101, 20), ("/api/v1/websocket", 401, 21), ("/socket", 403, 22)],
    ids=["pelion", "cognism", "blackhole"],
)
async def test_handshakes_with_wrong_secrets(
    api: Api, installation: Stack, http: aiohttp.ClientSession, path: str, refusals: int, number: int
) -> None:
    [edge] = installation.edges
    known, late = await api.api_key(), await api.api_key()
    for key in (known, late):
        await api.register(key)
    here = address(number)
    assert await status_of(http, edge.url + path, known, here) == 101

    statuses = [
        await status_of(http, edge.url + path, ApiKey(wrong(each)[3:35], "", wrong(each)), here)
        for each in range(2 * BURST)
    ]

    # Pelion's clients of 2019 get the upgrade and a close code.
    assert statuses == [refusals] * BURST + [429] * BURST
    assert await status_of(http, edge.url + path, known, here) == 101
    assert await status_of(http, edge.url + path, late, here) == 429
    assert await status_of(http, edge.url + path, late, address(number + 100)) == 101
    assert await status_of(http, edge.url + path, late, here) == 101


@pytest.mark.parametrize(
    ("path", "refusals", "number"),
    [(CONNECT_PATH, 101, 30), ("/api/v1/websocket", 401, 31), ("/socket", 101, 32)],
    ids=["pelion", "cognism", "blackhole"],
)
async def test_handshakes_without_a_credential(
    api: Api, installation: Stack, http: aiohttp.ClientSession, path: str, refusals: int, number: int
) -> None:
    [edge] = installation.edges
    key, here = await api.api_key(), address(number)
    await api.register(key)

    statuses = [await status_of(http, edge.url + path, None, here) for _ in range(2 * BURST)]

    assert statuses == [refusals] * BURST + [429] * BURST
    # With a credential there is no such limit, also for one that was never seen here.
    assert await status_of(http, edge.url + path, key, here) == 101


async def test_kazoo_clients_who_authenticate_by_message_use_up_no_handshakes(
    api: Api, installation: Stack, http: aiohttp.ClientSession
) -> None:
    """All of them reconnect together, behind one NAT."""
    [edge] = installation.edges
    key, here = await api.api_key(), {"X-Forwarded-For": address(33)}
    for _ in range(2 * BURST):
        client = await Blackhole.open(http, f"{edge.url}/socket", headers=here)
        assert (await client.ask("ping", token=key.secret))["status"] == "success"
        await client.close()


async def test_a_handshake_is_counted_by_the_first_half_of_its_ipv6_address(
    installation: Stack, http: aiohttp.ClientSession
) -> None:
    [edge] = installation.edges
    statuses = [
        await status_of(http, f"{edge.url}/socket", None, each)
        for each in [ELSEWHERE, NEIGHBOUR_OF_ELSEWHERE] * BURST
    ]

    assert statuses == [101] * BURST + [429] * BURST


async def test_messages_with_wrong_tokens_close_the_socket(
    api: Api, installation: Stack, http: aiohttp.ClientSession
) -> None:
    [edge] = installation.edges
    key, here = await api.api_key(), {"X-Forwarded-For": address(40)}
    customer = await Blackhole.open(http, f"{edge.url}/socket", headers=here)
    assert (await customer.ask("ping", token=key.secret))["status"] == "success"
    client = await Blackhole.open(http, f"{edge.url}/socket", headers=here)

    for number in range(BURST):
        assert (await client.ask("ping", token=wrong(number)))["status"] == "error"
    reply = await client.ask("ping", token=wrong(BURST))

    assert (reply["status"], "too many failed" in str(reply["data"])) == ("error", True)
    assert await client.closed() == TRY_AGAIN_LATER
    await wait_until(lambda: "reason=too-many-failures" in edge.stderr)
    assert (await customer.ask("ping", token=key.secret))["status"] == "success"
    again = await Blackhole.open(http, f"{edge.url}/socket", headers=here)
    assert (await again.ask("ping", token=key.secret))["status"] == "success"
    for each in (customer, again):
        await each.close()


async def test_refusals_are_counted(installation: Stack, http: aiohttp.ClientSession) -> None:
    """In whatever order the tests run: these are its own."""
    [edge] = installation.edges
    before = await metric(http, edge.url, "notify_refusals_total", reason="handshakes")
    for _ in range(2 * BURST):
        await status_of(http, f"{edge.url}/socket", None, address(50))

    after = await metric(http, edge.url, "notify_refusals_total", reason="handshakes")
    assert after - before == BURST


@pytest.mark.parametrize("kind", ["pings", "pongs"])
async def test_a_strangers_pings_and_pongs_are_in_its_budget(
    start: Start, http: aiohttp.ClientSession, kind: str
) -> None:
    [edge] = start(edges=1).edges
    client = await Blackhole.open(http, f"{edge.url}/socket")
    send = client.socket.ping if kind == "pings" else client.socket.pong
    assert await metric(http, edge.url, "notify_sockets_unauthenticated") == 1

    for _ in range(101):
        await send()

    assert await client.closed() == POLICY
    await wait_until(lambda: "reason=over-budget" in edge.stderr)
    assert await metric(http, edge.url, "notify_sockets_unauthenticated") == 0


async def test_the_pongs_to_our_pings_are_in_no_budget(start: Start, http: aiohttp.ClientSession) -> None:
    stack = start(edges=1, PING_INTERVAL_S=0.01, UNAUTHENTICATED_FRAMES=10)
    key = await Api(http, stack.gateways[0].url, stack.admin_token).api_key()
    async with http.ws_connect(f"{stack.edges[0].url}/socket", autoping=False) as stranger:
        for _ in range(30):
            message = await stranger.receive(timeout=20)
            assert message.type is aiohttp.WSMsgType.PING
            await stranger.pong(message.data)

        await stranger.send_json({"action": "ping", "auth_token": key.secret})
        while (message := await stranger.receive(timeout=20)).type is aiohttp.WSMsgType.PING:
            await stranger.pong(message.data)
        assert message.json()["status"] == "success"


async def test_a_customers_pings_are_in_no_budget(start: Start, http: aiohttp.ClientSession) -> None:
    stack = start(edges=1, UNAUTHENTICATED_FRAMES=10)
    key = await Api(http, stack.gateways[0].url, stack.admin_token).api_key()
    customer = await Blackhole.open(http, f"{stack.edges[0].url}/socket")
    assert (await customer.ask("ping", token=key.secret))["status"] == "success"
    for _ in range(300):
        await customer.socket.ping()

    assert (await customer.ask("ping"))["status"] == "success"
    await customer.close()


async def status_of(http: aiohttp.ClientSession, url: str, key: ApiKey | None, address: str) -> int:
    """The status of a handshake; the socket is closed at once."""
    headers = {"X-Forwarded-For": address}
    if key is not None:
        headers["Authorization"] = f"Bearer {key.secret}"
        headers |= {"X-API-AccessToken": key.id, "X-API-SecretKey": key.secret}
    try:
        async with http.ws_connect(url, headers=headers):
            return 101
    except aiohttp.WSServerHandshakeError as error:
        return error.status


def calls(stats: dict[str, dict[str, int]], command: str) -> int:
    return stats.get(f"cmdstat_{command}", {}).get("calls", 0)
