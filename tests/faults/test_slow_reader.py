"""A client that does not read costs the edge no memory, and loses nothing: its queue waits in Redis."""

from collections.abc import Iterator

import aiohttp
import pytest

from tests.conftest import Listen, ListenSilently, Measured
from tests.harness.api import Api, ApiKey
from tests.harness.events import reading, readings
from tests.harness.processes import Service
from tests.harness.sockets import assert_consecutive, assert_nothing_lost
from tests.harness.stack import Stack, running_stack
from tests.harness.waiting import wait_until

COUNT = 5000
PADDING = 4096
"""Together 20 MB."""
GROWTH_LIMIT_BYTES = 10 * 1024 * 1024


@pytest.fixture(scope="module")
def installation() -> Iterator[Stack]:
    """One edge that cuts the silent soon, and one that is patient."""
    with (
        running_stack(edges=1, PING_INTERVAL_S=1, PING_TIMEOUT_S=2) as stack,
        stack.more_edges("edge-patient", PING_INTERVAL_S=20, PING_TIMEOUT_S=20) as [patient],
    ):
        stack.edges.append(patient)
        yield stack


@pytest.fixture
def quick(installation: Stack) -> Service:
    return installation.edges[0]


@pytest.fixture
def patient(installation: Stack) -> Service:
    return installation.edges[1]


@pytest.fixture
def api(installation: Stack, http: aiohttp.ClientSession) -> Api:
    return Api(http, installation.gateways[0].url, installation.admin_token)


async def publish_20_mb(api: Api, key: ApiKey) -> None:
    for first in range(0, COUNT, 1000):
        await api.publish(key, *readings(range(first, first + 1000), to=key.id, padding=PADDING))


async def test_who_stops_reading_for_good_is_cut_and_comes_back(
    api: Api,
    channel: ApiKey,
    quick: Service,
    patient: Service,
    listen: Listen,
    record_property: Measured,
) -> None:
    stalled = await listen(channel, quick.url, hold=True)
    before = quick.rss_bytes

    await publish_20_mb(api, channel)
    await api.until(channel, status="disconnected", within_s=60)

    growth = quick.peak_rss_bytes - before
    record_property("memory an edge grew by, 20 MB waiting for who stopped reading", f"{growth / 1e6:.1f} MB")
    assert growth < GROWTH_LIMIT_BYTES
    acked = COUNT - await api.queue_size(channel)
    again = await listen(channel, patient.url)
    await again.received_numbers(range(acked, COUNT), within_s=60)
    stalled.resume()
    await stalled.closed()
    assert_consecutive(stalled.numbers)
    assert_nothing_lost(range(COUNT), stalled.numbers + again.numbers)


async def test_who_pauses_goes_on_where_it_was(
    api: Api, channel: ApiKey, patient: Service, listen: Listen
) -> None:
    pausing = await listen(channel, patient.url, hold=True)
    before = patient.rss_bytes

    await publish_20_mb(api, channel)
    growth = patient.peak_rss_bytes - before
    pausing.resume()

    await pausing.received_numbers(range(COUNT), within_s=60)
    await api.until(channel, queue_size=0)
    assert pausing.open_now
    assert growth < GROWTH_LIMIT_BYTES


async def test_a_stalled_socket_does_not_hinder_the_one_that_takes_over(
    api: Api, channel: ApiKey, quick: Service, patient: Service, listen: Listen
) -> None:
    stalled = await listen(channel, patient.url, hold=True)
    await api.publish(channel, *readings(range(1000), to=channel.id, padding=PADDING))
    acked = 1000 - await api.queue_size(channel)

    newer = await listen(channel, quick.url)

    await wait_until(lambda: newer.numbers[-1:] == [999])
    assert_consecutive(newer.numbers)
    assert newer.numbers[0] >= acked
    stalled.resume()
    await stalled.closed()
    assert_nothing_lost(range(1000), stalled.numbers + newer.numbers)


async def test_a_line_that_died_in_silence_is_noticed(
    api: Api, channel: ApiKey, quick: Service, listen: Listen, listen_silently: ListenSilently
) -> None:
    """Idle, without a reset or a close frame: only the pings tell."""
    silent = await listen_silently(channel, quick.url)

    await wait_until(lambda: silent.pings)
    await api.until(channel, status="disconnected")

    await wait_until(lambda: silent.ended)
    await api.publish(channel, reading(1, to=channel.id))
    await (await listen(channel, quick.url)).received_numbers([1])


async def test_who_is_idle_and_answers_stays(
    api: Api, channel: ApiKey, quick: Service, listen: Listen, listen_silently: ListenSilently
) -> None:
    idle = await listen(channel, quick.url)
    yardstick_key = await api.api_key()
    await api.register(yardstick_key)
    yardstick = await listen_silently(yardstick_key, quick.url)

    await wait_until(lambda: yardstick.ended)

    assert idle.open_now
    assert await api.status(channel) == "connected"
