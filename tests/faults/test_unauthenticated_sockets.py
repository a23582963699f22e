"""Sockets of strangers: bounded in number and in what they send, and never in the way of customers."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
import pytest

from tests.conftest import Start
from tests.harness.api import Api
from tests.harness.blackhole import Blackhole
from tests.harness.metrics import metric
from tests.harness.stack import Stack
from tests.harness.waiting import wait_until

CROWDED_OUT = 1013
POLICY = 1008
BINDING = "call.CHANNEL_CREATE.*"
HERE, ELSEWHERE = "192.0.2.1", "192.0.2.2"
PROXIES = "127.0.0.0/8"

Connect = Callable[..., Awaitable[Blackhole]]


@pytest.fixture
async def connect(http: aiohttp.ClientSession) -> AsyncIterator[Connect]:
    """Opens a socket on the only edge, as if from this address."""
    async with contextlib.AsyncExitStack() as opened:

        async def open_socket(
            stack: Stack, address: str, *, secret: str | None = None, path: str = "/socket"
        ) -> Blackhole:
            headers = {"X-Forwarded-For": address}
            if secret is not None:
                headers["Authorization"] = f"Bearer {secret}"
            client = await Blackhole.open(http, stack.edges[0].url + path, headers=headers)
            opened.push_async_callback(client.close)
            return client

        yield open_socket


def api_of(stack: Stack, http: aiohttp.ClientSession) -> Api:
    return Api(http, stack.gateways[0].url, stack.admin_token)


async def test_the_oldest_stranger_of_an_address_makes_room(
    start: Start, http: aiohttp.ClientSession, connect: Connect
) -> None:
    stack = start(edges=1, TRUSTED_PROXIES=PROXIES, MAX_UNAUTHENTICATED_SOCKETS_PER_ADDRESS=3)
    key = await api_of(stack, http).api_key()
    other = await connect(stack, ELSEWHERE)
    strangers = [await connect(stack, HERE) for _ in range(5)]

    assert [await client.closed() for client in strangers[:2]] == [CROWDED_OUT] * 2
    for client in (other, *strangers[2:]):
        assert (await client.ask("ping", token=key.secret))["status"] == "success"


async def test_the_oldest_stranger_of_an_edge_makes_room(
    start: Start, http: aiohttp.ClientSession, connect: Connect
) -> None:
    stack = start(edges=1, TRUSTED_PROXIES=PROXIES, MAX_UNAUTHENTICATED_SOCKETS=3)
    key = await api_of(stack, http).api_key()
    strangers = [await connect(stack, f"192.0.2.{number}") for number in range(1, 6)]

    assert [await client.closed() for client in strangers[:2]] == [CROWDED_OUT] * 2
    for client in strangers[2:]:
        assert (await client.ask("ping", token=key.secret))["status"] == "success"


async def test_an_authenticated_socket_stays_whatever_strangers_do(
    start: Start, http: aiohttp.ClientSession, connect: Connect
) -> None:
    """They authenticated by a message, by the handshake, and by a message that failed for another reason."""
    bounds = {"MAX_UNAUTHENTICATED_SOCKETS": 4, "MAX_UNAUTHENTICATED_SOCKETS_PER_ADDRESS": 2}
    stack = start(edges=1, TRUSTED_PROXIES=PROXIES, **bounds)
    api = api_of(stack, http)
    key = await api.api_key()
    by_message, by_handshake = await connect(stack, HERE), await connect(stack, HERE, secret=key.secret)
    assert (await by_message.ask("subscribe", token=key.secret, binding=BINDING))["status"] == "success"
    refused = await connect(stack, HERE)
    assert (await refused.ask("subscribe", token=key.secret, binding="nothing.known"))["status"] == "error"

    strangers = [await connect(stack, HERE) for _ in range(10)]
    assert [await client.closed() for client in strangers[:8]] == [CROWDED_OUT] * 8

    for client in (by_handshake, refused):
        assert (await client.ask("subscribe", token=key.secret, binding=BINDING))["status"] == "success"
    assert await api.publish(key, {"topic": "call.CHANNEL_CREATE.c-1", "data": {}}) == [3]
    for client in (by_message, by_handshake, refused):
        assert (await client.event())["name"] == "CHANNEL_CREATE"


async def test_a_key_without_the_scope_receive_is_a_strangers(
    start: Start, http: aiohttp.ClientSession, connect: Connect
) -> None:
    stack = start(edges=1, TRUSTED_PROXIES=PROXIES, MAX_UNAUTHENTICATED_SOCKETS_PER_ADDRESS=1)
    key = await api_of(stack, http).api_key(scopes=("publish",))
    client = await connect(stack, HERE, secret=key.secret)
    await client.ask("ping")

    await connect(stack, HERE)

    assert await client.closed() == CROWDED_OUT


async def test_revoking_a_key_closes_a_socket_that_sent_nothing(
    start: Start, http: aiohttp.ClientSession, connect: Connect
) -> None:
    """It has left the bound of strangers: without an end of its own it would stay for ever."""
    stack = start(edges=1)
    api = api_of(stack, http)
    key = await api.api_key()
    client = await connect(stack, HERE, secret=key.secret)

    await api.revoke(key)

    assert await client.closed() == POLICY


async def test_strangers_lock_no_customer_of_their_address_out(
    start: Start, http: aiohttp.ClientSession, connect: Connect
) -> None:
    """Behind a NAT, with a bound of all sockets from one address."""
    stack = start(edges=1, TRUSTED_PROXIES=PROXIES, MAX_SOCKETS_PER_ADDRESS=4)
    key = await api_of(stack, http).api_key()
    strangers = [await connect(stack, HERE) for _ in range(4)]

    customers = [await connect(stack, HERE, secret=key.secret)]
    by_message = await connect(stack, HERE)
    assert (await by_message.ask("ping", token=key.secret))["status"] == "success"
    cognism = await http.ws_connect(
        stack.edges[0].url + "/api/v1/websocket",
        headers={
            "X-Forwarded-For": HERE,
            "X-API-AccessToken": key.id,
            "X-API-SecretKey": key.secret,
        },
    )
    customers += [by_message, await connect(stack, HERE, secret=key.secret)]

    assert [await client.closed() for client in strangers] == [CROWDED_OUT] * 4
    # Now all are authenticated, and none of them makes room.
    for headers, status in (({}, 429), ({"Authorization": "Bearer nonsense"}, 403)):
        with pytest.raises(aiohttp.WSServerHandshakeError) as error:
            await http.ws_connect(
                stack.edges[0].url + "/socket", headers={"X-Forwarded-For": HERE, **headers}
            )
        assert error.value.status == status
    for client in customers:
        assert (await client.ask("ping"))["status"] == "success"
    await cognism.close()


async def test_wrong_credentials_take_no_place(
    start: Start, http: aiohttp.ClientSession, connect: Connect
) -> None:
    stack = start(edges=1, TRUSTED_PROXIES=PROXIES, MAX_SOCKETS_PER_ADDRESS=1)
    waiting = await connect(stack, HERE)
    for path in ("/socket", "/api/v1/websocket"):
        headers = {"X-Forwarded-For": HERE, "Authorization": "Bearer nonsense"}
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await http.ws_connect(stack.edges[0].url + path, headers=headers)

    assert (await waiting.ask("ping"))["status"] == "error"


@pytest.mark.parametrize(
    ("message", "count"),
    [("{}", 100), ("[" + " " * 49_998 + "]", 5), (b"\x00", 100), (b"\x00" * 50_000, 5)],
    ids=["texts", "long-texts", "binaries", "long-binaries"],
)
async def test_a_stranger_has_a_budget(
    start: Start, connect: Connect, message: str | bytes, count: int
) -> None:
    stack = start(edges=1)
    client = await connect(stack, HERE)
    is_text = isinstance(message, str)
    send = client.socket.send_str if is_text else client.socket.send_bytes

    for _ in range(count):
        await send(message)  # type: ignore[arg-type]
        if is_text:
            assert json.loads(await client.socket.receive_str(timeout=20))["status"] == "error"
    assert (await client.ask("ping") if count < 100 else {"status": "error"})["status"] == "error"
    await send(message)  # type: ignore[arg-type]

    assert await client.closed() == POLICY
    await wait_until(lambda: "reason=over-budget" in stack.edges[0].stderr)


async def test_a_customer_has_no_such_budget(
    start: Start, http: aiohttp.ClientSession, connect: Connect
) -> None:
    stack = start(edges=1)
    key = await api_of(stack, http).api_key()
    client = await connect(stack, HERE)
    for _ in range(50):
        assert (await client.ask("ping"))["status"] == "error"
    assert (await client.ask("ping", token=key.secret))["status"] == "success"

    for _ in range(300):
        await client.ask("ping")

    # The rate is limited as ever, by replies.
    async def is_served() -> bool:
        return bool((await client.ask("ping"))["status"] == "success")

    await wait_until(is_served)


async def test_two_thousand_strangers_cost_an_edge_a_thousand_sockets(
    start: Start, http: aiohttp.ClientSession, connect: Connect
) -> None:
    """With the other limits as they are by default: the oldest have gone."""
    stack = start(edges=1, HANDSHAKE_BURST_PER_ADDRESS=3000)
    [edge] = stack.edges
    key = await api_of(stack, http).api_key()
    customer = await connect(stack, HERE)
    assert (await customer.ask("subscribe", token=key.secret, binding=BINDING))["status"] == "success"
    request = (
        b"GET /socket HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    host, port = edge.url.removeprefix("http://").split(":")
    writers = []
    before = edge.rss_bytes
    try:
        for _ in range(40):
            for reader, writer in await asyncio.gather(
                *(asyncio.open_connection(host, int(port)) for _ in range(50))
            ):
                writers.append(writer)
                writer.write(request)
                assert b" 101 " in await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
        await wait_until(lambda: edge.stderr.count("reason=crowded-out") == 1000, within_s=30)
        held = await metric(http, edge.url, "notify_sessions")
        growth = edge.peak_rss_bytes - before
        print(f"{len(writers)} strangers: {held:.0f} sessions held, {growth / 1e6:.1f} MB more")
        assert held == 1001
        late = await connect(stack, HERE)
        assert (await late.ask("ping", token=key.secret))["status"] == "success"
        assert (await customer.ask("ping"))["status"] == "success"
    finally:
        for writer in writers:
            writer.transport.abort()
