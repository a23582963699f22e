"""Commands of the same turn of the event loop travel as one pipeline.

A single command costs several times what it costs inside a pipeline, so all commands of a process go through
`Pipeline`: it collects, sends one pipeline at a time, and collects again meanwhile. Redis executes commands
in the order in which they were queued. The exception is a script that the server does not know: it is sent
again, unless its future was cancelled meanwhile. A release after a cancelled claim relies on that.
"""

import asyncio
import hashlib
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from redis.asyncio import Redis
from redis.exceptions import NoScriptError, RedisError, ResponseError

from shared.redis.connection import Argument as Argument
from shared.redis.connection import (
    Arguments,
    Command,
    Connection,
    OnReplies,
    OnReply,
    RedisConnection,
    pack,
)
from shared.redis.sentinel import SentinelConnection, SentinelPool

# Redis serves no other client while it reads a pipeline: bounded in commands, and in bytes.
_PIPELINE_COMMANDS = 1000
_PIPELINE_BYTES = 4 * 1024 * 1024

_ERROR_CODE = re.compile(r"[A-Z]{3,}\b")


class RedisUnavailable(Exception):
    """Redis cannot execute a command now. It is unknown whether a write was executed."""

    def __init__(self, *, why: str) -> None:
        super().__init__(f"Redis is unavailable: {why}")


