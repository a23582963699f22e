"""Floods of tiny frames and of pipelined requests: another client of the same edge receives as before."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence

import aiohttp
import pytest
from websockets.frames import Opcode

from tests.conftest import Measured
from tests.faults.handmade import HandmadeSocket, Line, as_sent
from tests.harness.api import Api
from tests.harness.neighbour import Latencies, Neighbour, again_and_again, assert_isolated
from tests.harness.processes import Service
from tests.harness.stack import Stack, running_stack

pytestmark = pytest.mark.long

MIB = 1024 * 1024
SHORT_S, LONG_S = 2.5, 20.0
GROWTH_LIMIT_BYTES = 24 * MIB
PART_BYTES = 64 * 1024

FRAGMENTS = as_sent(Opcode.TEXT, b"a", final=False) + as_sent(Opcode.CONT, b"a", final=False) * 198
FRAMES = {
    "empty pings": as_sent(Opcode.PING),
    "empty texts": as_sent(Opcode.TEXT),
    "pongs": as_sent(Opcode.PONG),
    "fragments": FRAGMENTS + as_sent(Opcode.CONT, b"a"),
}
CHUNKED = b"POST /v1/events HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
REQUESTS = {
    "GET": b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n" * 10_000,
    "POST": b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n[]" * 10_000,
    "a body of 1-byte chunks": CHUNKED + b"1\r\nx\r\n" * 500_000 + b"0\r\n\r\n",
}


@pytest.fixture(scope="module")
def installation() -> Iterator[Stack]:
    with running_stack(edges=1) as stack:
        yield stack


@pytest.fixture
def edge(installation: Stack) -> Service:
    return installation.edges[0]


@pytest.fixture
def api(installation: Stack, http: aiohttp.ClientSession) -> Api:
    return Api(http, installation.gateways[0].url, installation.admin_token)


@pytest.fixture
def neighbour(api: Api, edge: Service) -> Neighbour:
    return Neighbour(api, edge.url)


async def send_forever(lines: Sequence[Line], data: bytes) -> None:
    async def send(line: Line) -> None:
        is_open = True
        while is_open:
            is_open = await line.write(data)

    await asyncio.gather(*(send(line) for line in lines))


@contextlib.asynccontextmanager
async def flooding(lines: Sequence[Line], data: bytes) -> AsyncIterator[None]:
    """Sends the data as fast as the lines take it, and reads nothing."""
    sending = asyncio.create_task(send_forever(lines, data))
    try:
        yield
    finally:
        sending.cancel()
        await asyncio.wait([sending])
        for line in lines:
            line.close()


def in_parts(data: bytes) -> bytes:
    return data * (PART_BYTES // len(data) + 1)


async def customers(api: Api, edge: Service, count: int) -> list[HandmadeSocket]:
    """Sockets that have authenticated, and so have no budget."""
    key = await api.api_key()
    return [await HandmadeSocket.connect_to_blackhole(edge.url, key.secret) for _ in range(count)]


@contextlib.asynccontextmanager
async def strangers_flooding(edge: Service, count: int, data: bytes) -> AsyncIterator[None]:
    """So many that never authenticate: each floods until it is closed, and connects again."""

    async def flood() -> None:
        line = await HandmadeSocket.connect_to_blackhole(edge.url)
        try:
            await send_forever([line], data)
        finally:
            line.close()

    async with again_and_again(count, flood):
        yield


@pytest.mark.parametrize(
    ("connections", "who"),
    [
        (1, "strangers"),
        pytest.param(1, "customers", marks=pytest.mark.long),
        pytest.param(20, "customers", marks=pytest.mark.long),
    ],
)
@pytest.mark.parametrize("kind", FRAMES)
async def test_a_flood_of_frames(
    neighbour: Neighbour,
    api: Api,
    edge: Service,
    who: str,
    kind: str,
    connections: int,
    record_property: Measured,
) -> None:
    alone = await neighbour.latencies(SHORT_S / 2)
    before, data = edge.rss_bytes, in_parts(FRAMES[kind])

    async with (
        strangers_flooding(edge, connections, data)
        if who == "strangers"
        else flooding(await customers(api, edge, connections), data)
    ):
        attacked = await neighbour.latencies(SHORT_S)

    growth = edge.peak_rss_bytes - before
    record_property(f"beside {kind} from {connections} {who}", figures_of(alone, attacked, growth))
    assert_isolated(alone, attacked)
    assert growth < GROWTH_LIMIT_BYTES


@pytest.mark.long
async def test_all_floods_at_once_for_longer(
    neighbour: Neighbour, api: Api, edge: Service, record_property: Measured
) -> None:
    alone = await neighbour.latencies(SHORT_S)
    before = edge.rss_bytes

    async with contextlib.AsyncExitStack() as floods:
        for frames in FRAMES.values():
            await floods.enter_async_context(flooding(await customers(api, edge, 20), in_parts(frames)))
            await floods.enter_async_context(strangers_flooding(edge, 5, in_parts(frames)))
        attacked = await neighbour.latencies(LONG_S)

    growth = edge.peak_rss_bytes - before
    record_property("beside 100 floods", figures_of(alone, attacked, growth))
    assert_isolated(alone, attacked)
    assert growth < GROWTH_LIMIT_BYTES


@pytest.mark.parametrize("kind", REQUESTS)
@pytest.mark.parametrize("role", [pytest.param("edge", marks=pytest.mark.long), "gateway"])
async def test_a_flood_of_pipelined_requests(
    neighbour: Neighbour, installation: Stack, role: str, kind: str, record_property: Measured
) -> None:
    """As fast as each of five connections takes it, and their client reads nothing."""
    process = installation.edges[0] if role == "edge" else installation.gateways[0]
    alone = await neighbour.latencies(SHORT_S / 2)
    before = process.rss_bytes
    lines = [await Line.open(process.url) for _ in range(5)]

    async with flooding(lines, REQUESTS[kind]):
        attacked = await neighbour.latencies(SHORT_S)

    growth = process.peak_rss_bytes - before
    record_property(f"beside pipelined {kind} on the {role}", figures_of(alone, attacked, growth))
    assert_isolated(alone, attacked)
    assert growth < GROWTH_LIMIT_BYTES


def figures_of(alone: Latencies, attacked: Latencies, growth: int) -> str:
    return f"{attacked}; alone {alone}; the process grew by {growth / MIB:.1f} MiB"
