"""The same calls to a Redis Cluster: each goes to the primary that has the slot of its first key.

Each primary has a `Pipeline` of its own, so one that is dead fails or stalls only what lies on it. A node that
answers that another has the slot has not carried out the call: only then is it sent again.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeAlias

from redis.asyncio import Redis
from redis.exceptions import (
    AskError,
    ClusterCrossSlotError,
    ClusterDownError,
    MovedError,
    ReadOnlyError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from shared.redis.cluster_nodes import Nodes
from shared.redis.cluster_pool import Address, ClusterPool
from shared.redis.errors import RedisUnavailable
from shared.redis.hooks import NO_HOOKS, Hooks
from shared.redis.pipeline import Argument, Pipeline, RedisCommands, Script
from shared.redis.slots import ANYWHERE, redirected_to, slot_of, slot_of_command

# A slot on its way from node to node takes that long, unless its queues are long.
_PATIENCE_S = 2.0
_PAUSE_S = 0.05
_AT_ONCE = 3

# What a node answers, or not, that cannot serve. One that is loading is a ConnectionError for redis-py.
_LOST = (RedisConnectionError, RedisTimeoutError, ClusterDownError, ReadOnlyError, OSError, TimeoutError)

_Sent: TypeAlias = Callable[[Pipeline], Awaitable[Any]]


def pipeline_for(redis: Redis, *, scripts: Mapping[str, Script], hooks: Hooks = NO_HOOKS) -> RedisCommands:
    """Pipeline to what this client is a client of: one server, or a cluster."""
    if isinstance(redis.connection_pool, ClusterPool):
        return ClusterPipeline(redis.connection_pool, scripts=scripts, hooks=hooks)
    return Pipeline(redis, scripts=scripts, hooks=hooks)


class ClusterPipeline:
    """Sends commands and scripts to a cluster. Raises RedisUnavailable when it cannot serve this slot."""

    def __init__(self, pool: ClusterPool, *, scripts: Mapping[str, Script], hooks: Hooks = NO_HOOKS) -> None:
        self._texts = scripts
        self._nodes = Nodes(pool, self._texts, hooks)

    def command(self, *arguments: Argument) -> asyncio.Future[Any]:
        """One Redis command, by its key; PUBLISH to whichever primary can be reached."""
        return _begun(self._command(*arguments))

    async def _command(self, *arguments: Argument) -> Any:
        slot = slot_of_command(arguments)
        if arguments[0] in ANYWHERE:
            node = await self._nodes.reachable_for(slot)
            return await self._sent(node, lambda calls: calls.command(*arguments))
        return await self._at(
            slot,
            lambda calls: calls.command(*arguments),
            asking=lambda calls: _asking(calls, *arguments),
        )

    def read(self, *arguments: Argument) -> asyncio.Future[Any]:
        """A command that only reads, as `Pipeline.look`."""
        looking = self._at(
            slot_of_command(arguments),
            lambda calls: calls.read(*arguments),
            asking=lambda calls: _asking(calls, *arguments),
        )
        return _begun(looking)

    def script(self, name: str, keys: Sequence[str], *arguments: Argument) -> asyncio.Future[Any]:
        """One script, by name. All keys must lie in one slot."""
        text = self._texts[name].source
        running = self._at(
            slot_of(keys[0]),
            lambda calls: calls.script(name, keys, *arguments),
            # By its text: whoever does not know it yet would want to be asked again.
            asking=lambda calls: _asking(calls, "EVAL", text, len(keys), *keys, *arguments),
        )
        return _begun(running)

    async def scan(self, pattern: str) -> AsyncIterator[list[bytes]]:
        """All names that match, primary by primary. What moves meanwhile may come twice, or not at all."""
        for node in await self._nodes.primaries():
            try:
                async for lot in self._nodes.at(node).scan(pattern):
                    yield lot
            except RedisUnavailable as error:
                self._judge(node, error)
                raise

    async def _at(self, slot: int, send: _Sent, *, asking: _Sent) -> Any:
        """What the slot's primary answers, wherever the slot goes meanwhile."""
        until_s = time.monotonic() + _PATIENCE_S
        node, way, redirections = await self._nodes.primary_of(slot), send, 0
        while True:
            try:
                return await self._sent(node, way)
            except RedisUnavailable as error:
                if time.monotonic() > until_s:
                    raise
                match error.__cause__:
                    case MovedError() as moved:
                        node, way = redirected_to(moved.host, moved.port, by=node), send
                        self._nodes.moved(slot, node)
                    case AskError() as ask:
                        node, way = redirected_to(ask.host, ask.port, by=node), asking
                    case TryAgainError():
                        # Some of the keys are here and some there.
                        node, way = await self._nodes.primary_of(slot), send
                        redirections = _AT_ONCE
                    case _:
                        raise
            redirections += 1
            if redirections > _AT_ONCE:
                await asyncio.sleep(_PAUSE_S)

    async def _sent(self, node: Address, way: _Sent) -> Any:
        try:
            return await way(self._nodes.at(node))
        except RedisUnavailable as error:
            self._judge(node, error)
            raise

    def _judge(self, node: Address, error: RedisUnavailable) -> None:
        if isinstance(error.__cause__, _LOST):
            self._nodes.lose(node)
        elif isinstance(error.__cause__, ClusterCrossSlotError):
            # Our own mistake, as no Redis will ever do that.
            raise error.__cause__


def _begun(work: Coroutine[Any, Any, Any]) -> asyncio.Future[Any]:
    task = asyncio.get_running_loop().create_task(work)
    # Who waits for several answers goes with the first error; the loop would complain of the others.
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    return task


async def _asking(calls: Pipeline, *arguments: Argument) -> Any:
    """To a node that is being given the slot: it serves it only to who asks so, in the command before."""
    _, answer = await asyncio.gather(calls.command("ASKING"), calls.command(*arguments))
    return answer
