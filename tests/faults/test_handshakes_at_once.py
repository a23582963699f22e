"""One handshake of a secret at a time on a replica; while Redis is frozen, a handshake lasts."""

import asyncio
import json

import aiohttp
import pytest

from tests.conftest import Listen, Start
from tests.harness.api import Api, ApiKey
from tests.harness.raw import exchange
from tests.harness.sockets import CONNECT_PATH
from tests.harness.stack import Stack
from tests.harness.waiting import wait_until

Answered = tuple[int, dict[str, str], str]


@pytest.fixture
def stack(start: Start) -> Stack:
    return start(edges=2)


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


def begun(url: str, key: ApiKey, count: int = 1) -> list[asyncio.Task[Answered]]:
    return [asyncio.create_task(exchange(url, handshake(key))) for _ in range(count)]


async def test_all_but_one_are_told_to_try_again(
    api: Api, stack: Stack, listen: Listen, channel: ApiKey
) -> None:
    other = await api.api_key()
    await api.register(other)
    stack.valkey.freeze()
    tasks = begun(stack.edges[0].url, channel, 5)
    await wait_until(lambda: sum(task.done() for task in tasks) == 4, within_s=3)

    refused = [task.result() for task in tasks if task.done()]
    assert [status for status, _, _ in refused] == [429] * 4
    for _, headers, body in refused:
        assert headers["retry-after"] == "1"
        error = json.loads(body)
        assert (error["code"], error["type"]) == (429, "too_many_requests")
        assert error["request_id"] == headers["x-request-id"]
    elsewhere = [*begun(stack.edges[1].url, channel), *begun(stack.edges[0].url, other)]
    [first] = [task for task in tasks if not task.done()]
    stack.valkey.thaw()

    assert [(await task)[0] for task in (first, *elsewhere)] == [101] * 3
    for edge in stack.edges:
        receiver = await listen(channel, edge.url)
        assert receiver.open_now


async def test_a_handshake_that_came_to_nothing_is_in_nobodys_way(
    api: Api, stack: Stack, listen: Listen, channel: ApiKey
) -> None:
    """Its client went, or Redis did not answer."""
    stack.valkey.freeze()
    [gone] = begun(stack.edges[0].url, channel)
    await wait_until(lambda: _is_busy(stack, channel))
    gone.cancel()
    await asyncio.wait([gone])
    stack.valkey.thaw()
    await wait_until(lambda: _is_accepted(stack, channel))

    stack.valkey.freeze()
    [unanswered] = begun(stack.edges[0].url, channel)
    assert (await unanswered)[0] == 503
    stack.valkey.thaw()
    await wait_until(lambda: stack.valkey.answers)
    assert await _is_accepted(stack, channel)


async def test_a_refusal_ends_a_handshake(api: Api, stack: Stack, key: ApiKey) -> None:
    """Without a channel it is accepted and closed; it may be tried again at once."""
    for _ in range(5):
        assert await _is_accepted(stack, key)


async def _is_busy(stack: Stack, key: ApiKey) -> bool:
    task = asyncio.create_task(exchange(stack.edges[0].url, handshake(key)))
    done, _ = await asyncio.wait([task], timeout=0.5)
    if not done:
        # This one was first, and is the one in progress.
        task.cancel()
        return False
    return task.result()[0] == 429


async def _is_accepted(stack: Stack, key: ApiKey) -> bool:
    return (await exchange(stack.edges[0].url, handshake(key)))[0] == 101
