"""One publish to many channels is either all done or plainly refused, and costs its gateway little memory."""

import asyncio
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
"""Together just under the 8 MB of a body; to nine channels they are over 64 MiB, to eight under."""
DATA_BYTES = 500
"""A legal body of so many, and 50 MB of copies."""
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
    """So many API keys of one account, each with a channel."""
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


def for_everybody(count: int, *, size_bytes: int = 0) -> list[Event]:
    """Events that go to every channel of the account."""
    padding = "x" * size_bytes
    return [{"topic": "device.registrations", "data": {"ep": f"d{n}", "p": padding}} for n in range(count)]


def assert_says_too_wide(response: Response) -> None:
    assert response.status == 413, response.text[:500]
    assert response.json["type"] == "payload_too_large"
    assert "events times channels" in response.json["message"]


async def test_too_many_copies(api: Api, gateway: Service) -> None:
    keys = await channels(api, MOST_COPIES // MOST_EVENTS)
    events = for_everybody(MOST_EVENTS, size_bytes=DATA_BYTES)
    before = gateway.rss_bytes

    assert await api.publish(keys[0], *events) == [len(keys)] * MOST_EVENTS, "as many as there may be"
    growth = gateway.peak_rss_bytes - before

    assert await queue_sizes(api, keys) == {MOST_EVENTS}
    print(f"the gateway grew by {growth / 1e6:.1f} MB")
    assert growth < GROWTH_LIMIT_BYTES, "the copies are not all in its memory at once"
    wider = await one_more(api, keys)
    response = await api.post_events(keys[0], events)
    assert_says_too_wide(response)
    assert str(len(wider) * MOST_EVENTS) in response.json["message"]
    assert await queue_sizes(api, wider) == {MOST_EVENTS, 0}, "not one of them was queued"
    assert await api.publish(keys[0], *events[:10]) == [len(wider)] * 10, "fewer at once find their way"


async def test_too_many_bytes(api: Api) -> None:
    keys = await channels(api, 8)
    events = for_everybody(LONG_EVENTS, size_bytes=LONG_DATA_BYTES)

    assert await api.publish(keys[0], *events) == [len(keys)] * LONG_EVENTS, "as many as there may be"
    assert await queue_sizes(api, keys) == {LONG_EVENTS}

    wider = await one_more(api, keys)
    assert_says_too_wide(await api.post_events(keys[0], events))
    assert await queue_sizes(api, wider) == {LONG_EVENTS, 0}, "not one of them was queued"


async def test_only_those_who_want_it_count(api: Api) -> None:
    """An event for one channel is one copy, however many channels the account has."""
    keys = await channels(api, 12)
    events = [event | {"to": keys[1].id, "topic": "orders"} for event in for_everybody(MOST_EVENTS)]

    assert await api.publish(keys[0], *events) == [1] * MOST_EVENTS
