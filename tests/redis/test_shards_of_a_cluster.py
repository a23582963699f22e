"""A sharded subscription on a cluster and behind sentinels: names are heard where their slots are."""

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.asyncio.sentinel import SentinelConnectionPool

from shared.model.errors import StoreUnavailable
from shared.redis import shard_subscription
from shared.redis.client import connect
from shared.store.commands import commands_to
from tests.harness.cluster import Cluster, Node, running_cluster
from tests.harness.sentinel import SERVICE, Guarded
from tests.harness.valkey import Valkey, running_valkey
from tests.harness.waiting import wait_until
from tests.redis.shards import Subscribed, shard_connections, spublish, subscribed
from tests.redis.test_cluster import Migration, node_of

NAMES = [f"{{place-{number}}}:live" for number in range(20)]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_subscription, "_RETRY_S", 0.02)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    # A short timeout would take a busy machine for a dead one.
    with running_cluster(timeout_ms=5_000) as cluster:
        yield cluster


@pytest.fixture
async def redis(cluster: Cluster) -> AsyncIterator[Redis]:
    async with connect(cluster.url) as client:
        yield client


@pytest.fixture
async def running(redis: Redis) -> AsyncIterator[Subscribed]:
    async with subscribed(redis) as running:
        yield running


def spublish_at(node: Node, name: str, message: object) -> int:
    with node.client() as direct:
        return spublish(direct, name, message)


def connections_to(node: Node) -> int:
    with node.client() as direct:
        return len(shard_connections(direct))


async def test_each_primary_has_one_connection_for_its_names(running: Subscribed, cluster: Cluster) -> None:
    await running.add(*NAMES)
    for name in NAMES:
        assert spublish_at(node_of(cluster, name), name, name) == 1
    await wait_until(lambda: all(running.heard.of(name) == [name.encode()] for name in NAMES))
    assert [connections_to(node) for node in cluster.primaries] == [1, 1, 1]
    assert not running.heard.losses

    first = cluster.primaries[0]
    for name in NAMES:
        if node_of(cluster, name) is first:
            running.remove(name)
    await wait_until(lambda: [connections_to(node) for node in cluster.primaries] == [0, 1, 1])


async def test_names_that_are_removed_at_any_time_are_not_heard(redis: Redis, cluster: Cluster) -> None:
    """Also while the map of slots is read for them."""
    for turns in range(12):
        async with subscribed(redis) as running:
            for name in NAMES:
                running.subscription.add(name)
            for _ in range(turns):
                await asyncio.sleep(0)
            for name in NAMES[::2]:
                running.remove(name)
            await running.confirmed(*NAMES[1::2])
            await wait_until(lambda: not any(_is_heard(cluster, name) for name in NAMES[::2]))
            assert all(_is_heard(cluster, name) for name in NAMES[1::2])


def _is_heard(cluster: Cluster, name: str) -> bool:
    return spublish_at(node_of(cluster, name), name, "x") > 0


async def test_a_name_whose_slot_moves_is_heard_from_where_it_is(
    running: Subscribed, cluster: Cluster
) -> None:
    await running.add(*NAMES)
    name = NAMES[0]
    migration = Migration(cluster, name)
    migration.begin()
    migration.send()
    migration.end()
    await wait_until(lambda: running.heard.losses == [name.encode()])
    await running.confirmed(name)
    assert spublish_at(migration.target, name, "there") == 1
    await wait_until(lambda: running.heard.of(name) == [b"there"])
    assert running.heard.losses == [name.encode()], "the others stay"


async def test_a_map_that_is_out_of_date_is_corrected_by_the_node(
    running: Subscribed, cluster: Cluster
) -> None:
    """The slot moves while nobody hears it; a second name of the slot comes behind that."""
    other = NAMES[1]
    await running.add(*NAMES[2:], other)
    running.remove(other)
    migration = Migration(cluster, other)
    migration.begin()
    migration.end()
    await running.add(other)
    assert spublish_at(migration.target, other, 1) == 1
    assert not running.heard.losses


async def test_a_dead_primary_loses_its_names_only(running: Subscribed, cluster: Cluster) -> None:
    await running.add(*NAMES)
    dead = cluster.primaries[2]
    there = {name for name in NAMES if node_of(cluster, name) is dead}
    here = next(name for name in NAMES if name not in there)
    dead.kill()
    try:
        await wait_until(lambda: {*running.heard.losses} == {name.encode() for name in there})
        assert spublish_at(node_of(cluster, here), here, 1) == 1
        # A name on a primary that is there does not wait for the other one.
        await running.add(here.replace("live", "new"))
    finally:
        dead.start()
        dead.wait_ready()
    await running.confirmed(*NAMES)
    await wait_until(lambda: all(node.state["cluster_state"] == "ok" for node in cluster.primaries))
    for name in there:
        assert spublish_at(dead, name, 1) == 1


