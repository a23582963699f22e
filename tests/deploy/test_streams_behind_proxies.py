"""Streams behind real proxies: an event arrives at once, and comments outlast the proxy's time-outs."""

import contextlib
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
PROXIES = ("haproxy", "nginx", "caddy")


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


@contextlib.contextmanager
def origin_of(kind: str, stack: Stack) -> Iterator[str]:
    if kind == "caddy":
        with behind_caddy(stack) as behind:
            yield behind.origin
        return
    upstream = stack.edges[0].url.removeprefix("http://")
    with proxy_by(kind, impatient(kind), upstream=upstream) as url:
        yield url


@pytest.fixture(params=PROXIES)
def origin(request: pytest.FixtureRequest, stack: Stack) -> Iterator[str]:
    """Of the proxy."""
    with origin_of(request.param, stack) as url:
        yield url


@pytest.fixture
async def key(api: Api) -> ApiKey:
    """It may read a stream."""
    key = await api.api_key(scopes=("publish", "receive", "channels"))
    await bind(api, key, "orders.#")
    await keep(api, key, "orders.#")
    return key


async def opened(http: aiohttp.ClientSession, origin: str, key: ApiKey) -> StreamClient:
    client = await StreamClient.open(http, origin, key, TOPIC, headers={"Accept-Encoding": "gzip"})
    await client.until_begun()
    return client


@pytest.fixture
async def client(http: aiohttp.ClientSession, origin: str, key: ApiKey) -> AsyncIterator[StreamClient]:
    """Through the proxy."""
    client = await opened(http, origin, key)
    yield client
    await client.close()


async def test_events_arrive_at_once(api: Api, client: StreamClient, key: ApiKey) -> None:
    assert client.response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert "Content-Encoding" not in client.response.headers
    for number in range(5):
        await publish(api, key, number)
        # Nothing comes behind it that could push it out of a buffer, but comments.
        comments = client.parser.comments
        await client.until_data(range(number + 1))
        assert client.parser.comments <= comments + 20


async def test_comments_keep_it_open(
    api: Api, http: aiohttp.ClientSession, key: ApiKey, stack: Stack
) -> None:
    """Through all proxies at once, since it takes its time."""
    async with contextlib.AsyncExitStack() as running:
        origins = [running.enter_context(origin_of(kind, stack)) for kind in PROXIES]
        clients = [await opened(http, origin, key) for origin in origins]
        for client in clients:
            running.push_async_callback(client.close)
        began_s, comments = time.monotonic(), [client.parser.comments for client in clients]
        await wait_until(lambda: time.monotonic() - began_s > OPEN_S, within_s=60)
        for client, before, kind in zip(clients, comments, PROXIES, strict=True):
            await wait_until(lambda: client.parser.comments > before + 2, what=kind)  # noqa: B023
            assert not client.has_ended, kind
        await publish(api, key, 0)
        for client in clients:
            await client.until_data([0])


async def test_the_edge_learns_that_the_client_has_gone(
    http: aiohttp.ClientSession, client: StreamClient, stack: Stack
) -> None:
    async def are_left(count: int) -> bool:
        return await metric(http, stack.edges[0].url, "notify_stream_readers") == count

    # Those of other tests may still be going.
    await wait_until(lambda: are_left(1))
    await client.close()
    await wait_until(lambda: are_left(0))
