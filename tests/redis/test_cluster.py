"""Pipeline to a real Redis Cluster: each finds its primary, also while slots move."""

import ast
import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

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
    # Nothing here is to be promoted, and a loaded machine not to be taken for a dead one.
    with running_cluster(timeout_ms=5_000) as cluster:
        yield cluster


@pytest.fixture
async def redis(cluster: Cluster) -> AsyncIterator[Redis]:
    async with connect(cluster.url) as client:
        yield client


@pytest.fixture
def calls(redis: Redis) -> RedisCommands:
    return commands_to(redis)


@pytest.fixture
def stores(redis: Redis, cluster: Cluster) -> Iterator[Stores]:
    with cluster.client() as direct:
        direct.flushall()
        yield Stores(redis, Backend(connect=lambda: redis, direct=direct, scripts=load_scripts()))


class Moving:
    """The slot of one key, on its way from the primary that has it to the next."""

    def __init__(self, cluster: Cluster, key: str) -> None:
        self.slot = key_slot(key.encode())
        self._nodes = cluster.primaries
        self.source = next(node for node in self._nodes if node.id == _owner(cluster, self.slot))
        self.target = self._nodes[(self._nodes.index(self.source) + 1) % len(self._nodes)]

    def begin(self) -> None:
        self.target.ask("CLUSTER", "SETSLOT", self.slot, "IMPORTING", self.source.id)
        self.source.ask("CLUSTER", "SETSLOT", self.slot, "MIGRATING", self.target.id)

    def send(self, count: int = 1000) -> None:
        """Moves keys of the slot."""
        keys = self.source.ask("CLUSTER", "GETKEYSINSLOT", self.slot, count)
        if keys:
            self.source.ask("MIGRATE", *self.target.address, "", 0, 5000, "KEYS", *keys)

    def end(self) -> None:
        """From here on the slot is the target's."""
        for node in (self.target, self.source, *self._nodes):
            node.ask("CLUSTER", "SETSLOT", self.slot, "NODE", self.target.id)


def _owner(cluster: Cluster, slot: int) -> str:
    ranges = cluster.primaries[0].ask("CLUSTER", "SLOTS")
    return next(str(primary[2].decode()) for first, last, primary, *_ in ranges if first <= slot <= last)


def node_of(cluster: Cluster, key: str) -> Node:
    return Moving(cluster, key).source


async def test_calls_find_the_primary_of_their_key(calls: RedisCommands, cluster: Cluster) -> None:
    await asyncio.gather(*(calls.command("SET", key, key) for key in SPREAD))

    assert await asyncio.gather(*(calls.command("GET", key) for key in SPREAD)) == [
        k.encode() for k in SPREAD
    ]
    assert len({node_of(cluster, key).port for key in SPREAD[:20]}) == 3, "they lie on all"


async def test_one_node_of_several_is_enough_to_find_the_others(cluster: Cluster) -> None:
    nobody = cluster.jobs.port + 1
    async with connect(f"redis+cluster://127.0.0.1:{nobody},127.0.0.1:{cluster.primaries[1].port}") as redis:
        calls = commands_to(redis)
        await asyncio.gather(*(calls.command("SET", key, "1") for key in SPREAD))


async def test_nobody_to_ask_is_the_store_unavailable() -> None:
    async with connect("redis+cluster://127.0.0.1:1") as redis:
        with pytest.raises(StoreUnavailable):
            await commands_to(redis).command("GET", "a")
        with pytest.raises(StoreUnavailable):
            await commands_to(redis).command("PUBLISH", "a", "b")


async def test_a_server_that_is_no_cluster_is_the_store_unavailable(cluster: Cluster) -> None:
    async with connect(f"redis+cluster://127.0.0.1:{cluster.jobs.port}") as redis:
        with pytest.raises(StoreUnavailable):
            await commands_to(redis).command("GET", "a")


async def test_every_primary_is_walked_through_for_names(calls: RedisCommands, stores: Stores) -> None:
    await asyncio.gather(*(calls.command("SET", key, "1") for key in SPREAD))

    found = [name async for lot in calls.scan("key-*") for name in lot]

    assert sorted(found) == sorted(key.encode() for key in SPREAD)


async def test_calls_of_one_key_keep_their_order(stores: Stores) -> None:
    channels = [await stores.channel() for _ in range(5)]
    await asyncio.gather(*(stores.queues.append(c, events(n)) for n in range(40) for c in channels))

    for channel in channels:
        lease = await stores.claim(channel)
        assert ids(await stores.pending(lease)) == [str(n) for n in range(40)]


async def test_a_mistake_of_ours_is_told_as_one(calls: RedisCommands) -> None:
    with pytest.raises(ResponseError):
        await calls.command("SET", "a")
    with pytest.raises(ClusterCrossSlotError):
        await calls.command("EXISTS", "a", "b")
    with pytest.raises(ValueError, match="RANDOMKEY"):
        await calls.command("RANDOMKEY")


async def test_a_slot_that_has_moved_is_found(stores: Stores, cluster: Cluster) -> None:
    channel = await stores.channel()
    await stores.queued(channel, 2)
    moving = Moving(cluster, keyspace.queue(channel))
    moving.begin()
    moving.send()
    moving.end()

    outcomes = await asyncio.gather(*(stores.queues.append(channel, events(n)) for n in range(2, 20)))

    assert set(outcomes) == {Appended.QUEUED}
    lease = await stores.claim(channel)
    assert ids(await stores.pending(lease)) == [str(n) for n in range(20)], "each once, in order"
    assert node_of(cluster, keyspace.queue(channel)) is moving.target