@pytest.mark.parametrize("is_planned", [True, False], ids=["planned", "killed"])
async def test_after_a_failover_names_are_heard_from_the_new_primary(is_planned: bool) -> None:
    with running_cluster(replicas=1) as cluster:
        async with connect(cluster.url) as redis, subscribed(redis) as running:
            calls = commands_to(redis)
            await running.add(*NAMES)
            [old, *_], [new] = cluster.primaries, cluster.replicas
            there = [name for name in NAMES if node_of(cluster, name) is old]
            assert there
            if is_planned:
                new.ask("CLUSTER", "FAILOVER")
            else:
                old.kill()

            async def is_heard() -> bool:
                # What an edge does all the time: by its commands it learns of the new primary.
                for name in NAMES:
                    with contextlib.suppress(StoreUnavailable):
                        await calls.command("GET", name)
                return new.role == "master" and all(spublish_at(new, name, "new") for name in there)

            await wait_until(is_heard, within_s=60)
            await wait_until(lambda: connections_to(new) == 1)
            await running.confirmed(*NAMES)
            await wait_until(lambda: all(running.heard.of(name)[-1:] == [b"new"] for name in there))
            assert {name.encode() for name in there} <= {*running.heard.losses}


async def test_no_reachable_node_is_asked_again(cluster: Cluster) -> None:
    async with connect("redis+cluster://127.0.0.1:1") as redis, subscribed(redis) as running:
        running.subscription.add(NAMES[0])
        pool = redis.connection_pool
        await wait_until(lambda: running.subscription._failures > 2)
        pool.learn([node.address for node in cluster.primaries])  # type: ignore[attr-defined]
        await running.confirmed(NAMES[0])


# Behind sentinels


@pytest.fixture(scope="module")
def guarded() -> Iterator[Guarded]:
    folder = Path(tempfile.mkdtemp(prefix="notify-"))
    guarded = Guarded(folder)
    try:
        guarded.start()
        guarded.wait_ready()
        yield guarded
    finally:
        guarded.close()
        shutil.rmtree(folder, ignore_errors=True)


async def test_behind_sentinels_it_leaves_a_demoted_primary_that_still_replies(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_valkey(name="successor", tcp=True) as successor:
        async with connect(guarded.url) as redis, subscribed(redis) as running:
            calls = commands_to(redis)
            await running.add("a", "b")
            with guarded.client() as direct:
                assert spublish(direct, "a", "before") == 1
            # A connection that is left is not read to its end.
            await wait_until(lambda: running.heard.of("a") == [b"before"])

            async def failed_over(pool: SentinelConnectionPool) -> tuple[str, int]:
                pool.master_address = ("127.0.0.1", successor.port)
                return pool.master_address

            monkeypatch.setattr(SentinelConnectionPool, "get_master_address", failed_over)

            async def is_heard() -> bool:
                with contextlib.suppress(StoreUnavailable):
                    await calls.command("SET", "x", "1")
                with successor.client() as direct:
                    return spublish(direct, "a", "after") == 1

            await wait_until(is_heard)
            await wait_until(lambda: running.heard.of("a") == [b"before", b"after"])
            assert {*running.heard.losses} == {b"a", b"b"}


@pytest.mark.long
async def test_behind_sentinels_it_follows_a_failover(guarded: Guarded) -> None:
    async with connect(guarded.url) as redis, subscribed(redis) as running:
        calls = commands_to(redis)
        await running.add("a")
        before = guarded.sentinel.primary_port
        guarded.sentinel.ask("SENTINEL", "FAILOVER", SERVICE)
        await wait_until(lambda: guarded.sentinel.primary_port != before)

        async def is_heard() -> bool:
            with contextlib.suppress(StoreUnavailable):
                await calls.command("SET", "x", "1")
            new: Valkey = next(each for each in (guarded.primary, guarded.replica) if each.port != before)
            with new.client() as direct:
                return spublish(direct, "a", "after") == 1

        await wait_until(is_heard, within_s=60)
        await wait_until(lambda: b"after" in running.heard.of("a"))
