"""The number of an account's sockets over all edges, by a clock that the test sets."""

import asyncio

import fakeredis
import pytest

from services.socket_edge.socket_quota import AGAIN_S, REPORT_S, SocketQuota
from shared.model.api_keys import new_id
from shared.model.errors import QuotaExceeded
from shared.model.quotas import Quotas
from shared.store import keyspace
from shared.store.commands import commands_to
from shared.store.quotas import AccountQuotas
from shared.store.replicas import Heartbeat
from tests.publish.publishing import GatedRedis
from tests.store.stores import fake_backend

ACCOUNT = new_id()


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Edge:
    """A process that holds sockets."""

    def __init__(self, server: fakeredis.FakeServer, name: str, clock: Clock, most: int) -> None:
        self.clock = clock
        self.redis = GatedRedis(server=server)
        self.redis.pipelines = []
        calls = commands_to(self.redis, scripts=fake_backend(server).scripts)
        self.store = AccountQuotas(calls, quotas=Quotas(sockets=most))
        self.quota = SocketQuota(self.store, instance=name, now_s=clock)
        self.heartbeat = Heartbeat(calls, instance=name, ttl_ms=60_000)

    async def open(self, count: int = 1) -> int:
        """Opens sockets until one is refused; returns how many it has opened."""
        for opened in range(count):
            try:
                await self.quota.admit(ACCOUNT)
            except QuotaExceeded:
                return opened
        return count

    async def report(self) -> None:
        """As the loop does a second later."""
        self.clock.now_s += REPORT_S
        await self.quota.report_changes()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def edges(clock: Clock) -> list[Edge]:
    """Three live edges, where an account may have 10 sockets."""
    server = fakeredis.FakeServer()
    edges = [Edge(server, f"edge-{n}/a", clock, 10) for n in range(3)]
    for edge in edges:
        await edge.heartbeat.beat()
        edge.redis.pipelines.clear()
    return edges


async def test_the_quota_counts_the_sockets_of_every_edge(edges: list[Edge]) -> None:
    a, b, c = edges
    assert await a.open(6) == 6
    await a.report()
    assert await b.open(20) == 4
    await b.report()
    assert await c.open() == await a.open() == await b.open() == 0
    assert await a.store.sockets(ACCOUNT) == 10

    a.quota.leave(ACCOUNT)
    await a.report()
    assert await c.open(5) == 1
    with pytest.raises(QuotaExceeded, match="sockets"):
        await c.quota.admit(ACCOUNT)


async def test_between_two_reports_an_edge_goes_by_what_it_knows(edges: list[Edge]) -> None:
    a, b, _ = edges
    # Neither knows of the other's until it reports again.
    assert await a.open(20) + await b.open(20) == 20

    await a.report()
    await b.report()
    assert await a.open() + await b.open() == 0


async def test_no_socket_is_refused_for_those_of_a_killed_edge(clock: Clock, edges: list[Edge]) -> None:
    a, b, _ = edges
    assert await a.open(10) == 10
    await a.report()
    assert await b.open() == 0
    await a.heartbeat.stop()
    clock.now_s += REPORT_S

    assert await b.open(20) == 10

    await b.report()
    assert list(await b.redis.hkeys(keyspace.sockets(ACCOUNT))) == [b"edge-1/a"]  # type: ignore[misc]


async def test_a_connection_may_replace_another_at_the_quota(edges: list[Edge]) -> None:
    a = edges[0]
    assert await a.open(10) == 10
    is_connected = [True]

    async def ask() -> bool:
        return is_connected[0]

    async with a.quota.place_on_channel(ACCOUNT, ask):
        a.quota.leave(ACCOUNT)
    with pytest.raises(ZeroDivisionError):
        async with a.quota.place_on_channel(ACCOUNT, ask):
            raise ZeroDivisionError
    is_connected.clear()
    is_connected.append(False)
    with pytest.raises(QuotaExceeded):
        async with a.quota.place_on_channel(ACCOUNT, ask):
            pytest.fail("there is no place")
    a.quota.leave(ACCOUNT)
    async with a.quota.place_on_channel(ACCOUNT, ask):
        pass


async def test_reports_are_few_and_an_account_is_forgotten_with_its_last_socket(
    clock: Clock, edges: list[Edge]
) -> None:
    a = edges[0]
    for _ in range(50):
        assert await a.open(5) == 5
        for _ in range(5):
            a.quota.leave(ACCOUNT)
    # One, and a second time because the server did not know the script by name.
    assert sum(map(len, a.redis.pipelines)) <= 2

    assert await a.open() == 1
    await a.report()
    clock.now_s += AGAIN_S - 1
    a.redis.pipelines.clear()
    await a.quota.report_changes()
    assert a.redis.pipelines == []
    clock.now_s += 1
    await a.quota.report_changes()
    assert len(a.redis.pipelines) == 1

    a.quota.leave(ACCOUNT)
    await a.report()
    assert len(a.quota) == 0
    assert not await a.redis.exists(keyspace.sockets(ACCOUNT))


async def test_many_at_once_ask_once(edges: list[Edge]) -> None:
    a = edges[0]
    results = await asyncio.gather(*(a.quota.admit(ACCOUNT) for _ in range(30)), return_exceptions=True)

    refused = [result for result in results if isinstance(result, QuotaExceeded)]
    assert len(refused) == 20
    assert sum(map(len, a.redis.pipelines)) <= 2
