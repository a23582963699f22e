"""The nodes of a Redis Cluster as one process knows them: which has which slot, and which are lost.

While a node is lost, `Nodes` asks the others until one of them has its slots or the node is back. Each time
it closes the subscriptions for wakeups: a new primary may lack the last writes of the old one, so the
subscribers must resync as after any lost connection.
"""

import asyncio
import logging
import random
import time
from collections.abc import Mapping

from redis.exceptions import RedisError

from shared.redis.cluster_pool import ClusterPool
from shared.redis.pipeline import Hooks, Pipeline, RedisUnavailable, Script
from shared.redis.slots import SlotMap, parse_slot_map
from shared.redis.urls import Address

logger = logging.getLogger(__name__)

_NODE_TIMEOUT_S = 1.0
_LEARN_INTERVAL_S = 0.25
_DISCONNECT_INTERVAL_S = 2.0


class Nodes:
    """A `Pipeline` for each node in use, and the slot map."""

    def __init__(self, pool: ClusterPool, scripts: Mapping[str, Script], hooks: Hooks) -> None:
        self._pool = pool
        self._scripts = scripts
        self._hooks = hooks
        self._map = SlotMap()
        self._pipelines: dict[Address, Pipeline] = {}
        self._lost: set[Address] = set()
        self._learning: asyncio.Task[None] | None = None
        self._learned_s = 0.0
        self._recovering: asyncio.Task[None] | None = None
        self._disconnecting: asyncio.Task[None] | None = None
        self._disconnected_s = 0.0

    def pipeline(self, node: Address) -> Pipeline:
        pipeline = self._pipelines.get(node)
        if pipeline is None:
            client = self._pool.client_of(node)
            pipeline = self._pipelines[node] = Pipeline(client, scripts=self._scripts, hooks=self._hooks)
        return pipeline

    async def primary_of(self, slot: int) -> Address:
        """Raises RedisUnavailable when no node can be asked, or none has the slot."""
        node = self._map.primaries.get(slot)
        if node is None:
            await self.learn()
            node = self._map.primaries.get(slot)
        if node is None:
            raise self._hooks.unavailable(why="no known node has the slot")
        return node

    async def reachable_for(self, slot: int) -> Address:
        """The slot's primary, or another primary while that one is lost. Raises RedisUnavailable."""
        node = await self.primary_of(slot)
        if node not in self._lost:
            return node
        others = sorted(self._map.all_primaries() - self._lost)
        return others[slot % len(others)] if others else node

    async def primaries(self) -> list[Address]:
        """All primaries, the lost ones last. Raises RedisUnavailable when no node can be asked."""
        await self.primary_of(0)
        return sorted(self._map.all_primaries(), key=lambda node: (node in self._lost, node))

    def moved(self, slot: int, node: Address) -> None:
        """Notes what a MOVED said; other slots may have moved too, so the map is read again."""
        self._map.primaries[slot] = node
        self._map.nodes.add(node)
        self._start_learning()

    def mark_lost(self, node: Address) -> None:
        if node in self._lost:
            return
        logger.warning("cluster.node-lost", extra={"facts": {"node": f"{node[0]}:{node[1]}"}})
        self._lost.add(node)
        self._pool.avoid(node)
        self._schedule_disconnect()
        if self._recovering is None:
            self._recovering = asyncio.get_running_loop().create_task(self._recover())

    async def learn(self) -> None:
        """Reads the slot map from any node. Concurrent callers share one reading."""
        await asyncio.shield(self._start_learning())

    def _start_learning(self) -> asyncio.Task[None]:
        if self._learning is None:
            self._learning = asyncio.get_running_loop().create_task(self._learn())
        return self._learning

    async def _learn(self) -> None:
        try:
            await asyncio.sleep(max(0.0, self._learned_s + _LEARN_INTERVAL_S - time.monotonic()))
            await self._read_map()
        finally:
            self._learned_s = time.monotonic()
            self._learning = None

    async def _read_map(self) -> None:
        # A random order: the first node may have an outdated map.
        nodes = self._pool.nodes
        random.shuffle(nodes)
        why = "the cluster has no node"
        for node in sorted(nodes, key=self._lost.__contains__):
            try:
                async with asyncio.timeout(_NODE_TIMEOUT_S):
                    reply = await self.pipeline(node).command("CLUSTER", "SLOTS")
            except (RedisUnavailable, RedisError, TimeoutError) as error:
                why = str(error) or type(error).__name__
                self._pool.avoid(node)
            else:
                slot_map = parse_slot_map(reply, asked=node)
                if slot_map.primaries:
                    self._use_map(slot_map)
                    return
                why = "no slot is assigned"
        logger.warning("cluster.unknown", extra={"facts": {"asked": len(nodes), "why": why}})

    def _use_map(self, slot_map: SlotMap) -> None:
        replaced = self._map.all_primaries() - slot_map.all_primaries()
        self._map = slot_map
        self._pool.learn(slot_map.nodes)
        self._lost &= slot_map.all_primaries()
        for node in [node for node in self._pipelines if node not in self._pool.nodes]:
            self._hooks.on_recovered(self._pipelines.pop(node))
        if replaced:
            self._schedule_disconnect()

    async def _recover(self) -> None:
        """Reads the map and probes the lost nodes until none is left."""
        try:
            while self._lost:
                await self.learn()
                for node in list(self._lost):
                    if await self._serves(node):
                        self._lost.discard(node)
            logger.info("cluster.healed", extra={"facts": {"primaries": len(self._map.all_primaries())}})
        finally:
            self._recovering = None
        self._schedule_disconnect()

    async def _serves(self, node: Address) -> bool:
        try:
            async with asyncio.timeout(_NODE_TIMEOUT_S):
                info: bytes = await self.pipeline(node).command("CLUSTER", "INFO")
        except (RedisUnavailable, RedisError, TimeoutError):
            return False
        return b"cluster_state:ok" in info

    def _schedule_disconnect(self) -> None:
        if self._disconnecting is None:
            self._disconnecting = asyncio.get_running_loop().create_task(self._disconnect())

    async def _disconnect(self) -> None:
        """Breaks the subscriptions, at most once in _DISCONNECT_INTERVAL_S: each time edges resync."""
        try:
            await asyncio.sleep(max(0.0, self._disconnected_s + _DISCONNECT_INTERVAL_S - time.monotonic()))
        finally:
            self._disconnecting = None
            self._disconnected_s = time.monotonic()
        self._pool.break_subscriptions()
