"""Floods of tiny frames and of pipelined requests: another client of the same edge receives as before."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator, Sequence

import aiohttp
import pytest
from websockets.frames import Opcode

from tests.conftest import Listen, Measured
from tests.faults.handmade import HandmadeSocket, Line, as_sent
from tests.harness.api import Api
from tests.harness.events import reading
from tests.harness.processes import Service
from tests.harness.stack import Stack, running_stack

MIB = 1024 * 1024
INTERVAL_S = 1 / 50
SHORT_S, LONG_S = 2.5, 20.0
LIMIT_S = 0.25
"""The p99 that any neighbour may cause, or three times the p99 alone."""
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


class Neighbour:
    """A client that receives 50 notifications a second on an edge."""

    def __init__(self, api: Api, listen: Listen, edge: Service) -> None:
        self._api, self._listen, self._edge = api, listen, edge

    async def p99_s(self, seconds: float) -> float:
        key = await self._api.api_key()
        await self._api.register(key)
        receiver = await self._listen(key, self._edge.url)
        count, sent_at, publishing = int(seconds / INTERVAL_S), [], []
        begun = time.monotonic()
        for number in range(count):
            await asyncio.sleep(begun + number * INTERVAL_S - time.monotonic())
            sent_at.append(time.monotonic())
            publishing.append(asyncio.create_task(self._api.publish(key, reading(number, to=key.id))))
        await asyncio.gather(*publishing)
        await receiver.received(count)
        await receiver.close()
        arrived = dict(zip(receiver.numbers, receiver.arrived_at, strict=True))
        latencies = sorted(arrived[number] - sent_at[number] for number in range(count))
        return latencies[int(count * 0.99)]


@pytest.fixture
def neighbour(api: Api, listen: Listen, edge: Service) -> Neighbour:
    return Neighbour(api, listen, edge)


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


async def strangers(edge: Service, count: int) -> list[HandmadeSocket]:
    """Sockets that never authenticate."""
    return [await HandmadeSocket.connect_anonymously(edge.url) for _ in range(count)]


@pytest.mark.parametrize("connections", [1, 20])
@pytest.mark.parametrize("kind", FRAMES)
async def test_a_flood_of_frames(
    neighbour: Neighbour, edge: Service, kind: str, connections: int, record_property: Measured
) -> None:
    alone_s = await neighbour.p99_s(SHORT_S / 2)
    before = edge.rss_bytes

    async with flooding(await strangers(edge, connections), in_parts(FRAMES[kind])):
        attacked_s = await neighbour.p99_s(SHORT_S)

    growth = edge.peak_rss_bytes - before
    record_property(f"p99 beside {connections} × {kind}", figures_of(alone_s, attacked_s, growth))
    assert attacked_s <= max(LIMIT_S, 3 * alone_s)
    assert growth < GROWTH_LIMIT_BYTES


@pytest.mark.long
async def test_all_floods_at_once_for_longer(
    neighbour: Neighbour, edge: Service, record_property: Measured
) -> None:
    alone_s = await neighbour.p99_s(SHORT_S)
    before = edge.rss_bytes

    async with contextlib.AsyncExitStack() as floods:
        for frames in FRAMES.values():
            await floods.enter_async_context(flooding(await strangers(edge, 20), in_parts(frames)))
        attacked_s = await neighbour.p99_s(LONG_S)

    growth = edge.peak_rss_bytes - before
    record_property("p99 beside 80 floods", figures_of(alone_s, attacked_s, growth))
    assert attacked_s <= max(LIMIT_S, 3 * alone_s)
    assert growth < GROWTH_LIMIT_BYTES


@pytest.mark.parametrize("kind", REQUESTS)
@pytest.mark.parametrize("role", ["edge", "gateway"])
async def test_a_flood_of_pipelined_requests(
    neighbour: Neighbour, installation: Stack, role: str, kind: str, record_property: Measured
) -> None:
    """As fast as each of five connections takes it, and their client reads nothing."""
    attacked = installation.edges[0] if role == "edge" else installation.gateways[0]
    alone_s = await neighbour.p99_s(SHORT_S / 2)
    before = attacked.rss_bytes
    lines = [await Line.open(attacked.url) for _ in range(5)]

    async with flooding(lines, REQUESTS[kind]):
        attacked_s = await neighbour.p99_s(SHORT_S)

    growth = attacked.peak_rss_bytes - before
    record_property(f"p99 beside pipelined {kind} on the {role}", figures_of(alone_s, attacked_s, growth))
    assert attacked_s <= max(LIMIT_S, 3 * alone_s)
    assert growth < GROWTH_LIMIT_BYTES


def figures_of(alone_s: float, attacked_s: float, growth: int) -> str:
    p99 = f"{alone_s * 1000:.0f} ms alone, {attacked_s * 1000:.0f} ms"
    return f"{p99}; the process grew by {growth / MIB:.1f} MiB"
