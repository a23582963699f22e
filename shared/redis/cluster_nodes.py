"""The nodes of a Redis Cluster as one process knows them: who has which slot, and who does not answer.

While a node is lost the others are asked, until another has its slots or it is back. Both times whoever
listens for wakeups is hung up: a new primary may lack the last that the old one took, which is the same as a
Redis that was away, and handled by those who handle that.
"""

import asyncio
import logging
import random
import time
from collections.abc import Mapping

from redis.exceptions import RedisError

from shared.redis.cluster_pool import Address, ClusterPool
from shared.redis.errors import RedisUnavailable
from shared.redis.hooks import Hooks
from shared.redis.pipeline import Pipeline, Script
from shared.redis.slots import SlotMap, map_in

logger = logging.getLogger(__name__)

_ASK_S = 1.0
_AGAIN_S = 0.25
_BETWEEN_DOUBTS_S = 2.0


class Nodes:
    """A `Pipeline` for each node that is needed, and the map of slots."""

    def __init__(self, pool: ClusterPool, scripts: Mapping[str, Script], hooks: Hooks) -> None:
        self._pool = pool
        self._scripts = scripts
        self._hooks = hooks
        self._map = SlotMap()
        self._calls: dict[Address, Pipeline] = {}
        self._lost: set[Address] = set()
        self._learning: asyncio.Task[None] | None = None
        self._learnt_s = 0.0
        self._healing: asyncio.Task[None] | None = None
        self._doubting: asyncio.Task[None] | None = None
        self._doubted_s = 0.0

    def at(self, node: Address) -> Pipeline:
        """The calls to one node."""
        calls = self._calls.get(node)
        if calls is None:
            calls = self._calls[node] = Pipeline(
                self._pool.client_of(node), scripts=self._scripts, hooks=self._hooks
            )
        return calls

    async def primary_of(self, slot: int) -> Address:
        """Raises RedisUnavailable when nobody can be asked, or nobody has the slot."""
        node = self._map.primaries.get(slot)
        if node is None:
            await self.learn()
            node = self._map.primaries.get(slot)
        if node is None:
            raise self._hooks.unavailable(why="no node known to have the slot")
        return node

    async def reachable_for(self, slot: int) -> Address:
        """The slot's primary; another one if that is lost. Raises RedisUnavailable."""
        node = await self.primary_of(slot)
        if node not in self._lost:
            return node
        others = sorted(self._map.all_primaries() - self._lost)
        return others[slot % len(others)] if others else node

    async def primaries(self) -> list[Address]:
        """All of them, those that are lost last. Raises RedisUnavailable when nobody can be asked."""
        await self.primary_of(0)
        return sorted(self._map.all_primaries(), key=lambda node: (node in self._lost, node))

    def moved(self, slot: int, node: Address) -> None:
        """A node told that another has the slot; more may have changed."""
        self._map.primaries[slot] = node
        self._map.nodes.add(node)
        self._start_learning()

    def lose(self, node: Address) -> None:
        """It did not answer, or not as one that can serve."""
        if node in self._lost:
            return
        logger.warning("cluster.node-lost", extra={"facts": {"node": f"{node[0]}:{node[1]}"}})
        self._lost.add(node)
        self._pool.avoid(node)
        self._doubt()
        if self._healing is None:
            self._healing = asyncio.get_running_loop().create_task(self._heal())

    async def learn(self) -> None:
        """Reads the map from any node; whoever wants that at the same time waits for the same answer."""
        await asyncio.shield(self._start_learning())

    def _start_learning(self) -> asyncio.Task[None]:
        if self._learning is None:
            self._learning = asyncio.get_running_loop().create_task(self._learn())
        return self._learning

    async def _learn(self) -> None:
        try:
            await asyncio.sleep(max(0.0, self._learnt_s + _AGAIN_S - time.monotonic()))
            await self._ask_nodes()
        finally:
            self._learnt_s = time.monotonic()
            self._learning = None

    async def _ask_nodes(self) -> None:
        # One whose view is old may be among them: not always the same is asked first.
        nodes = self._pool.nodes
        random.shuffle(nodes)
        why = "none"
        for node in sorted(nodes, key=self._lost.__contains__):
            try:
                async with asyncio.timeout(_ASK_S):
                    found = map_in(await self.at(node).command("CLUSTER", "SLOTS"), asked=node)
            except (RedisUnavailable, RedisError, TimeoutError) as error:
                why = str(error) or type(error).__name__
                self._pool.avoid(node)
            else:
                if found.primaries:
                    self._take(found)
                    return
                why = "no slots are given out"
        logger.warning("cluster.unknown", extra={"facts": {"asked": len(nodes), "why": why}})

    def _take(self, found: SlotMap) -> None:
        gone = self._map.all_primaries() - found.all_primaries()
        self._map = found
        self._pool.learn(found.nodes)
        self._lost &= found.all_primaries()
        for node in [node for node in self._calls if node not in self._pool.nodes]:
            self._hooks.recovered(self._calls.pop(node))
        if gone:
            self._doubt()

    async def _heal(self) -> None:
        try:
            while self._lost:
                await self.learn()
                for node in list(self._lost):
                    if await self._serves(node):
                        self._lost.discard(node)
            logger.info("cluster.healed", extra={"facts": {"primaries": len(self._map.all_primaries())}})
        finally:
            self._healing = None
        self._doubt()

    async def _serves(self, node: Address) -> bool:
        try:
            async with asyncio.timeout(_ASK_S):
                told: bytes = await self.at(node).command("CLUSTER", "INFO")
        except (RedisUnavailable, RedisError, TimeoutError):
            return False
        return b"cluster_state:ok" in told

    def _doubt(self) -> None:
        if self._doubting is None:
            self._doubting = asyncio.get_running_loop().create_task(self._hang_up())

    async def _hang_up(self) -> None:
        try:
            await asyncio.sleep(max(0.0, self._doubted_s + _BETWEEN_DOUBTS_S - time.monotonic()))
        finally:
            self._doubting = None
            self._doubted_s = time.monotonic()
        await self._pool.hang_up()
