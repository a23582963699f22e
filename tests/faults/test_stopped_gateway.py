"""A gateway that was stopped (SIGSTOP) meanwhile honours every change that was answered."""

import asyncio
import json
import socket
from collections.abc import Iterator

import aiohttp
import pytest

from tests.conftest import Start
from tests.harness.api import Api, ApiKey
from tests.harness.events import Event, reading
from tests.harness.stack import Stack

ANY = {"endpoint-name": "*"}


@pytest.fixture
def stack(start: Start) -> Stack:
    return start(gateways=2)


@pytest.fixture
def api(stack: Stack, http: aiohttp.ClientSession) -> Api:
    return Api(http, stack.gateways[0].url, stack.admin_token)


@pytest.fixture
def other(stack: Stack, api: Api) -> Iterator[Api]:
    """Publishes through the gateway that is stopped."""
    yield api.at(stack.gateways[1].url)
    stack.gateways[1].thaw()


class Request:
    """A publish on a connection of its own, written at once."""

    def __init__(self, url: str, key: ApiKey, event: Event) -> None:
        body = json.dumps(event).encode()
        head = f"POST /v1/events HTTP/1.1\r\nhost: test\r\nauthorization: Bearer {key.secret}\r\n"
        host, _, port = url.removeprefix("http://").partition(":")
        self._socket = socket.create_connection((host, int(port)))
        self._socket.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)

    async def counts(self) -> list[int]:
        """For each event the number of channels in the response."""
        self._socket.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=self._socket)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 202")
        [length] = [
            int(line.partition(b":")[2]) for line in head.split(b"\r\n") if line.startswith(b"content-length")
        ]
        response = json.loads(await reader.readexactly(length))
        writer.close()
        return [event["channels"] for event in response["events"]]


async def test_changes_while_it_was_stopped_count_for_its_next_publish(
    stack: Stack, api: Api, other: Api
) -> None:
    stays = await api.api_key()
    goes, comes = [await api.api_key(account=stays.account) for _ in range(2)]
    for key in (stays, goes):
        await api.register(key)
        await api.subscribe(key, ANY)
    assert await other.publish(stays, reading(1)) == [2]

    stack.gateways[1].freeze()
    await api.subscribe(goes)
    await api.register(comes)
    await api.subscribe(comes, ANY)
    request = Request(stack.gateways[1].url, stays, reading(2))
    stack.gateways[1].thaw()

    assert await request.counts() == [2]
    assert [await api.queue_size(key) for key in (stays, goes, comes)] == [2, 1, 1]


async def test_its_appends_of_before_find_that_a_subscription_has_ended(
    stack: Stack, api: Api, other: Api
) -> None:
    """The second append waits in the gateway, which is stopped, while the subscription is removed."""
    key = await api.api_key()
    await api.register(key)
    await api.subscribe(key, ANY)
    assert await other.publish(key, reading(1)) == [1]

    stack.valkey.freeze()
    first = Request(stack.gateways[1].url, key, reading(2))
    assert stack.gateways[1].get("/livez") == 200, "it has read the first publish, and waits for Redis"
    second = Request(stack.gateways[1].url, key, reading(3))
    assert stack.gateways[1].get("/livez") == 200
    stack.gateways[1].freeze()
    stack.valkey.thaw()
    await api.subscribe(key)
    stack.gateways[1].thaw()

    assert (await first.counts(), await second.counts()) == ([1], [0])
    assert await api.queue_size(key) == 2
