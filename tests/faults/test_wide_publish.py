"""A publish to many channels is carried out completely or refused, and costs the gateway little memory."""

import asyncio
import re
from collections.abc import Iterator

import aiohttp
import pytest

from tests.harness.api import Api, ApiKey, Response
from tests.harness.events import Event
from tests.harness.processes import Service
from tests.harness.stack import Stack, running_stack

MOST_EVENTS = 10_000
MOST_COPIES = 100_000
LONG_DATA_BYTES = 250_000
LONG_EVENTS = 31
"""Together just under the limit of 8 MB; copies for nine channels exceed 64 MiB, for eight they do not."""
DATA_BYTES = 500
"""A body of 5 MB, and 50 MB of copies."""
GROWTH_LIMIT_BYTES = 128 * 1024 * 1024


@pytest.fixture(scope="module")
def installation() -> Iterator[Stack]:
    with running_stack(gateways=1, edges=0) as stack:
        yield stack


@pytest.fixture
def gateway(installation: Stack) -> Service:
    return installation.gateways[0]


@pytest.fixture
def api(installation: Stack, http: aiohttp.ClientSession) -> Api:
    return Api(http, installation.gateways[0].url, installation.admin_token)


async def channels(api: Api, count: int) -> list[ApiKey]:
    """Creates API keys of one account, each with a channel."""
    account = await api.account()
    keys = [await api.api_key(account=account) for _ in range(count)]
    for key in keys:
        await api.register(key)
    return keys


async def one_more(api: Api, keys: list[ApiKey]) -> list[ApiKey]:
    key = await api.api_key(account=keys[0].account)
    await api.register(key)
    return [*keys, key]


async def queue_sizes(api: Api, keys: list[ApiKey]) -> set[int]:
    return set(await asyncio.gather(*(api.queue_size(key) for key in keys)))


def for_all_channels(count: int, *, size_bytes: int = 0) -> list[Event]:
    """Events that go to every channel of the account."""
    padding = "x" * size_bytes
    return [{"topic": "device.registrations", "data": {"ep": f"d{n}", "p": padding}} for n in range(count)]


def assert_too_wide(response: Response) -> None:
    assert response.status == 413, response.text[:500]
    assert response.json["type"] == "payload_too_large"
    assert "events times channels" in response.json["message"]


async def test_the_limit_of_copies(api: Api, gateway: Service) -> None:
    keys = await channels(api, MOST_COPIES // MOST_EVENTS)
    events = for_all_channels(MOST_EVENTS, size_bytes=DATA_BYTES)
    before = gateway.rss_bytes

    assert await api.publish(keys[0], *events) == [len(keys)] * MOST_EVENTS, "at the limit"
    growth = gateway.peak_rss_bytes - before

    assert await queue_sizes(api, keys) == {MOST_EVENTS}
    print(f"the gateway grew by {growth / 1e6:.1f} MB")
    assert growth < GROWTH_LIMIT_BYTES, "all copies were in memory at once"
    wider = await one_more(api, keys)
    response = await api.post_events(keys[0], events)
    assert_too_wide(response)
    [counted] = re.findall(r"the first (\d+) events make", response.json["message"])
    assert MOST_COPIES / len(wider) < int(counted) < MOST_EVENTS, "it tells how many are too many"
    assert await queue_sizes(api, wider) == {MOST_EVENTS, 0}, "nothing was queued"
    assert await api.publish(keys[0], *events[:10]) == [len(wider)] * 10, "smaller batches are accepted"


async def test_the_limit_of_bytes(api: Api) -> None:
    keys = await channels(api, 8)
    events = for_all_channels(LONG_EVENTS, size_bytes=LONG_DATA_BYTES)

    assert await api.publish(keys[0], *events) == [len(keys)] * LONG_EVENTS, "at the limit"
    assert await queue_sizes(api, keys) == {LONG_EVENTS}

    wider = await one_more(api, keys)
    assert_too_wide(await api.post_events(keys[0], events))
    assert await queue_sizes(api, wider) == {LONG_EVENTS, 0}, "nothing was queued"


async def test_only_matching_channels_count(api: Api) -> None:
    """An event for one channel is one copy in an account of any size."""
    keys = await channels(api, 12)
    events = [event | {"to": keys[1].id, "topic": "orders"} for event in for_all_channels(MOST_EVENTS)]

    assert await api.publish(keys[0], *events) == [1] * MOST_EVENTS
