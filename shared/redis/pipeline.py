"""Redis calls made in the same turn of the event loop travel as one pipeline.

A call by itself costs several times what it costs inside a pipeline, so nobody here talks to Redis directly:
`Pipeline` collects, sends one pipeline at a time, and collects again while it is under way. Pipeline are thus
carried out in the order in which they were made, but for a script that the server does not know yet: it is
sent again, unless nobody waits for it any more, which a release after a cancelled look relies on.
"""

import asyncio
import hashlib
import re
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeAlias

from redis.asyncio import Redis
from redis.exceptions import NoScriptError, RedisError, ResponseError

from shared.redis.connection import Call, Then, connection_to
from shared.redis.hooks import NO_HOOKS, Hooks

# Redis answers nobody else while it reads one: bounded in commands, and in bytes of arguments.
_PIPELINE_CALLS = 1000
_PIPELINE_BYTES = 4 * 1024 * 1024

_CODE = re.compile(r"[A-Z]{3,}\b")

Argument: TypeAlias = str | bytes | int | float


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua file, with what it includes. It is called by the hash of its text: its hash is its version."""

    name: str
    source: str

    @property
    def sha(self) -> str:
        return hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()


class RedisCommands(Protocol):
    """One Redis or one cluster. A call begins at once; the future is for its answer."""

    def command(self, *arguments: Argument) -> asyncio.Future[Any]:
        """One Redis command."""

    def read(self, *arguments: Argument) -> asyncio.Future[Any]:
        """One Redis command that only reads; identical reads of one turn of the loop share an answer."""

    def script(self, name: str, keys: Sequence[str], *arguments: Argument) -> asyncio.Future[Any]:
        """One script, by name. All keys must lie in one slot."""

    def scan(self, pattern: str) -> AsyncIterator[list[bytes]]:
        """All names that match, in batches. A name may come twice; a new one may not come at all."""


class Pipeline:
    """Sends commands and scripts to one Redis. Raises RedisUnavailable when it cannot serve."""

    def __init__(self, redis: Redis, *, scripts: Mapping[str, Script], hooks: Hooks = NO_HOOKS) -> None:
        self._way = connection_to(redis)
        self._scripts = {name: (script, script.sha) for name, script in scripts.items()}
        self._hooks = hooks
        self._waiting: list[Call] = []
        self._reads: dict[tuple[Argument, ...], list[asyncio.Future[Any]]] = {}
        self._is_busy = False
        self._is_lost = False
        self._began_s = 0.0

    def command(self, *arguments: Argument) -> asyncio.Future[Any]:
        """One Redis command. It is begun at once; the future is for its answer."""
        return self._queued(arguments)

    def read(self, *arguments: Argument) -> asyncio.Future[Any]:
        """One Redis command that only reads: whoever asks the same before it is sent has the same answer."""
        others = self._reads.get(arguments)
        if others is None:
            answer = self._queued(arguments)
            self._reads[arguments] = others = []
            answer.add_done_callback(partial(_share, others))
        others.append(mine := asyncio.get_running_loop().create_future())
        return mine

    def script(self, name: str, keys: Sequence[str], *arguments: Argument) -> asyncio.Future[Any]:
        """One script, by name. All keys must lie in one slot."""
        script, sha = self._scripts[name]
        return self._queued(("EVALSHA", sha, len(keys), *keys, *arguments), source=script.source)

    async def scan(self, pattern: str) -> AsyncIterator[list[bytes]]:
        """All names that match, in lots. One may come twice; one that is new may not come at all."""
        cursor: bytes | int = 0
        while True:
            cursor, names = await self.command("SCAN", cursor, "MATCH", pattern, "COUNT", 1000)
            if names:
                yield names
            if int(cursor) == 0:
                return

    def _queued(self, command: tuple[Argument, ...], *, source: str | None = None) -> asyncio.Future[Any]:
        loop = asyncio.get_running_loop()
        call = Call(command, loop.create_future(), source)
        self._waiting.append(call)
        if not self._is_busy:
            self._is_busy = True
            # Whoever else wants something in this turn of the loop goes along.
            loop.call_soon(self._send_waiting)
        return call.answer

    def _send_waiting(self) -> None:
        self._reads.clear()
        while self._waiting:
            count = _first_pipeline(self._waiting)
            sending, self._waiting = self._waiting[:count], self._waiting[count:]
            # Nobody waits for a cancelled call any more; what it would have done must not happen later.
            if calls := [call for call in sending if not call.answer.cancelled()]:
                self.begin(calls, partial(self._answered, calls))
                return
        self._is_busy = False

    def begin(self, calls: Sequence[Call], then: Then) -> None:
        """Sends one pipeline."""
        self._began_s = time.perf_counter()
        self._way.begin(calls, then)

    def _answered(self, calls: Sequence[Call], answers: list[Any] | Exception) -> None:
        try:
            if isinstance(answers, Exception):
                self._is_lost = True
                self._hooks.lost(self)
                # What waits behind would meet the same, each lot after another time-out: tell it now.
                waiting, self._waiting = self._waiting, []
                for call in (*calls, *waiting):
                    self._fail(call, answers)
            else:
                if self._is_lost:
                    self._is_lost = False
                    self._hooks.recovered(self)
                self._hooks.answered(len(calls), time.perf_counter() - self._began_s)
                self._tell(calls, answers)
        finally:
            self._send_waiting()

    def _tell(self, calls: Sequence[Call], answers: list[Any]) -> None:
        unknown_scripts = []
        for call, answer in zip(calls, answers, strict=True):
            if not isinstance(answer, Exception):
                if not call.answer.done():
                    call.answer.set_result(answer)
            elif isinstance(answer, NoScriptError) and call.source is not None:
                # The server restarted, or never met this version. Sending the text also makes it known.
                call.replace(("EVAL", call.source, *call.command[2:]))
                unknown_scripts.append(call)
            else:
                self._fail(call, answer)
        self._waiting[:0] = unknown_scripts

    def _fail(self, call: Call, error: Exception) -> None:
        if call.answer.done():
            return
        if not isinstance(error, RedisError | OSError | TimeoutError) or _is_ours(error):
            call.answer.set_exception(error)
        else:
            self._hooks.failed(type(error).__name__)
            unavailable = self._hooks.unavailable(why=type(error).__name__)
            # In a cluster it tells where to go instead.
            unavailable.__cause__ = error
            call.answer.set_exception(unavailable)
        # Who waits for several answers goes with the first error; the loop would complain of the others.
        call.answer.exception()


def _first_pipeline(waiting: Sequence[Call]) -> int:
    """How many of the waiting calls go into the next pipeline: at least one."""
    size = 0
    for count, call in enumerate(waiting[:_PIPELINE_CALLS]):
        size += len(call.packed)
        if size > _PIPELINE_BYTES and count:
            return count
    return min(len(waiting), _PIPELINE_CALLS)


def _share(others: Sequence[asyncio.Future[Any]], answer: asyncio.Future[Any]) -> None:
    error = answer.exception()
    for other in others:
        if other.done():
            continue
        if error is None:
            other.set_result(answer.result())
        else:
            other.set_exception(error)
            other.exception()


def _is_ours(error: Exception) -> bool:
    """Is it a mistake in what we sent? Every other error is a Redis that cannot serve now: full, failing
    over, loading, its disk broken, its rights withdrawn."""
    # redis-py takes the code ERR off; any other code is the first word, or has a class of its own.
    code = _CODE.match(str(error))
    return type(error) is ResponseError and (code is None or code[0] == "WRONGTYPE")
