"""Commands to a real Redis Cluster: each finds its primary, also while slots migrate."""

import ast
import asyncio
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.crc import key_slot
from redis.exceptions import ClusterCrossSlotError, ResponseError

from shared.model.errors import StoreUnavailable
from shared.redis import slots
from shared.redis.client import connect
from shared.redis.cluster import ClusterPipeline
from shared.redis.pipeline import Pipeline, RedisCommands
from shared.store import keyspace
from shared.store.commands import commands_to
from shared.store.queues import Appended
from shared.store.scripts import load_scripts
from tests.harness.cluster import Cluster, Node, running_cluster
from tests.harness.waiting import wait_until
from tests.store.stores import Backend, Stores, events, ids

STORE = Path(keyspace.__file__).parent
SPREAD = [f"key-{number}" for number in range(60)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    # A short timeout would promote replicas, and take a busy machine for a dead one.
    with running_cluster(timeout_ms=5_000) as cluster:
        yield cluster


@pytest.fixture
async def redis(cluster: Cluster) -> AsyncIterator[Redis]:
    async with connect(cluster.url) as client:
        yield client


@pytest.fixture
def commands(redis: Redis) -> RedisCommands:
    return commands_to(redis)


@pytest.fixture
def stores(redis: Redis, cluster: Cluster) -> Iterator[Stores]:
    with cluster.client() as direct:
        direct.flushall()
        yield Stores(redis, Backend(connect=lambda: redis, direct=direct, scripts=load_scripts()))


class Migration:
    """Migrates the slot of one key from its primary to the next."""

    def __init__(self, cluster: Cluster, key: str) -> None:
        self.slot = key_slot(key.encode())
        self._nodes = cluster.primaries
        self.source = next(node for node in self._nodes if node.id == _owner(cluster, self.slot))
        self.target = self._nodes[(self._nodes.index(self.source) + 1) % len(self._nodes)]

    def begin(self) -> None:
        self.target.ask("CLUSTER", "SETSLOT", self.slot, "IMPORTING", self.source.id)
        self.source.ask("CLUSTER", "SETSLOT", self.slot, "MIGRATING", self.target.id)

    def send(self, count: int = 1000) -> None:
        """Migrates keys of the slot."""
        keys = self.source.ask("CLUSTER", "GETKEYSINSLOT", self.slot, count)
        if keys:
            self.source.ask("MIGRATE", *self.target.address, "", 0, 5000, "KEYS", *keys)

    def end(self) -> None:
        """The slot is the target's from here on."""
        for node in (self.target, self.source, *self._nodes):
            node.ask("CLUSTER", "SETSLOT", self.slot, "NODE", self.target.id)


def _owner(cluster: Cluster, slot: int) -> str:
    ranges = cluster.primaries[0].ask("CLUSTER", "SLOTS")
    return next(str(primary[2].decode()) for first, last, primary, *_ in ranges if first <= slot <= last)


def node_of(cluster: Cluster, key: str) -> Node:
    return Migration(cluster, key).source


async def test_commands_find_the_primary_of_their_key(commands: RedisCommands, cluster: Cluster) -> None:
    await asyncio.gather(*(commands.command("SET", key, key) for key in SPREAD))

    assert await asyncio.gather(*(commands.command("GET", key) for key in SPREAD)) == [
        k.encode() for k in SPREAD
    ]
    assert len({node_of(cluster, key).port for key in SPREAD[:20]}) == 3, "they lie on all primaries"


async def test_one_reachable_node_is_enough_to_find_the_others(cluster: Cluster) -> None:
    unused = cluster.jobs.port + 1
    async with connect(f"redis+cluster://127.0.0.1:{unused},127.0.0.1:{cluster.primaries[1].port}") as redis:
        commands = commands_to(redis)
        await asyncio.gather(*(commands.command("SET", key, "1") for key in SPREAD))


async def test_no_reachable_node_is_store_unavailable() -> None:
    async with connect("redis+cluster://127.0.0.1:1") as redis:
        with pytest.raises(StoreUnavailable):
            await commands_to(redis).command("GET", "a")
        with pytest.raises(StoreUnavailable):
            await commands_to(redis).command("PUBLISH", "a", "b")


async def test_a_server_that_is_no_cluster_is_store_unavailable(cluster: Cluster) -> None:
    async with connect(f"redis+cluster://127.0.0.1:{cluster.jobs.port}") as redis:
        with pytest.raises(StoreUnavailable):
            await commands_to(redis).command("GET", "a")


async def test_a_scan_covers_every_primary(commands: RedisCommands, stores: Stores) -> None:
    await asyncio.gather(*(commands.command("SET", key, "1") for key in SPREAD))

    names, cursor = list[bytes](), ""
    while True:
        cursor, page = await commands.scan_page(cursor, count=2)
        names += page
        if not cursor:
            break

    assert sorted(name for name in names if name.startswith(b"key-")) == sorted(map(str.encode, SPREAD))


async def test_commands_of_one_key_keep_their_order(stores: Stores) -> None:
    channels = [await stores.channel() for _ in range(5)]
    await asyncio.gather(*(stores.queues.append(c, events(n)) for n in range(40) for c in channels))

    for channel in channels:
        lease = await stores.claim(channel)
        assert ids(await stores.pending(lease)) == [str(n) for n in range(40)]


async def test_each_primary_can_be_asked(commands: RedisCommands, cluster: Cluster) -> None:
    primaries = await commands.primaries()

    assert {f"{host}:{port}" for host, port in (node.address for node in cluster.primaries)} == {*primaries}
    for each in primaries.values():
        assert b"role:master" in await each.command("INFO", "replication")


async def test_after_a_failover_the_new_primary_is_asked() -> None:
    """Also by a caller that sends no command with a key, which the old one would redirect."""
    with running_cluster(replicas=1, timeout_ms=5_000) as failing:
        async with connect(failing.url) as client:
            commands = commands_to(client)
            [old, *_], [new] = failing.primaries, failing.replicas
            assert f"127.0.0.1:{old.port}" in await commands.primaries()

            new.ask("CLUSTER", "FAILOVER")

            async def is_known() -> bool:
                primaries = {*await commands.primaries()}
                assert len(primaries) == 3
                return f"127.0.0.1:{new.port}" in primaries and f"127.0.0.1:{old.port}" not in primaries

            await wait_until(is_known)


async def test_a_wrong_command_raises_its_own_error(commands: RedisCommands) -> None:
    with pytest.raises(ResponseError):
        await commands.command("SET", "a")
    with pytest.raises(ClusterCrossSlotError):
        await commands.command("EXISTS", "a", "b")
    with pytest.raises(ValueError, match="RANDOMKEY"):
        await commands.command("RANDOMKEY")


async def test_callbacks_have_replies_of_their_primaries_and_errors(commands: RedisCommands) -> None:
    await asyncio.gather(*(commands.command("SET", key, key) for key in SPREAD))
    replies: dict[str, Any] = {}

    for key in SPREAD:
        assert commands.read_then(partial(replies.__setitem__, key), "GET", key) is None
    ends = ("queue_ends", ["{a}:channel", "{a}:queue"], "0-0")
    assert commands.script_then(partial(replies.__setitem__, "script"), *ends) is None
    commands.read_then(partial(replies.__setitem__, "wrong"), "GET", "a", "b")
    await wait_until(lambda: len(replies) == len(SPREAD) + 2)

    assert isinstance(replies.pop("wrong"), ResponseError | ClusterCrossSlotError)
    assert not isinstance(replies.pop("script"), Exception)
    assert replies == {key: key.encode() for key in SPREAD}


async def test_a_migrated_slot_is_found(stores: Stores, cluster: Cluster) -> None:
    channel = await stores.channel()
    await stores.queued(channel, 2)
    migration = Migration(cluster, keyspace.queue(channel))
    migration.begin()
    migration.send()
    migration.end()

    outcomes = await asyncio.gather(*(stores.queues.append(channel, events(n)) for n in range(2, 20)))

    assert set(outcomes) == {Appended.QUEUED}
    lease = await stores.claim(channel)
    assert ids(await stores.pending(lease)) == [str(n) for n in range(20)], "each once, in order"
    assert node_of(cluster, keyspace.queue(channel)) is migration.target


async def test_a_key_that_migrated_is_read_from_the_importing_node(
    commands: RedisCommands, cluster: Cluster
) -> None:
    await commands.command("SET", "{moving}:old", "1")
    migration = Migration(cluster, "{moving}")
    migration.begin()
    try:
        await commands.command("SET", "{moving}:new", "2")
        assert await commands.command("GET", "{moving}:old") == b"1", "it has not migrated yet"
        migration.send()
        replies = await asyncio.gather(*(commands.command("GET", f"{{moving}}:{k}") for k in ("old", "new")))
        assert replies == [b"1", b"2"]
        assert await commands.script("lease_release", ["{moving}:channel"], "owner") == 0
    finally:
        migration.end()

    assert await commands.command("GET", "{moving}:new") == b"2"


async def test_a_command_waits_for_keys_that_are_migrating(stores: Stores, cluster: Cluster) -> None:
    channel = await stores.channel()
    await stores.queued(channel, 1)
    migration = Migration(cluster, keyspace.queue(channel))
    migration.begin()
    migration.send(1)
    append = asyncio.create_task(stores.queues.append(channel, events(1)))
    await wait_until(lambda: _error_count(migration.source, "TRYAGAIN") > 0)
    migration.send()
    migration.end()

    assert await append is Appended.QUEUED
    assert ids(await stores.pending(await stores.claim(channel))) == ["0", "1"]


async def test_a_command_cancelled_during_a_migration_is_never_executed(
    stores: Stores, cluster: Cluster
) -> None:
    channel = await stores.channel()
    await stores.queued(channel, 1)
    migration = Migration(cluster, keyspace.queue(channel))
    migration.begin()
    migration.send(1)
    before = _error_count(migration.source, "TRYAGAIN")
    append = asyncio.create_task(stores.queues.append(channel, events(1)))
    await wait_until(lambda: _error_count(migration.source, "TRYAGAIN") > before)
    append.cancel()
    migration.send()
    migration.end()

    await stores.queued(channel, 1)
    assert len(stores.entries(channel)) == 2, "the first and the last"


def _error_count(node: Node, code: str) -> int:
    with node.client() as direct:
        return int(direct.info("errorstats").get(f"errorstat_{code}", {}).get("count", 0))


async def test_a_frozen_primary_stalls_only_its_own_keys(cluster: Cluster, commands: RedisCommands) -> None:
    by_node = {node_of(cluster, key): key for key in SPREAD[:20]}
    frozen = cluster.primaries[0]
    there = by_node.pop(frozen)
    await asyncio.gather(*(commands.command("SET", key, "1") for key in (there, *by_node.values())))
    frozen.freeze()
    try:
        stalled = asyncio.ensure_future(commands.command("GET", there))
        elsewhere = await asyncio.gather(*(commands.command("GET", key) for key in by_node.values()))
        assert elsewhere == [b"1", b"1"]
        assert not stalled.done()
    finally:
        frozen.thaw()
    assert await stalled == b"1"
    await wait_until(lambda: all(node.state["cluster_state"] == "ok" for node in cluster.primaries))


async def test_a_dead_primary_fails_only_its_own_keys(cluster: Cluster, commands: RedisCommands) -> None:
    by_node = {node_of(cluster, key): key for key in SPREAD[:20]}
    dead = cluster.primaries[2]
    there = by_node.pop(dead)
    await asyncio.gather(*(commands.command("SET", key, "1") for key in (there, *by_node.values())))
    dead.kill()
    try:
        with pytest.raises(StoreUnavailable):
            await commands.command("GET", there)
        assert await asyncio.gather(*(commands.command("GET", key) for key in by_node.values())) == [
            b"1",
            b"1",
        ]
        await commands.command("PUBLISH", there, "over another primary")
    finally:
        dead.start()
        dead.wait_ready()

    async def recovered() -> bool:
        try:
            return bool(await commands.command("GET", there) == b"1")
        except StoreUnavailable:
            return False

    await wait_until(recovered)
    await wait_until(lambda: all(node.state["cluster_state"] == "ok" for node in cluster.primaries))


def test_the_url_decides_between_one_server_and_a_cluster() -> None:
    assert type(commands_to(connect("redis://127.0.0.1:1"))) is Pipeline
    assert type(commands_to(connect("redis+cluster://127.0.0.1:1"))) is ClusterPipeline


def test_slots_lists_every_command_that_we_use() -> None:
    """A new command must be added to slots.py."""
    used = {
        name
        for path in [*STORE.glob("*.py"), *Path(slots.__file__).parent.glob("*.py")]
        for name in _commands_in(path)
    }

    assert len(used) > 10
    for name in used - {"ASKING", "CLUSTER", "EVAL", "INFO", "SCAN", "TIME"}:
        slots.slot_of_command((name, "key"))


def _commands_in(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Call(func=ast.Attribute(attr="command"), args=[ast.Constant(value=str(name)), *_]):
                yield name
