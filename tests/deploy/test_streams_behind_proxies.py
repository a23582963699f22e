"""Streams behind real proxies: an event arrives at once, and comments outlast the proxy's time-outs."""

import time
from collections.abc import AsyncIterator, Iterator

import aiohttp
import pytest

from tests.deploy.caddy import behind_caddy
from tests.deploy.proxies import CONFIGURATIONS, proxy_by
from tests.harness.api import Api, ApiKey
from tests.harness.metrics import metric
from tests.harness.sse import TOPIC, StreamClient, bind, keep, publish
from tests.harness.stack import Stack, running_stack
from tests.harness.waiting import wait_until

# Much longer than the interval of comments: a busy machine is late.
TIMEOUT_S = 4
HEARTBEAT_S = 0.5
OPEN_S = 1.5 * TIMEOUT_S


def impatient(kind: str) -> str:
    """The proxy's configuration, with short time-outs."""
    text = CONFIGURATIONS[kind]
    if kind == "haproxy":
        for side in ("client", "server"):
            assert f"timeout {side} 1m" in text
            text = text.replace(f"timeout {side} 1m", f"timeout {side} {TIMEOUT_S}s")
        return text
    place = "proxy_http_version 1.1;"
    assert place in text
    # Compression holds back what it compresses; by default nginx leaves this type alone.
    more = f"proxy_read_timeout {TIMEOUT_S}s; proxy_send_timeout {TIMEOUT_S}s; gzip on;"
    return text.replace(place, place + more)


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with running_stack(edges=1, SSE_HEARTBEAT_S=HEARTBEAT_S) as running:
        yield running


@pytest.fixture
def api(stack: Stack, http: aiohttp.ClientSession) -> Api:
    return Api(http, stack.gateways[0].url, stack.admin_token)


@pytest.fixture(params=["haproxy", "nginx", "caddy"])
def origin(request: pytest.FixtureRequest, stack: Stack) -> Iterator[str]:
    """Of the proxy."""
    if request.param == "caddy":
        with behind_caddy(stack) as behind:
            yield behind.origin
        return
    upstream = stack.edges[0].url.removeprefix("http://")
    with proxy_by(request.param, impatient(request.param), upstream=upstream) as url:
        yield url


@pytest.fixture
async def reader(
    api: Api, http: aiohttp.ClientSession, origin: str, stack: Stack
) -> AsyncIterator[tuple[StreamClient, ApiKey]]:
    """Through the proxy; its key."""
    key = await api.api_key(scopes=("publish", "receive", "channels"))
    await bind(api, key, "orders.#")
    await keep(api, key, "orders.#")
    reader = await StreamClient.open(http, origin, key, TOPIC, headers={"Accept-Encoding": "gzip"})
    await reader.until_begun()
    yield reader, key
    await reader.close()


async def test_events_arrive_at_once_and_comments_keep_it_open(
    api: Api, reader: tuple[StreamClient, ApiKey]
) -> None:
    client, key = reader
    assert client.response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert "Content-Encoding" not in client.response.headers
    for number in range(5):
        await publish(api, key, number)
        # Nothing comes behind it that could push it out of a buffer, but comments.
        comments = client.parser.comments
        await client.until_data(range(number + 1))
        assert client.parser.comments <= comments + 20
    began_s, comments = time.monotonic(), client.parser.comments
    await wait_until(lambda: time.monotonic() - began_s > OPEN_S, within_s=60)
    await wait_until(lambda: client.parser.comments > comments + 2)
    assert not client.has_ended
    await publish(api, key, 5)
    await client.until_data(range(6))


async def test_the_edge_learns_that_the_client_has_gone(
    http: aiohttp.ClientSession, reader: tuple[StreamClient, ApiKey], stack: Stack
) -> None:
    async def readers() -> float:
        return await metric(http, stack.edges[0].url, "notify_stream_readers")

    assert await readers() == 1
    await reader[0].close()

    async def is_gone() -> bool:
        return await readers() == 0

    await wait_until(is_gone)