@dataclass(frozen=True, slots=True)
class Hooks:
    """`unavailable` is the class of the error that a pipeline raises.

    `on_reply(commands, took_s)` runs after each pipeline, `on_error(error name)` after each failed command,
    `on_lost(pipeline, error)` and `on_recovered(pipeline)` when a Redis stops replying and when it replies
    again.
    """

    unavailable: type[RedisUnavailable]
    on_reply: Callable[[int, float], None]
    on_error: Callable[[str], None]
    on_lost: Callable[[object, Exception], None]
    on_recovered: Callable[[object], None]


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua file with its includes. EVALSHA names it by the hash of its text, which is also its version."""

    name: str
    source: str

    @property
    def sha(self) -> str:
        return hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()


class RedisCommands(Protocol):
    """One Redis or one cluster. Each method queues its command at once; the future is for the reply."""

    def command(self, *arguments: Argument) -> asyncio.Future[Any]:
        """One Redis command."""

    def read(self, *arguments: Argument) -> asyncio.Future[Any]:
        """One Redis command that only reads; identical reads of one pipeline share the future.

        Shield it where a task awaits it: a cancelled task would cancel the read of the others.
        """

    def script(self, name: str, keys: Sequence[str], *arguments: Argument) -> asyncio.Future[Any]:
        """One script, by name. All keys must lie in one slot."""

    def read_then(self, on_reply: OnReply, *arguments: Argument) -> Command | None:
        """One Redis command that only reads, by callback: no future, and no turn of the event loop later.

        Returns the command as it waits, None where it is sent in another way: until it is closed, others
        may share it, or add arguments.
        """

    def script_then(
        self, on_reply: OnReply, name: str, keys: Sequence[str], *arguments: Argument
    ) -> Command | None:
        """One script, likewise."""

    async def scan_page(self, cursor: str, *, count: int) -> tuple[str, list[bytes]]:
        """About `count` names, and the cursor of the next page; '' before the first and behind the last.

        A name may come twice; one that is added or removed meanwhile may not come at all. A cursor of a
        server that restarted since leads to a place that says little: names may be left out.
        """

    async def primaries(self) -> Mapping[str, "RedisCommands"]:
        """Commands to each primary, by an address that names it. A single Redis has one entry."""


def hand_over(on_reply: OnReply, reply: asyncio.Future[Any]) -> None:
    """Gives a callback what a future has got: its done callback where commands are sent as tasks."""
    if not reply.cancelled():
        on_reply(reply.exception() or reply.result())


def connection_to(redis: Redis) -> Connection:
    """A connection to the server of this client. A client that is itself a `Connection` is used as it is."""
    client: object = redis
    if isinstance(client, Connection):
        return client
    pool = redis.connection_pool
    if isinstance(pool, SentinelPool):
        return SentinelConnection(pool)
    return RedisConnection(pool.make_connection())


class Pipeline:
    """`RedisCommands` for one Redis. Raises RedisUnavailable when it cannot serve."""

    def __init__(self, redis: Redis, *, scripts: Mapping[str, Script], hooks: Hooks) -> None:
        self._connection = connection_to(redis)
        self._scripts = {name: (script, script.sha) for name, script in scripts.items()}
        self._hooks = hooks
        self._queue: list[Command] = []
        self._reads: dict[Arguments, asyncio.Future[Any]] = {}
        self._is_busy = False
        self._is_lost = False
        self._sent_s = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None

    def command(self, *arguments: Argument) -> asyncio.Future[Any]:
        return self._enqueue(arguments)

    def read(self, *arguments: Argument) -> asyncio.Future[Any]:
        reply = self._reads.get(arguments)
        if reply is None:
            reply = self._reads[arguments] = self._enqueue(arguments)
        return reply

    def script(self, name: str, keys: Sequence[str], *arguments: Argument) -> asyncio.Future[Any]:
        script, sha = self._scripts[name]
        return self._enqueue(("EVALSHA", sha, len(keys), *keys, *arguments), source=script.source)

    def read_then(self, on_reply: OnReply, *arguments: Argument) -> Command | None:
        command = Command(arguments, None, on_reply=on_reply)
        self._queue.append(command)
        if not self._is_busy:
            self._send_soon()
        return command

    def script_then(
        self, on_reply: OnReply, name: str, keys: Sequence[str], *arguments: Argument
    ) -> Command | None:
        script, sha = self._scripts[name]
        evalsha = ("EVALSHA", sha, len(keys), *keys, *arguments)
        command = Command(evalsha, None, script.source, on_reply=on_reply)
        self._queue.append(command)
        if not self._is_busy:
            self._send_soon()
        return command

    async def scan_page(self, cursor: str, *, count: int) -> tuple[str, list[bytes]]:
        following, names = await self.command("SCAN", cursor or 0, "COUNT", count)
        return "" if int(following) == 0 else following.decode(), names

    async def primaries(self) -> Mapping[str, RedisCommands]:
        return {"": self}

    def send(self, commands: Sequence[Command], on_replies: OnReplies) -> None:
        """Sends one pipeline."""
        self._sent_s = time.perf_counter()
        self._connection.send(commands, on_replies)

    def _enqueue(self, arguments: Arguments, *, source: str | None = None) -> asyncio.Future[Any]:
        if not self._is_busy:
            self._send_soon()
        assert self._loop is not None
        reply: asyncio.Future[Any] = self._loop.create_future()
        self._queue.append(Command(arguments, reply, source))
        return reply

    def _send_soon(self) -> None:
        """Not at once: the other commands of this turn of the loop join the pipeline."""
        self._is_busy = True
        if self._loop is None:
            # Kept: it is a system call to ask for it.
            self._loop = asyncio.get_running_loop()
        self._loop.call_soon(self._send_queue)

    def _send_queue(self) -> None:
        self._reads.clear()
        while self._queue:
            commands, self._queue = _next_pipeline(self._queue)
            if commands:
                self.send(commands, partial(self._on_replies, commands))
                return
        self._is_busy = False

    def _on_replies(self, commands: Sequence[Command], replies: list[Any] | Exception) -> None:
        try:
            if isinstance(replies, Exception):
                self._is_lost = True
                self._hooks.on_lost(self, replies)
                # Fail the queue too: each of its pipelines would wait for a timeout of its own.
                queue, self._queue = self._queue, []
                for command in (*commands, *queue):
                    self._fail(command, replies)
            else:
                if self._is_lost:
                    self._is_lost = False
                    self._hooks.on_recovered(self)
                self._hooks.on_reply(len(commands), time.perf_counter() - self._sent_s)
                self._resolve(commands, replies)
        finally:
            self._send_queue()

    def _resolve(self, commands: Sequence[Command], replies: list[Any]) -> None:
        unknown_scripts = []
        for command, reply in zip(commands, replies, strict=True):
            if not isinstance(reply, Exception):
                future = command.reply
                if future is None:
                    assert command.on_reply is not None
                    try:
                        command.on_reply(reply)
                    except Exception as error:
                        self._report(error)
                elif not future.done():
                    future.set_result(reply)
            elif isinstance(reply, NoScriptError) and command.source is not None:
                # The server restarted, or never saw this version. EVAL also loads the script.
                command.arguments = ("EVAL", command.source, *command.arguments[2:])
                command.packed = b""
                unknown_scripts.append(command)
            else:
                self._fail(command, reply)
        self._queue[:0] = unknown_scripts

    def _report(self, error: Exception) -> None:
        """Reports an error of a callback to the loop: the other commands have replies too."""
        assert self._loop is not None
        message = "the callback of a command failed"
        self._loop.call_exception_handler({"message": message, "exception": error})

    def _fail(self, command: Command, error: Exception) -> None:
        # Or what joins it would never have a reply.
        command.is_closed = True
        future = command.reply
        if future is not None and future.done():
            return
        if isinstance(error, RedisError | OSError) and not _is_bug(error):
            self._hooks.on_error(type(error).__name__)
            unavailable = self._hooks.unavailable(why=type(error).__name__)
            # `ClusterPipeline` reads redirections from the cause.
            unavailable.__cause__ = error
            error = unavailable
        if future is None:
            assert command.on_reply is not None
            try:
                command.on_reply(error)
            except Exception as failed:
                self._report(failed)
            return
        future.set_exception(error)
        # A gather ends with the first error; the loop would log the others as never retrieved.
        future.exception()


def _next_pipeline(queue: list[Command]) -> tuple[list[Command], list[Command]]:
    """The commands of the next pipeline, packed, and those behind it."""
    commands: list[Command] = []
    size = 0
    for place, command in enumerate(queue):
        # A cancelled command must not be executed later: its caller has moved on.
        if command.reply is not None and command.reply.cancelled():
            continue
        if not command.packed:
            command.packed, command.is_closed = pack(command.arguments), True
        size += len(command.packed)
        if commands and (size > _PIPELINE_BYTES or len(commands) == _PIPELINE_COMMANDS):
            return commands, queue[place:]
        commands.append(command)
    return commands, []


def _is_bug(error: Exception) -> bool:
    """Is the command itself wrong? Every other error is a Redis that cannot serve now: it is full, loading,
    failing over, its disk is broken, or our rights were withdrawn."""
    # redis-py strips the code ERR; any other code is the first word, or has a class of its own.
    code = _ERROR_CODE.match(str(error))
    return type(error) is ResponseError and (code is None or code[0] == "WRONGTYPE")
