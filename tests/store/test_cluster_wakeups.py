"""Wakeups in a Redis Cluster: published through any node; the loss of a primary makes subscribers resync."""

import contextlib
from collections.abc import Iterator

import pytest

from shared.model.errors import StoreUnavailable
from shared.redis.client import connect
from shared.redis.pipeline import RedisCommands
from shared.store.commands import commands_to
from shared.store.keyspace import wakeup
from tests.harness.cluster import Cluster, Node, running_cluster
from tests.harness.waiting import wait_until
from tests.store.stores import EDGE
from tests.store.test_wakeups import Heard, Subscription, listening

KEYS = [f"key-{number}" for number in range(20)]


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Its first primary has a replica."""
    with running_cluster(replicas=1) as cluster:
        yield cluster


async def test_failover_restores_the_subscription(cluster: Cluster) -> None:
    async with connect(cluster.url) as redis, listening(redis, EDGE) as heard:
        calls = commands_to(redis)
        for key in KEYS:
            await calls.command("SET", key, "1")
        for number, node in enumerate(cluster.primaries):
            # A cluster passes a message on to every node.
            node.ask("PUBLISH", wakeup(EDGE), number)
            await wait_until(lambda number=number: [str(number)] in heard.all)  # type: ignore[misc]

        dying = cluster.primaries[0]
        subscribed_to_it = _has_subscriber(dying)
        before = len(heard.all)
        dying.kill()
        await wait_until(lambda: _all_keys_are_served(calls))
        await wait_until(
            lambda: _resyncs(heard, before) >= (1 if subscribed_to_it else 2), what=lambda: heard.all
        )

        assert cluster.replicas[0].role == "master"
        await wait_until(lambda: _arrives(calls, heard))


async def _all_keys_are_served(calls: RedisCommands) -> bool:
    try:
        return all([await calls.command("GET", key) == b"1" for key in KEYS])
    except StoreUnavailable:
        return False


def _resyncs(heard: Heard, since: int) -> int:
    """How often the subscription was restored."""
    return heard.all[since:].count(Subscription.RESTORED)


def _has_subscriber(node: Node) -> bool:
    with node.client() as direct:
        [(_, count)] = direct.pubsub_numsub(wakeup(EDGE))
    return bool(count)


async def _arrives(calls: RedisCommands, heard: Heard) -> bool:
    with contextlib.suppress(StoreUnavailable):
        await calls.command("PUBLISH", wakeup(EDGE), "after")
    return ["after"] in heard.all
