"""A client that does not read costs the edge no memory and loses nothing: its queue stays in Redis."""

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
    """One edge with short ping time-outs, one with long ones."""
    with (
        running_stack(edges=1, PING_INTERVAL_S=0.5, PING_TIMEOUT_S=1.5) as stack,
        stack.more_edges("edge-patient", PING_INTERVAL_S=20, PING_TIMEOUT_S=20) as [patient],
    ):
        stack.edges.append(patient)
        yield stack


@pytest.fixture
def impatient(installation: Stack) -> Service:
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


async def test_a_client_that_stops_reading_is_cut_and_can_reconnect(
    api: Api,
    channel: ApiKey,
    impatient: Service,
    patient: Service,
    listen: Listen,
    record_property: Measured,
) -> None:
    stalled = await listen(channel, impatient.url, hold=True)
    before = impatient.rss_bytes

    await publish_20_mb(api, channel)
    await api.until(channel, status="disconnected", within_s=60)

    growth = impatient.peak_rss_bytes - before
    record_property(
        "growth of an edge, 20 MB queued for a client that stopped reading", f"{growth / 1e6:.1f} MB"
    )
    assert growth < GROWTH_LIMIT_BYTES
    acked = COUNT - await api.queue_size(channel)
    again = await listen(channel, patient.url)
    await again.received_numbers(range(acked, COUNT), within_s=60)
    stalled.resume()
    await stalled.closed()
    assert_consecutive(stalled.numbers)
    assert_nothing_lost(range(COUNT), stalled.numbers + again.numbers)


async def test_a_client_that_pauses_continues_on_its_socket(
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


async def test_a_stalled_socket_does_not_delay_a_takeover(
    api: Api, channel: ApiKey, impatient: Service, patient: Service, listen: Listen
) -> None:
    stalled = await listen(channel, patient.url, hold=True)
    await api.publish(channel, *readings(range(1000), to=channel.id, padding=PADDING))
    acked = 1000 - await api.queue_size(channel)

    newer = await listen(channel, impatient.url)

    await wait_until(lambda: newer.numbers[-1:] == [999])
    assert_consecutive(newer.numbers)
    assert newer.numbers[0] >= acked
    stalled.resume()
    await stalled.closed()
    assert_nothing_lost(range(1000), stalled.numbers + newer.numbers)


async def test_a_dead_connection_is_detected_by_pings(
    api: Api, channel: ApiKey, impatient: Service, listen: Listen, listen_silently: ListenSilently
) -> None:
    """An idle connection without a reset or a close frame."""
    silent = await listen_silently(channel, impatient.url)

    await wait_until(lambda: silent.pings)
    await api.until(channel, status="disconnected")

    await wait_until(lambda: silent.ended)
    await api.publish(channel, reading(1, to=channel.id))
    await (await listen(channel, impatient.url)).received_numbers([1])


async def test_an_idle_client_that_sends_pongs_stays_connected(
    api: Api, channel: ApiKey, impatient: Service, listen: Listen, listen_silently: ListenSilently
) -> None:
    idle = await listen(channel, impatient.url)
    silent_key = await api.api_key()
    await api.register(silent_key)
    silent = await listen_silently(silent_key, impatient.url)

    await wait_until(lambda: silent.ended)

    assert idle.open_now
    assert await api.status(channel) == "connected"
