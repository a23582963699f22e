"""A rollout as clients see it: every edge restarts, nothing is lost, and reconnects come at a pace."""

import asyncio
import bisect
import contextlib
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from functools import partial

import aiohttp
import pytest

from services.socket_edge.shutdown import MOST_LATE_S
from tests.conftest import Measured
from tests.deploy.caddy import Behind, behind_caddy
from tests.harness.api import Api, ApiKey
from tests.harness.processes import Service
from tests.harness.stack import running_stack
from tests.harness.waiting import POLL_S, wait_until
from tests.load.connections import RawSocket, Refused
from tests.load.latencies import now_us
from tests.load.messages import Target
from tests.load.publishers import Plan, Publishers
from tests.load.recorder import Recorder
from tests.load.sequences import Count, count_all

SOCKETS = 600
EVENTS_PER_S = 600
EVENTS_PER_REQUEST = 20
ACK_S, WINDOW_S = 3, 5
LONGEST_GAP_S = 2.0
# Clients, proxy and edges share two busy cores, so closes may bunch up within most of a second.
# tests/socket_edge/test_pacing.py bounds the edge alone more tightly. All at once is WINDOW_S times the pace.
LATE_S = 0.75 + MOST_LATE_S
CONNECT_PATH = "/v2/notification/websocket-connect"


@pytest.fixture
def behind() -> Iterator[Behind]:
    """The topology of deploy/compose.yaml, with one more edge."""
    with (
        running_stack(gateways=1, edges=3, DRAIN_DELAY_S=ACK_S, DRAIN_WINDOW_S=WINDOW_S) as stack,
        behind_caddy(stack) as found,
    ):
        yield found


@dataclass
class Clients:
    """Applications that reconnect at once whenever their socket closes."""

    origin: str
    recorder: Recorder = field(default_factory=Recorder)
    connected_at_s: list[float] = field(default_factory=list)
    gaps_s: list[float] = field(default_factory=list)
    codes: set[int] = field(default_factory=set)
    refused: list[str] = field(default_factory=list)
    connected: int = 0

    async def stay_connected(self, number: int, key: ApiKey) -> None:
        take = partial(self.recorder.record, number)
        now_s = asyncio.get_running_loop().time
        closed_at_s: float | None = None
        while True:
            try:
                socket = await RawSocket.open(self.origin, CONNECT_PATH, key.secret, take)
            except (OSError, Refused) as error:
                self.refused.append(str(error))
                await asyncio.sleep(POLL_S)
                continue
            self.connected += 1
            if closed_at_s is not None:
                self.connected_at_s.append(now_s())
                self.gaps_s.append(now_s() - closed_at_s)
            try:
                self.codes.add(await socket.closed)
            finally:
                self.connected -= 1
                closed_at_s = now_s()
                if not socket.closed.done():
                    socket.abort()

    def most_in_a_second(self, since_s: float) -> int:
        """The most reconnects within any one second since then."""
        times = sorted(at_s for at_s in self.connected_at_s if at_s >= since_s)
        return max(bisect.bisect_left(times, at_s + 1) - n for n, at_s in enumerate(times))


@contextlib.asynccontextmanager
async def staying(origin: str, keys: list[ApiKey]) -> AsyncIterator[Clients]:
    clients = Clients(origin)
    tasks = [asyncio.create_task(clients.stay_connected(n, key)) for n, key in enumerate(keys)]
    try:
        await wait_until(
            lambda: clients.connected == len(keys), within_s=60, what=lambda: clients.refused[:5]
        )
        yield clients
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def publishing(url: str, keys: list[ApiKey]) -> AsyncIterator[Publishers]:
    """Publishes to all channels until the block is left."""
    publishers = Publishers()
    targets = [Target(number, to=key.id) for number, key in enumerate(keys)]
    await publishers.prepare(
        gateways=[url], secret=keys[0].secret, lanes=[0], all_lanes=1, targets=targets, size=200
    )
    done = asyncio.Event()

    async def publish_until_done() -> None:
        some = Plan(requests=EVENTS_PER_S // EVENTS_PER_REQUEST, rate=EVENTS_PER_S, array=EVENTS_PER_REQUEST)
        while not done.is_set():
            await publishers.publish(plan=some, start_us=now_us())

    task = asyncio.create_task(publish_until_done())
    try:
        yield publishers
    finally:
        done.set()
        await task
        await publishers.close()


async def keys_with_channels(api: Api) -> list[ApiKey]:
    account = await api.account()
    at_once = asyncio.Semaphore(20)

    async def one() -> ApiKey:
        async with at_once:
            key = await api.api_key(account=account)
            await api.register(key)
            return key

    return await asyncio.gather(*(one() for _ in range(SOCKETS)))


async def held_by(api: Api, edge: Service) -> int:
    shown = (await api.at(edge.url).call("GET", "/metrics")).text
    [held] = re.findall(r"^notify_sockets ([\d.]+)$", shown, flags=re.M)
    return int(float(held))


async def restart(edge: Service) -> None:
    """Stops the edge in order, starts it, and waits until it is ready."""
    edge.terminate()
    await wait_until(lambda: edge.ended, within_s=60, what=lambda: edge.tail)
    assert edge.exit_code == 0
    edge.start()
    await wait_until(lambda: edge.ready, within_s=60, what=lambda: edge.tail)


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_a_rollout_loses_nothing_and_keeps_its_pace(
    behind: Behind, http: aiohttp.ClientSession, record_property: Measured
) -> None:
    api = Api(http, behind.origin, behind.stack.admin_token)
    keys = await keys_with_channels(api)
    async with staying(behind.origin, keys) as clients:
        async with publishing(behind.origin, keys) as publishers:
            for edge in behind.stack.edges:
                began_s, before = asyncio.get_running_loop().time(), len(clients.gaps_s)
                held = await held_by(api, edge)
                await restart(edge)

                await wait_until(lambda: clients.connected == SOCKETS)
                reconnected = len(clients.gaps_s) - before
                most = clients.most_in_a_second(began_s)
                record_property(edge.name, f"{reconnected} of {held} reconnected, {most} in a second")
                assert held > SOCKETS / 10
                assert reconnected == held, "each socket of this edge once, and no other"
                assert most <= held / WINDOW_S * (1 + LATE_S)

        async def counted() -> Count:
            return count_all(await publishers.accepted(), clients.recorder.recorded().sequences)

        async def nothing_is_missing() -> bool:
            return (await counted()).lost == 0

        await wait_until(nothing_is_missing, within_s=30)
        count = await counted()

    longest_s = max(clients.gaps_s)
    record_property("longest gap without a socket", f"{longest_s:.3f} s; {count}")
    assert count.out_of_order == count.unknown == 0
    assert count.published > SOCKETS * 10
    assert clients.codes == {1001}
    assert clients.refused == []
    assert longest_s < LONGEST_GAP_S
