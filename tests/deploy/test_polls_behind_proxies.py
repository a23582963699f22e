"""Long polls behind real proxies: none is lost, and behind a trusted one none comes twice.

HAProxy resets its connection to the edge as soon as the client has gone, also right after a response.
"""

import asyncio
import contextlib
from collections.abc import Iterator

import aiohttp
import pytest

from tests.deploy.caddy import behind_caddy
from tests.deploy.proxies import proxy_to
from tests.harness.api import Api, ApiKey, Response
from tests.harness.events import reading
from tests.harness.polls import PULL, numbers_in
from tests.harness.stack import Stack, running_stack
from tests.harness.waiting import wait_until

COUNT = 150


@pytest.fixture(scope="module", params=["trusted", "unknown"])
def stack(request: pytest.FixtureRequest) -> Iterator[Stack]:
    trusted = {"trusted": "127.0.0.0/8", "unknown": "192.0.2.1"}[request.param]
    with running_stack(edges=1, TRUSTED_PROXIES=trusted) as running:
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
    with proxy_to(request.param, stack.edges[0].url) as url:
        yield url


@pytest.mark.parametrize("hangs_up", [True, False], ids=["a connection each", "one connection"])
async def test_polls(api: Api, key: ApiKey, stack: Stack, origin: str, hangs_up: bool) -> None:
    received: list[int] = []
    connector = aiohttp.TCPConnector(force_close=hangs_up)
    async with aiohttp.ClientSession(connector=connector) as client:
        through = Api(client, origin, "")
        # The first poll creates the channel.
        assert (await through.call("GET", PULL, key=key, params={"noWait": "true"})).status == 204
        polling = asyncio.create_task(poll_forever(through, key, received))
        try:
            for number in range(COUNT):
                await api.publish(key, reading(number, to=key.id))
            await wait_until(lambda: len(set(received)) == COUNT, what=lambda: received)
            # What comes twice comes at once.
            await api.publish(key, reading(COUNT, to=key.id))
            await wait_until(lambda: COUNT in received)
        finally:
            polling.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await polling

    assert sorted(set(received)) == list(range(COUNT + 1))
    if stack.settings["TRUSTED_PROXIES"] == "127.0.0.0/8":
        assert received == list(range(COUNT + 1))


async def poll_forever(api: Api, key: ApiKey, received: list[int]) -> None:
    while True:
        response: Response = await api.call("GET", PULL, key=key)
        received += numbers_in(response)