async def test_while_a_slot_moves_what_has_gone_is_asked_of_who_gets_it(
    calls: RedisCommands, cluster: Cluster
) -> None:
    await calls.command("SET", "{moving}:old", "1")
    moving = Moving(cluster, "{moving}")
    moving.begin()
    try:
        await calls.command("SET", "{moving}:new", "2")
        assert await calls.command("GET", "{moving}:old") == b"1", "it has not gone yet"
        moving.send()
        answers = await asyncio.gather(*(calls.command("GET", f"{{moving}}:{k}") for k in ("old", "new")))
        assert answers == [b"1", b"2"]
        assert await calls.script("queue_ends", ["{moving}:queue"], "0-1") == [b"0-0", b"", 0]
    finally:
        moving.end()

    assert await calls.command("GET", "{moving}:new") == b"2"


async def test_a_call_waits_for_keys_that_are_on_their_way(stores: Stores, cluster: Cluster) -> None:
    channel = await stores.channel()
    await stores.queued(channel, 1)
    moving = Moving(cluster, keyspace.queue(channel))
    moving.begin()
    moving.send(1)
    append = asyncio.create_task(stores.queues.append(channel, events(1)))
    await wait_until(lambda: _refused(moving.source, "TRYAGAIN") > 0)
    moving.send()
    moving.end()

    assert await append is Appended.QUEUED
    assert ids(await stores.pending(await stores.claim(channel))) == ["0", "1"]


async def test_a_call_that_was_cancelled_on_its_way_never_happens(stores: Stores, cluster: Cluster) -> None:
    channel = await stores.channel()
    await stores.queued(channel, 1)
    moving = Moving(cluster, keyspace.queue(channel))
    moving.begin()
    moving.send(1)
    before = _refused(moving.source, "TRYAGAIN")
    append = asyncio.create_task(stores.queues.append(channel, events(1)))
    await wait_until(lambda: _refused(moving.source, "TRYAGAIN") > before)
    append.cancel()
    moving.send()
    moving.end()

    await stores.queued(channel, 1)
    assert len(stores.entries(channel)) == 2, "the first, and the last"


def _refused(node: Node, code: str) -> int:
    with node.client() as direct:
        return int(direct.info("errorstats").get(f"errorstat_{code}", {}).get("count", 0))


async def test_a_frozen_primary_stalls_only_what_lies_on_it(cluster: Cluster, calls: RedisCommands) -> None:
    by_node = {node_of(cluster, key): key for key in SPREAD[:20]}
    frozen = cluster.primaries[0]
    there = by_node.pop(frozen)
    await asyncio.gather(*(calls.command("SET", key, "1") for key in (there, *by_node.values())))
    frozen.freeze()
    try:
        stalled = asyncio.ensure_future(calls.command("GET", there))
        elsewhere = await asyncio.gather(*(calls.command("GET", key) for key in by_node.values()))
        assert elsewhere == [b"1", b"1"]
        assert not stalled.done()
    finally:
        frozen.thaw()
    assert await stalled == b"1"
    await wait_until(lambda: all(node.state["cluster_state"] == "ok" for node in cluster.primaries))


async def test_a_primary_that_died_fails_only_what_lay_on_it(cluster: Cluster, calls: RedisCommands) -> None:
    by_node = {node_of(cluster, key): key for key in SPREAD[:20]}
    dead = cluster.primaries[2]
    there = by_node.pop(dead)
    await asyncio.gather(*(calls.command("SET", key, "1") for key in (there, *by_node.values())))
    dead.kill()
    try:
        with pytest.raises(StoreUnavailable):
            await calls.command("GET", there)
        assert await asyncio.gather(*(calls.command("GET", key) for key in by_node.values())) == [b"1", b"1"]
        await calls.command("PUBLISH", there, "goes by another")
    finally:
        dead.start()
        dead.wait_ready()

    async def is_back() -> bool:
        try:
            return bool(await calls.command("GET", there) == b"1")
        except StoreUnavailable:
            return False

    await wait_until(is_back)
    await wait_until(lambda: all(node.state["cluster_state"] == "ok" for node in cluster.primaries))


def test_one_client_is_one_server_and_another_a_cluster() -> None:
    assert type(commands_to(connect("redis://127.0.0.1:1"))) is Pipeline
    assert type(commands_to(connect("redis+cluster://127.0.0.1:1"))) is ClusterPipeline


def test_it_is_known_of_every_command_where_it_belongs() -> None:
    """Whoever uses a new command says in slots.py where its key is."""
    used = {
        name
        for path in [*STORE.glob("*.py"), *Path(slots.__file__).parent.glob("*.py")]
        for name in _commands_in(path)
    }

    assert len(used) > 10
    for name in used - {"ASKING", "CLUSTER", "EVAL", "SCAN"}:
        slots.slot_of_command((name, "key"))


def _commands_in(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Call(func=ast.Attribute(attr="command"), args=[ast.Constant(value=str(name)), *_]):
                yield name
