"""Redis calls made in the same turn of the event loop travel as one pipeline.

A call by itself costs several times what it costs inside a pipeline, so nobody here talks to Redis directly:
`Calls` collects, sends one pipeline at a time, and collects again while it is under way. Calls are thus
carried out in the order in which they were made, but for a script that the server does not know yet: it is
sent again, unless nobody waits for it any more, which a release after a cancelled look relies on.
"""

import asyncio
import hashlib
import logging
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, TypeAlias

from redis.asyncio import Redis
from redis.exceptions import NoScriptError, RedisError, ResponseError

from shared import telemetry
from shared.model.errors import StoreUnavailable
from shared.store.line import Command, Line

logger = logging.getLogger(__name__)

# Redis answers nobody else while it reads one: bounded in commands, and in bytes of arguments.
_PIPELINE_CALLS = 1000
_PIPELINE_BYTES = 4 * 1024 * 1024

_CODE = re.compile(r"[A-Z]{3,}\b")
_INCLUDE = re.compile(r"^--include (\w+)$", re.MULTILINE)

Argument: TypeAlias = str | bytes | int | float


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua file, with what it includes. It is called by the hash of its text: its hash is its version."""

    name: str
    source: str

    @property
    def sha(self) -> str:
        return hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()


def load_scripts() -> dict[str, Script]:
    """Every script in `shared/store/lua`, by name.

    Lua files know nothing of each other: a line `--include X` stands for the text of `included/X.lua`.
    """
    folder = files("shared.store") / "lua"

    def whole(source: str) -> str:
        return _INCLUDE.sub(lambda line: (folder / "included" / f"{line[1]}.lua").read_text(), source)

    return {
        file.name.removesuffix(".lua"): Script(file.name.removesuffix(".lua"), whole(file.read_text()))
        for file in folder.iterdir()
        if file.name.endswith(".lua")
    }


@dataclass(slots=True)
class _Call:
    arguments: tuple[Argument, ...]
    answer: asyncio.Future[Any]
    script: Script | None = None

    @property
    def size_bytes(self) -> int:
        return sum(len(part) for part in self.arguments if isinstance(part, str | bytes))


class Calls:
    """Sends commands and scripts to one Redis. Raises StoreUnavailable when it cannot serve."""

    def __init__(self, redis: Redis, *, scripts: Mapping[str, Script] | None = None) -> None:
        self._redis = redis
        self._line = Line.to(redis)
        self._scripts = {name: (script, script.sha) for name, script in (scripts or load_scripts()).items()}
        self._waiting: list[_Call] = []
        self._sender: asyncio.Task[None] | None = None

    async def command(self, *arguments: Argument) -> Any:
        """One Redis command."""
        return await self._queued(_Call(arguments, asyncio.get_running_loop().create_future()))

    async def script(self, name: str, keys: Sequence[str], *arguments: Argument) -> Any:
        """One script, by name. All keys must lie in one slot."""
        script, sha = self._scripts[name]
        call = ("EVALSHA", sha, len(keys), *keys, *arguments)
        return await self._queued(_Call(call, asyncio.get_running_loop().create_future(), script))

    async def names(self, pattern: str) -> AsyncIterator[list[bytes]]:
        """All names that match, in lots. One may come twice; one that is new may not come at all."""
        cursor: bytes | int = 0
        while True:
            cursor, names = await self.command("SCAN", cursor, "MATCH", pattern, "COUNT", 1000)
            if names:
                yield names
            if int(cursor) == 0:
                return

    def _queued(self, call: _Call) -> asyncio.Future[Any]:
        self._waiting.append(call)
        if self._sender is None:
            self._sender = asyncio.get_running_loop().create_task(self._send_all())
        return call.answer

    async def _send_all(self) -> None:
        try:
            while self._waiting:
                count = _first_pipeline(self._waiting)
                sending, self._waiting = self._waiting[:count], self._waiting[count:]
                # Nobody waits for a cancelled call any more; what it would have done must not happen later.
                if wanted := [call for call in sending if not call.answer.cancelled()]:
                    await self._send(wanted)
        finally:
            self._sender = None

    async def _send(self, calls: list[_Call]) -> None:
        try:
            with telemetry.redis_call(len(calls)):
                answers = await self.exchange([call.arguments for call in calls])
        except Exception as fault:
            # What waits behind would meet the same, each lot after another time-out: tell it now.
            waiting, self._waiting = self._waiting, []
            for call in (*calls, *waiting):
                _fail(call, fault)
            return
        unknown_scripts = []
        for call, answer in zip(calls, answers, strict=True):
            if isinstance(answer, NoScriptError) and call.script is not None:
                # The server restarted, or never met this version. Sending the text also makes it known.
                call.arguments = ("EVAL", call.script.source, *call.arguments[2:])
                unknown_scripts.append(call)
            elif isinstance(answer, Exception):
                _fail(call, answer)
            elif not call.answer.done():
                call.answer.set_result(answer)
        self._waiting[:0] = unknown_scripts

    async def exchange(self, commands: list[Command]) -> list[Any]:
        """One pipeline and its answers, errors of single commands among them. Raises redis-py's errors."""
        if self._line is not None:
            return await self._line.exchange(commands)
        pipeline = self._redis.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        return await pipeline.execute(raise_on_error=False)


def _first_pipeline(waiting: list[_Call]) -> int:
    """How many of the waiting calls go into the next pipeline: at least one."""
    size = 0
    for count, call in enumerate(waiting[:_PIPELINE_CALLS]):
        size += call.size_bytes
        if size > _PIPELINE_BYTES and count:
            return count
    return min(len(waiting), _PIPELINE_CALLS)


def _fail(call: _Call, fault: Exception) -> None:
    if call.answer.done():
        return
    if not isinstance(fault, RedisError | OSError | TimeoutError) or _is_ours(fault):
        call.answer.set_exception(fault)
    else:
        telemetry.redis_failed(type(fault).__name__)
        unavailable = StoreUnavailable(why=type(fault).__name__)
        # In a cluster it tells where to go instead.
        unavailable.__cause__ = fault
        call.answer.set_exception(unavailable)


def _is_ours(fault: Exception) -> bool:
    """Is it a mistake in what we sent? Every other error is a Redis that cannot serve now: full, failing
    over, loading, its disk broken, its rights withdrawn."""
    # redis-py takes the code ERR off; any other code is the first word, or has a class of its own.
    code = _CODE.match(str(fault))
    return type(fault) is ResponseError and (code is None or code[0] == "WRONGTYPE")
