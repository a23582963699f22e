"""Responses of streams while Redis is away, and when their replica stops."""

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest

from tests.conftest import Start
from tests.faults.handmade import Line
from tests.harness.api import Api, ApiKey
from tests.harness.metrics import metric
from tests.harness.sse import STREAM, TOPIC, StreamClient, ask, bind, keep, publish
from tests.harness.stack import Stack
from tests.harness.waiting import wait_until

HEARTBEAT_S = 0.3


@pytest.fixture
async def stack(start: Start) -> Stack:
    return start(edges=1, SSE_HEARTBEAT_S=HEARTBEAT_S, STREAM_BUFFER_BYTES=64 * 1024 * 1024)


@pytest.fixture
async def api(stack: Stack, http: aiohttp.ClientSession) -> Api:
    return Api(http, stack.gateways[0].url, stack.admin_token)


@pytest.fixture
async def key(api: Api) -> ApiKey:
    key = await api.api_key(scopes=("publish", "receive", "channels"))
    await bind(api, key, "orders.#")
    await keep(api, key, "orders.#")
    return key


@pytest.fixture
async def reader(stack: Stack, http: aiohttp.ClientSession, key: ApiKey) -> AsyncIterator[StreamClient]:
    reader = await StreamClient.open(http, stack.edges[0].url, key, TOPIC)
    await reader.until_begun()
    yield reader
    await reader.close()


@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_responses_outlive_an_outage_of_redis(
    api: Api, key: ApiKey, reader: StreamClient, stack: Stack, http: aiohttp.ClientSession, how: str
) -> None:
    await publish(api, key, 1)
    await reader.until_data([1])
    valkey = stack.valkey
    if how == "killed":
        valkey.kill()
    else:
        valkey.freeze()
    comments = reader.parser.comments
    await wait_until(lambda: reader.parser.comments > comments + 3)

    async def is_refused() -> bool:
        # A new one is told to come back.
        response = await ask(http, stack.edges[0].url, key.secret, TOPIC)
        response.close()
        return response.status == 503 and "Retry-After" in response.headers

    await wait_until(is_refused)
    if how == "killed":
        valkey.start()
        valkey.wait_ready()
    else:
        valkey.thaw()

    async def is_published() -> bool:
        response = await api.post_events(key, [{"topic": TOPIC, "data": 2}])
        return response.status == 202

    await wait_until(is_published)
    await wait_until(lambda: 2 in reader.data, what=lambda: reader.parser.messages)
    assert reader.data[:2] == [1, 2]
    assert (reader.ends, reader.has_ended) == ([], False)
    assert [each["recovered"] for each in reader.recovered] == [True]


async def test_a_stop_does_not_wait_for_a_client_that_reads_nothing(
    api: Api, key: ApiKey, reader: StreamClient, stack: Stack
) -> None:
    edge = stack.edges[0]
    silent = await Line.open(edge.url, receive_buffer=4096)
    head = f"GET {STREAM}?topic={TOPIC} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key.secret}\r\n\r\n"
    await silent.write(head.encode())
    await silent.read_until(b"event: recovered")
    text = "x" * 200_000
    for number in range(40):
        await publish(api, key, [number, text])
    await wait_until(lambda: len(reader.data) == 40)
    edge.terminate()
    await reader.until_end()
    assert reader.ends == ["stopping"]
    await wait_until(lambda: edge.ended, within_s=15)
    assert edge.exit_code == 0
    assert "Traceback" not in edge.stderr
    silent.close()


async def test_clients_that_come_and_go_leave_nothing(
    api: Api, key: ApiKey, stack: Stack, http: aiohttp.ClientSession
) -> None:
    """Also those that vanish while they authenticate, and that send more requests behind."""
    edge = stack.edges[0]
    head = f"GET {STREAM}?topic={TOPIC} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key.secret}\r\n\r\n"

    async def comes_and_goes(number: int) -> None:
        line = await Line.open(edge.url)
        await line.write(head.encode() * (1 + number % 3))
        if number % 2:
            await line.read_until(b"event: recovered")
        if number % 5:
            line.close()
        else:
            line.reset()

    for _ in range(5):
        await asyncio.gather(*map(comes_and_goes, range(30)))

    async def none_is_left() -> bool:
        await publish(api, key, 1)
        return await metric(http, edge.url, "notify_stream_readers") == 0

    await wait_until(none_is_left)
    assert "Traceback" not in edge.stderr
    reader = await StreamClient.open(http, edge.url, key, TOPIC)
    await reader.until_begun()
    await publish(api, key, 2)
    await reader.until_data([2])
    await reader.close()
