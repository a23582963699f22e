"""An edge runs one handshake per secret at a time. A frozen Redis makes handshakes last."""

import asyncio
import json
from collections.abc import Iterator

import aiohttp
import pytest

from tests.conftest import Listen
from tests.harness.api import Api, ApiKey
from tests.harness.raw import exchange
from tests.harness.sockets import CONNECT_PATH
from tests.harness.stack import Stack, running_stack
from tests.harness.waiting import wait_until

Reply = tuple[int, dict[str, str], str]


@pytest.fixture(scope="module")
def installation() -> Iterator[Stack]:
    with running_stack(edges=2) as stack:
        yield stack


@pytest.fixture
def stack(installation: Stack) -> Stack:
    return installation


@pytest.fixture
def api(stack: Stack, http: aiohttp.ClientSession) -> Api:
    return Api(http, stack.gateways[0].url, stack.admin_token)


def handshake(key: ApiKey) -> str:
    return f"""GET {CONNECT_PATH} HTTP/1.1
Host: localhost
Connection: Upgrade
Upgrade: websocket
Sec-WebSocket-Version: 13
Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==
Authorization: Bearer {key.secret}

"""


def start_handshakes(url: str, key: ApiKey, count: int = 1) -> list[asyncio.Task[Reply]]:
    return [asyncio.create_task(exchange(url, handshake(key))) for _ in range(count)]


async def test_concurrent_handshakes_of_a_secret_get_a_429(
    api: Api, stack: Stack, listen: Listen, channel: ApiKey
) -> None:
    other = await api.api_key()
    await api.register(other)
    stack.valkey.freeze()
    tasks = start_handshakes(stack.edges[0].url, channel, 5)
    await wait_until(lambda: sum(task.done() for task in tasks) >= 4)

    refused = [task.result() for task in tasks if task.done()]
    assert [status for status, _, _ in refused] == [429] * 4
    for _, headers, body in refused:
        assert headers["retry-after"] == "1"
        error = json.loads(body)
        assert (error["code"], error["type"]) == (429, "too_many_requests")
        assert error["request_id"] == headers["x-request-id"]
    elsewhere = [*start_handshakes(stack.edges[1].url, channel), *start_handshakes(stack.edges[0].url, other)]
    [first] = [task for task in tasks if not task.done()]
    stack.valkey.thaw()

    assert [(await task)[0] for task in (first, *elsewhere)] == [101] * 3
    for edge in stack.edges:
        receiver = await listen(channel, edge.url)
        assert receiver.open_now


async def test_an_abandoned_handshake_does_not_block_the_next(stack: Stack, channel: ApiKey) -> None:
    stack.valkey.freeze()
    [abandoned] = start_handshakes(stack.edges[0].url, channel)
    await wait_until(lambda: _is_busy(stack, channel))
    abandoned.cancel()
    await asyncio.wait([abandoned])
    stack.valkey.thaw()
    await wait_until(lambda: _is_accepted(stack, channel))


async def test_a_refused_handshake_does_not_block_the_next(api: Api, stack: Stack, key: ApiKey) -> None:
    """A key without a channel: the handshake succeeds and the socket is closed."""
    for _ in range(5):
        assert await _is_accepted(stack, key)


async def _is_busy(stack: Stack, key: ApiKey) -> bool:
    task = asyncio.create_task(exchange(stack.edges[0].url, handshake(key)))
    done, _ = await asyncio.wait([task], timeout=0.5)
    if not done:
        # This handshake came first and is the one in progress.
        task.cancel()
        return False
    return task.result()[0] == 429


async def _is_accepted(stack: Stack, key: ApiKey) -> bool:
    return (await exchange(stack.edges[0].url, handshake(key)))[0] == 101
