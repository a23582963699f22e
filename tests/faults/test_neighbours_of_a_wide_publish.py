"""Publishes to thousands of channels delay no other account of the same gateway."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator, Sequence

import aiohttp
import pytest

from shared.clock import now_ms
from shared.model import api_keys
from shared.model.channels import Kind
from shared.redis.client import connect
from shared.store.api_keys import ApiKeys
from shared.store.channels import Channels
from shared.store.commands import commands_to
from shared.store.routing import Routing
from shared.store.wakeups import Wakeups
from shared.wire.pelion.subscriptions import compiled
from tests.harness.api import Api, ApiKey
from tests.harness.events import Event
from tests.harness.stack import Stack, running_stack
from tests.harness.waiting import wait_until

pytestmark = pytest.mark.long

CHANNELS = 3000
PUBLISHERS = 4
PUBLISHES = 200
INTERVAL_S = 1 / 100
LIMIT_S = 0.5
NOISE_S = 0.1


@pytest.fixture(scope="module")
def installation() -> Iterator[Stack]:
    with running_stack(gateways=1, edges=0) as stack:
        yield stack


@pytest.fixture
def api(installation: Stack, http: aiohttp.ClientSession) -> Api:
    return Api(http, installation.gateways[0].url, installation.admin_token)


@pytest.fixture
async def wide(installation: Stack, api: Api) -> ApiKey:
    """A key of an account with thousands of channels, written as the API would."""
    key = await api.api_key()
    async with connect(str(installation.redis.settings["REDIS_URL"])) as client:
        commands = commands_to(client)
        routing, wakeups = Routing(commands, compiled), Wakeups(commands)
        keys, channels = ApiKeys(commands, routing, wakeups), Channels(commands, routing, wakeups)

        async def add_channel() -> None:
            id_ = api_keys.new_id()
            secret_hash = api_keys.hash_of(api_keys.new_secret(id_))
            scopes = frozenset({api_keys.Scope.RECEIVE})
            await keys.create(api_keys.ApiKey(id_, key.account, "wide", scopes, now_ms(), secret_hash))
            await channels.create(key.account, id_, kind=Kind.WEBSOCKET)

        for _ in range(0, CHANNELS, 500):
            await asyncio.gather(*(add_channel() for _ in range(500)))
    return key


@pytest.fixture
async def neighbour(api: Api) -> ApiKey:
    key = await api.api_key()
    await api.register(key)
    await api.publish(key, *to_itself(key))
    return key


def to_itself(key: ApiKey) -> list[Event]:
    return [{"topic": "orders", "data": 1, "to": key.id}]


def to_all_channels(count: int) -> list[Event]:
    return [{"topic": "device.registrations", "data": {"ep": f"d{n}"}} for n in range(count)]


async def p99_s(api: Api, key: ApiKey) -> float:
    """How long a publish takes that one client sends a hundred times a second."""
    took = []
    begun = time.monotonic()
    for number in range(PUBLISHES):
        await asyncio.sleep(begun + number * INTERVAL_S - time.monotonic())
        before = time.monotonic()
        assert await api.publish(key, *to_itself(key)) == [1]
        took.append(time.monotonic() - before)
    return sorted(took)[int(PUBLISHES * 0.99)]


@pytest.fixture
async def attacker(installation: Stack) -> AsyncIterator[Api]:
    """Its connections are not those of the neighbour."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        yield Api(http, installation.gateways[0].url, installation.admin_token)


@contextlib.asynccontextmanager
async def publishing(api: Api, key: ApiKey, events: Sequence[Event]) -> AsyncIterator[list[int]]:
    """Publishes these events again and again; notes the channels that each publish reached."""
    reached: list[int] = []

    async def publish() -> None:
        while True:
            response = await api.post_events(key, list(events))
            # It may exceed a quota: then it has not done its worst, but its neighbour has not either.
            assert response.status in (202, 429), response.text
            if response.status == 202:
                reached.append(response.json["events"][0]["channels"])

    tasks = [asyncio.create_task(publish()) for _ in range(PUBLISHERS)]
    try:
        yield reached
    finally:
        for task in tasks:
            task.cancel()
        for done in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(done, asyncio.CancelledError), done


@pytest.mark.parametrize("events", [1, pytest.param(10, marks=pytest.mark.long)])
async def test_neighbour_publishes_as_before(
    api: Api, attacker: Api, wide: ApiKey, neighbour: ApiKey, events: int
) -> None:
    alone_s = await p99_s(api, neighbour)

    async with publishing(attacker, wide, to_all_channels(events)) as reached:
        during_s = await p99_s(api, neighbour)
        await wait_until(lambda: bool(reached), within_s=60)

    alone, during = f"{1000 * alone_s:.1f} ms alone", f"{1000 * during_s:.1f} ms"
    print(f"p99 {alone}, {during} beside {len(reached)} publishes of {events} events")
    assert set(reached) == {CHANNELS}
    assert during_s < min(LIMIT_S, max(3 * alone_s, NOISE_S))
