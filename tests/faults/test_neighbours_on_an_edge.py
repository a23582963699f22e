"""What others do on an edge costs a client little: strangers, or an account with many sockets."""

import asyncio
import contextlib
import itertools
from collections.abc import Iterator

import aiohttp
import pytest

from tests.conftest import Measured, Start
from tests.faults.handmade import HandmadeSocket, Line
from tests.harness.api import Api, ApiKey
from tests.harness.neighbour import Neighbour, again_and_again, assert_isolated
from tests.harness.processes import Service
from tests.harness.stack import Stack, running_stack

pytestmark = pytest.mark.long

SHORT_S = 2.5
SOCKETS = 400
BACKLOG = 50
STRANGERS = 2000


@pytest.fixture(scope="module")
def installation() -> Iterator[Stack]:
    """The attacker publishes through another gateway: here the edge is measured."""
    with running_stack(edges=1, gateways=2) as stack:
        yield stack


@pytest.fixture
def edge(installation: Stack) -> Service:
    return installation.edges[0]


@pytest.fixture
def api(installation: Stack, http: aiohttp.ClientSession) -> Api:
    return Api(http, installation.gateways[0].url, installation.admin_token)


@pytest.fixture
def neighbour(installation: Stack, api: Api, edge: Service) -> Neighbour:
    return Neighbour(api.at(installation.gateways[1].url), edge.url)


@pytest.fixture
async def keys(api: Api) -> list[ApiKey]:
    """The API keys of one account, each with a channel."""
    account = await api.account()
    keys = [await api.api_key(account=account) for _ in range(SOCKETS)]
    await asyncio.gather(*map(api.register, keys))
    return keys


async def measure(
    neighbour: Neighbour,
    attack: contextlib.AbstractAsyncContextManager[None],
    record_property: Measured,
    *,
    name: str,
) -> None:
    alone = await neighbour.latencies(SHORT_S / 2)
    async with attack:
        attacked = await neighbour.latencies(SHORT_S)
    record_property(f"beside {name}", f"{attacked}; alone {alone}")
    assert_isolated(alone, attacked)


@pytest.mark.long
async def test_strangers_who_connect_and_say_nothing(
    neighbour: Neighbour, edge: Service, record_property: Measured
) -> None:
    """2,000 connections at a time without a request, opened as fast as they are closed."""
    async with contextlib.AsyncExitStack() as opened:

        async def connect() -> None:
            opened.callback((await Line.open(edge.url)).close)

        for _ in range(STRANGERS):
            await connect()
        await measure(
            neighbour, again_and_again(5, connect), record_property, name="connections without a request"
        )


async def test_strangers_who_never_authenticate(
    neighbour: Neighbour, edge: Service, record_property: Measured
) -> None:
    """As many sockets as one address is let have, and as many attempts at more as can be made."""
    async with contextlib.AsyncExitStack() as opened:

        async def connect() -> None:
            opened.callback((await HandmadeSocket.connect_to_blackhole(edge.url)).close)

        attack = again_and_again(10, connect)
        await measure(neighbour, attack, record_property, name="sockets that never authenticate")


async def test_strangers_who_guess(
    start: Start, http: aiohttp.ClientSession, record_property: Measured
) -> None:
    """At the gateway through which the neighbour publishes. Their address is refused for a while."""
    stack, numbers = start(edges=1), itertools.count()
    api = Api(http, stack.gateways[0].url, stack.admin_token)

    async def guess() -> None:
        secret = f"ak_{next(numbers):032x}{0:048x}"
        headers = {"Authorization": f"Bearer {secret}"}
        async with http.get(f"{api.url}/v2/notification/websocket", headers=headers):
            pass

    neighbour = Neighbour(api, stack.edges[0].url)
    await measure(neighbour, again_and_again(20, guess), record_property, name="20 who guess secrets")


async def test_an_account_whose_sockets_all_get_an_event(
    neighbour: Neighbour, api: Api, edge: Service, keys: list[ApiKey], record_property: Measured
) -> None:
    """One event to 400 channels, and the next when that is published."""
    sockets = [await HandmadeSocket.connect(edge.url, key.secret) for key in keys]

    async def publish() -> None:
        await api.publish(keys[0], {"topic": "device.registrations", "data": {"ep": "d"}})

    attack = again_and_again(1, publish)
    await measure(neighbour, attack, record_property, name=f"{SOCKETS} sockets of one account")
    for socket in sockets:
        socket.close()


@pytest.mark.long
async def test_an_account_whose_sockets_all_reconnect(
    neighbour: Neighbour, api: Api, edge: Service, keys: list[ApiKey], record_property: Measured
) -> None:
    """Each of 400 has a backlog, which it is sent again on each connection."""
    for _ in range(BACKLOG):
        await api.publish(keys[0], {"topic": "device.registrations", "data": {"ep": "d" * 200}})
    ordered = itertools.cycle(keys)

    async def connect() -> None:
        socket = await HandmadeSocket.connect(edge.url, next(ordered).secret)
        try:
            await socket.frame()
        finally:
            socket.close()

    attack = again_and_again(50, connect)
    await measure(neighbour, attack, record_property, name="50 at a time who reconnect")
