"""A client that handles each notification before it reads on, and so sends pongs late."""

import contextlib
import json
import time
from collections.abc import Callable, Iterator

import aiohttp
import pytest
from websockets.frames import Opcode

from tests.faults.handmade import HandmadeSocket
from tests.harness.api import Api, ApiKey
from tests.harness.events import number_of, readings
from tests.harness.sockets import assert_consecutive
from tests.harness.stack import Stack, running_stack
from tests.harness.waiting import wait_until

PING_TIMEOUT_S = 1
HANDLING_S = 0.01
COUNT = 250
"""Handling all of them takes more than twice PING_TIMEOUT_S."""
LIMIT_S = 100.0


@pytest.fixture(scope="module")
def installation() -> Iterator[Stack]:
    with running_stack(edges=1, PING_TIMEOUT_S=PING_TIMEOUT_S) as stack:
        yield stack


@pytest.fixture
def api(installation: Stack, http: aiohttp.ClientSession) -> Api:
    return Api(http, installation.gateways[0].url, installation.admin_token)


class Handler:
    """Reads a frame and handles all its notifications before it reads the next."""

    def __init__(self, url: str, key: ApiKey, *, is_slow: Callable[[int], bool]) -> None:
        self._url = url
        self._key = key
        self._is_slow = is_slow
        self.numbers: list[int] = []

    async def runs(self, *, until: int) -> None:
        """Uses one socket until `until` is handled and its ping has a pong, or the edge cuts it."""
        client = await HandmadeSocket.connect(self._url, self._key.secret)
        try:
            with contextlib.suppress(EOFError):
                while True:
                    opcode, payload = await client.frame()
                    if opcode is Opcode.PING:
                        await client.send(Opcode.PONG, payload)
                        if self.numbers[-1:] == [until]:
                            return
                    elif opcode is Opcode.TEXT:
                        for item in json.loads(payload)["notifications"]:
                            await self._handle(number_of(item))
        finally:
            client.close()

    async def _handle(self, number: int) -> None:
        if self._is_slow(number):
            finished_s = time.monotonic() + HANDLING_S
            await wait_until(lambda: time.monotonic() >= finished_s)
        self.numbers.append(number)


async def publish_all(api: Api, channel: ApiKey) -> None:
    assert await api.publish(channel, *readings(range(COUNT), to=channel.id)) == [1] * COUNT


async def test_a_slow_client_receives_everything_on_one_socket(
    api: Api, channel: ApiKey, installation: Stack
) -> None:
    await publish_all(api, channel)
    handler = Handler(installation.edges[0].url, channel, is_slow=lambda _: True)

    began = time.monotonic()
    await handler.runs(until=COUNT - 1)

    assert handler.numbers == [*range(COUNT)], "the socket was not cut, and nothing was repeated"
    assert time.monotonic() - began > PING_TIMEOUT_S, "the test was too quick to show anything"
    await api.until(channel, queue_size=0)


async def test_a_client_that_becomes_slow_makes_progress_with_every_socket(
    api: Api, channel: ApiKey, installation: Stack
) -> None:
    """While it is quick its window grows; then it may be more than the client handles in time."""
    await publish_all(api, channel)
    quick_until = COUNT // 4
    handler = Handler(installation.edges[0].url, channel, is_slow=lambda number: number >= quick_until)
    sizes = [COUNT]

    began = time.monotonic()
    while sizes[-1]:
        assert time.monotonic() - began < LIMIT_S, sizes
        handled = len(handler.numbers)
        await handler.runs(until=COUNT - 1)
        assert_consecutive(handler.numbers[handled:])
        await api.until(channel, status="disconnected")
        sizes.append(await api.queue_size(channel))
        assert sizes[-1] < sizes[-2], f"a socket made no progress: {sizes}"

    assert list(dict.fromkeys(handler.numbers)) == [*range(COUNT)]
