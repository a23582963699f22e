"""Failover: a primary is killed for good, its replica takes over, and all services continue.

Replication is asynchronous: Redis loses what the old primary had not replicated. These tests wait until all
is replicated before the kill; whatever gets a 202 after it must arrive.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import pytest

from tests.conftest import Listen, Start
from tests.harness.api import Api, ApiKey
from tests.harness.cluster import Cluster
from tests.harness.publisher import Publisher
from tests.harness.sentinel import Guarded
from tests.harness.sockets import Receiver, assert_in_order, assert_nothing_lost
from tests.harness.stack import Stack
from tests.harness.valkey import Valkey
from tests.harness.waiting import wait_until

SHORT_HEARTBEAT = {"HEARTBEAT_S": 1, "HEARTBEAT_TTL_S": 4}


class Load:
    """Some channels, each with a publisher and a socket."""

    def __init__(self, api: Api, stack: Stack, listen: Listen) -> None:
        self.api = api
        self._stack = stack
        self._listen = listen
        self.channels: list[tuple[ApiKey, Publisher, Receiver]] = []

    async def begin(self, count: int, *, where: Callable[[ApiKey], bool] = lambda _: True) -> None:
        """Creates `count` channels whose keys satisfy `where`."""
        while count:
            key = await self.api.api_key()
            if not where(key):
                continue
            await self.api.register(key)
            edge = self._stack.edges[len(self.channels) % len(self._stack.edges)]
            publisher = Publisher(self.api, key, to=key, batch=3)
            self.channels.append((key, publisher, await self._listen(key, edge.url)))
            count -= 1

    @contextlib.asynccontextmanager
    async def publishing(self) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as publishers:
            for _, publisher, _ in self.channels:
                await publishers.enter_async_context(publisher.publishing())
            yield

    async def wait_for_accepted(self, count: int) -> None:
        await asyncio.gather(*(publisher.wait_for_accepted(count) for _, publisher, _ in self.channels))

    async def wait_until_arrived(self) -> None:
        """Everything with a 202 arrived in order on the same sockets, and is acked."""
        for key, publisher, receiver in self.channels:
            sent, got = range(publisher.accepted), receiver
            await wait_until(lambda got=got, sent=sent: sent[-1] in got.numbers)  # type: ignore[misc]
            await self.api.until(key, queue_size=0, status="connected")
            assert_nothing_lost(sent, receiver.numbers)
            assert_in_order(receiver.numbers)
            assert receiver.open_now


async def replicated(primary: Valkey) -> None:
    """Waits until the replica has everything."""
    written = primary.written
    await wait_until(lambda: primary.is_replicated(written))


async def test_failover_by_sentinel(start: Start, http: aiohttp.ClientSession, listen: Listen) -> None:
    stack = start(edges=2, redis_like=Guarded, **SHORT_HEARTBEAT)
    assert isinstance(stack.redis, Guarded)
    load = Load(Api(http, stack.gateways[0].url, stack.admin_token), stack, listen)
    await load.begin(3)
    async with load.publishing():
        await load.wait_for_accepted(30)
    await load.wait_until_arrived()
    await replicated(stack.redis.primary)

    async with load.publishing():
        stack.redis.primary.kill()
        await load.wait_for_accepted(60)
    await load.wait_until_arrived()

    assert stack.redis.sentinel.primary_port == stack.redis.replica.port
    assert any(publisher.unavailable for _, publisher, _ in load.channels)


@pytest.mark.long
async def test_failover_in_a_cluster(start: Start, http: aiohttp.ClientSession, listen: Listen) -> None:
    """Half of the channels are on the primary that dies; publishing to the others never stops."""
    stack = start(edges=2, redis_like=with_a_replica, **SHORT_HEARTBEAT)
    cluster = stack.redis
    assert isinstance(cluster, Cluster)
    dying = cluster.primaries[0]
    api = Api(http, stack.gateways[0].url, stack.admin_token)
    here, elsewhere = Load(api, stack, listen), Load(api, stack, listen)
    await here.begin(3, where=lambda key: cluster.primary_of(f"{{{key.id}}}") is dying)
    await elsewhere.begin(3, where=lambda key: cluster.primary_of(f"{{{key.id}}}") is not dying)

    async with elsewhere.publishing():
        async with here.publishing():
            await here.wait_for_accepted(30)
        await here.wait_until_arrived()
        await replicated(dying)
        async with here.publishing():
            dying.kill()
            await here.wait_for_accepted(60)
        await elsewhere.wait_for_accepted(60)
    await here.wait_until_arrived()
    await elsewhere.wait_until_arrived()

    assert cluster.replicas[0].role == "master"
    assert any(publisher.unavailable for _, publisher, _ in here.channels)


def with_a_replica(folder: Path) -> Cluster:
    return Cluster(folder, replicas=1)
