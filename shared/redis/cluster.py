"""`RedisCommands` for a Redis Cluster: each command goes to the primary that has the slot of its first key.

Each primary has a `Pipeline` of its own, so a dead primary fails or stalls only what lies on it. A node that
redirects to another one did not execute the command: only then is it sent again.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from functools import partial
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
from shared.redis.cluster_pool import ClusterPool
from shared.redis.connection import Argument, OnReply
from shared.redis.pipeline import Hooks, Pipeline, RedisCommands, RedisUnavailable, Script, hand_over
from shared.redis.slots import ANY_NODE, redirect_target, slot_of, slot_of_command
from shared.redis.urls import Address

# Migrating a slot takes less than this, unless its queues are long.
_REDIRECT_LIMIT_S = 2.0
_REDIRECT_DELAY_S = 0.05
_REDIRECTS_WITHOUT_DELAY = 3

# Errors of a node that cannot serve. redis-py raises ConnectionError for one that is loading.
_NODE_LOST = (RedisConnectionError, RedisTimeoutError, ClusterDownError, ReadOnlyError, OSError)

_Send: TypeAlias = Callable[[Pipeline], Awaitable[Any]]


def pipeline_for(redis: Redis, *, scripts: Mapping[str, Script], hooks: Hooks) -> RedisCommands:
    """Commands for the server, or the cluster, that this client connects to."""
    if isinstance(redis.connection_pool, ClusterPool):
        return ClusterPipeline(redis.connection_pool, scripts=scripts, hooks=hooks)
    return Pipeline(redis, scripts=scripts, hooks=hooks)


class ClusterPipeline:
    """`RedisCommands` for one cluster. Raises RedisUnavailable when it cannot serve a slot."""

    def __init__(self, pool: ClusterPool, *, scripts: Mapping[str, Script], hooks: Hooks) -> None:
        self._scripts = scripts
        self._nodes = Nodes(pool, scripts, hooks)

    def command(self, *arguments: Argument) -> asyncio.Future[Any]:
        return _start(self._command(*arguments))

    async def _command(self, *arguments: Argument) -> Any:
        slot = slot_of_command(arguments)
        if arguments[0] in ANY_NODE:
            node = await self._nodes.reachable_for(slot)
            return await self._send(node, lambda pipeline: pipeline.command(*arguments))
        return await self._send_to_slot(
            slot,
            lambda pipeline: pipeline.command(*arguments),
            asking=lambda pipeline: _ask(pipeline, *arguments),
        )

    def read(self, *arguments: Argument) -> asyncio.Future[Any]:
        reading = self._send_to_slot(
            slot_of_command(arguments),
            lambda pipeline: asyncio.shield(pipeline.read(*arguments)),
            asking=lambda pipeline: _ask(pipeline, *arguments),
        )
        return _start(reading)

    def script(self, name: str, keys: Sequence[str], *arguments: Argument) -> asyncio.Future[Any]:
        source = self._scripts[name].source
        running = self._send_to_slot(
            slot_of(keys[0]),
            lambda pipeline: pipeline.script(name, keys, *arguments),
            # EVAL: a node that does not know the script would need a second ASKING.
            asking=lambda pipeline: _ask(pipeline, "EVAL", source, len(keys), *keys, *arguments),
        )
        return _start(running)

    def read_then(self, on_reply: OnReply, *arguments: Argument) -> None:
        self.read(*arguments).add_done_callback(partial(hand_over, on_reply))

    def script_then(self, on_reply: OnReply, name: str, keys: Sequence[str], *arguments: Argument) -> None:
        self.script(name, keys, *arguments).add_done_callback(partial(hand_over, on_reply))

    async def scan_page(self, cursor: str, *, count: int) -> tuple[str, list[bytes]]:
        """Primary by primary: the cursor names the primary, and its own cursor behind a blank.

        A name whose slot migrates meanwhile may come twice, or not at all; so may those of a primary that is
        replaced.
        """
        name, _, within = cursor.partition(" ")
        primaries = sorted(await self._nodes.primaries(), key=_name)
        ahead = [node for node in primaries if _name(node) >= name]
        if not ahead:
            return "", []
        node, *others = ahead
        within = within if _name(node) == name else ""
        within, names = await self._send(node, lambda pipeline: pipeline.scan_page(within, count=count))
        if within:
            return f"{_name(node)} {within}", names
        return (f"{_name(others[0])} " if others else ""), names

    async def primaries(self) -> Mapping[str, RedisCommands]:
        """Those of now: reads the map of slots. Raises RedisUnavailable when no node was ever reached."""
        # A caller that sends no command with a key would never learn of a failover.
        await self._nodes.learn()
        nodes = await self._nodes.primaries()
        return {f"{host}:{port}": self._nodes.pipeline((host, port)) for host, port in nodes}

    async def _send_to_slot(self, slot: int, send: _Send, *, asking: _Send) -> Any:
        """The reply of the slot's primary; follows redirections for up to _REDIRECT_LIMIT_S."""
        deadline_s = time.monotonic() + _REDIRECT_LIMIT_S
        node, send_next, redirects = await self._nodes.primary_of(slot), send, 0
        while True:
            try:
                return await self._send(node, send_next)
            except RedisUnavailable as error:
                if time.monotonic() > deadline_s:
                    raise
                match error.__cause__:
                    case MovedError() as moved:
                        node, send_next = redirect_target(moved.host, moved.port, by=node), send
                        self._nodes.moved(slot, node)
                    case AskError() as ask:
                        node, send_next = redirect_target(ask.host, ask.port, by=node), asking
                    case TryAgainError():
                        # Some of the keys have migrated, and some have not.
                        node, send_next = await self._nodes.primary_of(slot), send
                        redirects = _REDIRECTS_WITHOUT_DELAY
                    case _:
                        raise
            redirects += 1
            if redirects > _REDIRECTS_WITHOUT_DELAY:
                await asyncio.sleep(_REDIRECT_DELAY_S)

    async def _send(self, node: Address, send: _Send) -> Any:
        try:
            return await send(self._nodes.pipeline(node))
        except RedisUnavailable as error:
            self._on_error(node, error)
            raise

    def _on_error(self, node: Address, error: RedisUnavailable) -> None:
        if isinstance(error.__cause__, _NODE_LOST):
            self._nodes.mark_lost(node)
        elif isinstance(error.__cause__, ClusterCrossSlotError):
            # A bug of ours: no Redis will ever execute this command.
            raise error.__cause__


def _name(node: Address) -> str:
    return f"{node[0]}:{node[1]}"


def _start(coroutine: Coroutine[Any, Any, Any]) -> asyncio.Future[Any]:
    task = asyncio.get_running_loop().create_task(coroutine)
    # A gather ends with the first error; the loop would log the others as never retrieved.
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    return task


async def _ask(pipeline: Pipeline, *arguments: Argument) -> Any:
    """A node that imports a slot executes only the command right after ASKING."""
    _, reply = await asyncio.gather(pipeline.command("ASKING"), pipeline.command(*arguments))
    return reply
