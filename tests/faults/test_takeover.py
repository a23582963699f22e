"""Takeovers between two edges under load: nothing is lost, nothing is out of order."""

import itertools
import statistics
import time

import aiohttp

from tests.conftest import Listen, ListenSilently, Measured, Start
from tests.harness.api import Api
from tests.harness.events import readings
from tests.harness.publisher import Publisher
from tests.harness.sockets import Receiver, assert_consecutive, assert_nothing_lost, in_arrival_order
from tests.harness.waiting import wait_until

TAKEOVERS = 50
IN_FLIGHT_LIMIT = 1000


async def test_50_takeovers_under_load(
    start: Start, http: aiohttp.ClientSession, listen: Listen, record_property: Measured
) -> None:
    stack = start(edges=2)
    api = Api(http, stack.gateways[0].url, stack.admin_token)
    key = await api.api_key()
    await api.register(key)
    publisher = Publisher(api, key, to=key)
    receivers = [await listen(key, stack.edges[0].url)]
    took_ms: list[float] = []

    async with publisher.publishing():
        for number in range(1, TAKEOVERS + 1):
            older = receivers[-1]
            await wait_until(lambda older=older: older.numbers)  # type: ignore[misc]
            began = time.monotonic()
            receivers.append(await listen(key, stack.edges[number % 2].url))
            assert await older.closed() == 1001
            took_ms.append(((older.closed_at or 0.0) - began) * 1000)
    newest = receivers[-1]
    await wait_until(lambda: newest.numbers[-1:] == [publisher.accepted - 1])
    await api.until(key, queue_size=0)

    median_ms = statistics.median(took_ms)
    took = f"median {median_ms:.0f} ms, worst {max(took_ms):.0f} ms"
    record_property(f"{TAKEOVERS} takeovers under load, until the old socket is closed", took)
    assert median_ms < 1000
    assert_nothing_lost(range(publisher.accepted), in_arrival_order(receivers))
    for older, newer in itertools.pairwise(receivers):
        assert_handed_over(older, newer)
    assert newest.open_now


def assert_handed_over(older: Receiver, newer: Receiver) -> None:
    """No gap between the two sockets, and at most a window of duplicates."""
    assert_consecutive(older.numbers)
    assert_consecutive(newer.numbers)
    assert older.numbers[-1] - IN_FLIGHT_LIMIT < newer.numbers[0] <= older.numbers[-1] + 1


async def test_the_old_owner_acks_nothing(
    start: Start, http: aiohttp.ClientSession, listen: Listen, listen_silently: ListenSilently
) -> None:
    """It receives a pong after it lost the lease, and before it can know that."""
    stack = start(edges=2)
    api = Api(http, stack.gateways[0].url, stack.admin_token)
    key = await api.api_key()
    await api.register(key)
    older = await listen_silently(key, stack.edges[0].url)
    await api.publish(key, *readings(range(3), to=key.id))
    await wait_until(lambda: older.numbers == [*range(3)] and older.pings)

    stack.edges[0].freeze()
    newer = await listen_silently(key, stack.edges[1].url)
    await wait_until(lambda: newer.numbers == [*range(3)])
    for payload in older.pings:
        await older.pong(payload)
    stack.edges[0].thaw()
    await wait_until(lambda: older.close_code == 1001)

    assert await api.queue_size(key) == 3
    newest = await listen(key, stack.edges[0].url)
    await newest.received_numbers(range(3))
    await api.until(key, queue_size=0)
