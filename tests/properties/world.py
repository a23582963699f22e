"""What all actors share, and the gate before each actor's calls to Redis."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

from shared.redis.client import connect
from shared.redis.connection import Command, OnReplies, OnReply, RedisConnection
from shared.redis.pipeline import Argument, Pipeline, Script, hand_over
from shared.store.commands import HOOKS
from tests.harness.overheard import Overheard
from tests.properties.model import Model

START_MS = 1_700_000_000_000
# Where the scripts find the machine's time.
_TIME = "time"
# The loop is quiet after so many turns without a new call.
_QUIET_TURNS = 12


OnScript: TypeAlias = Callable[[str, Sequence[str], Sequence[Argument], Any], None]
"""Gets the name of a script, its keys, its arguments and its reply."""


class World:
    """The model, the time, the wakeups in flight, and the calls under way."""

    def __init__(self, loop: asyncio.AbstractEventLoop, url: str, scripts: Mapping[str, Script]) -> None:
        self.loop = loop
        self.url = url
        self.scripts = {name: _at_machines_time(script) for name, script in scripts.items()}
        self.model = Model()
        self.now_ms = START_MS
        # For each instance, in the order in which Redis published them.
        self.in_flight: dict[str, list[bytes]] = {}
        # Called with each reply to a script, in the order in which Redis ran them.
        self.on_script: OnScript = lambda *_: None
        # Called with what each append has queued for a channel.
        self.on_append: Callable[[str, Sequence[int]], None] = lambda *_: None
        self.calls_begun = 0
        self.calls_under_way = 0
        self._call_ended = asyncio.Event()
        # One pipeline at a time: the model must record steps in the order in which Redis did them.
        self.one_at_a_time = asyncio.Lock()
        self._overheard: Overheard | None = None

    def set_time_of(self, direct: Any) -> None:
        """Sets the clock of this Redis, as far as scripts read it, to the machine's."""
        seconds, ms = divmod(self.now_ms, 1000)
        direct.hset(_TIME, mapping={"seconds": seconds, "microseconds": ms * 1000})

    def record_wakeups(self, direct: Any) -> None:
        """Records the wakeups of this Redis from now on."""
        self._overheard = Overheard(direct)

    def collect_wakeups(self) -> None:
        """Puts the recorded wakeups that Redis has published by now in flight, also those of scripts."""
        if self._overheard is None:
            return
        for instance, message in self._overheard.all():
            self.in_flight.setdefault(instance, []).append(message)

    @contextlib.contextmanager
    def calling(self) -> Iterator[None]:
        self.calls_begun += 1
        self.calls_under_way += 1
        try:
            yield
        finally:
            self.calls_under_way -= 1
            self._call_ended.set()

    async def quiet(self) -> None:
        """Waits until all actors wait for the machine."""
        idle = 0
        while idle < _QUIET_TURNS:
            begun = self.calls_begun
            if self.calls_under_way:
                self._call_ended.clear()
                await self._call_ended.wait()
            else:
                await asyncio.sleep(0)
            idle = idle + 1 if begun == self.calls_begun and not self.calls_under_way else 0


def _at_machines_time(script: Script) -> Script:
    time = f"redis.call('HMGET', '{_TIME}', 'seconds', 'microseconds')"
    return Script(script.name, script.source.replace("redis.call('TIME')", time))


class Gate:
    """Lets all calls through, or a number of them; the others queue."""

    def __init__(self) -> None:
        self._left: int | None = None
        self._queue: deque[asyncio.Future[None]] = deque()

    @property
    def is_open(self) -> bool:
        return self._left is None

    def close(self, *, after: int) -> None:
        self._left = after

    def let_through(self, count: int) -> None:
        while count and self._queue:
            first = self._queue.popleft()
            if not first.done():
                first.set_result(None)
                count -= 1

    def open(self) -> None:
        self._left = None
        self.let_through(len(self._queue))

    async def wait(self) -> None:
        if self._left is None:
            return
        if self._left > 0 and all(call.done() for call in self._queue):
            self._left -= 1
            return
        self._queue.append(asyncio.get_running_loop().create_future())
        await self._queue[-1]


class GatedPipeline(Pipeline):
    """A pipeline behind a gate. It puts wakeups in flight, for the machine to deliver or to lose."""

    def __init__(self, world: World, gate: Gate) -> None:
        self.redis = connect(world.url)
        super().__init__(self.redis, scripts=world.scripts, hooks=HOOKS)
        self._world = world
        self._gate = gate
        self._turn: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """A search makes thousands of pipelines: each must give its sockets back."""
        connection = self._connection
        if isinstance(connection, RedisConnection) and connection._protocol is not None:
            connection._protocol.abort()
        await self.redis.aclose()

    def command(self, *arguments: Argument) -> asyncio.Future[Any]:
        publishes = arguments[0] == "PUBLISH"
        return started(self._gated(partial(super().command, *arguments), publishes=publishes))

    def read(self, *arguments: Argument) -> asyncio.Future[Any]:
        return started(self._gated(partial(super().read, *arguments), publishes=False))

    def script(self, name: str, keys: Sequence[str], *arguments: Argument) -> asyncio.Future[Any]:
        return started(self._gated_script(name, keys, arguments))

    def read_then(self, on_reply: OnReply, *arguments: Argument) -> None:
        self.read(*arguments).add_done_callback(partial(hand_over, on_reply))

    def script_then(self, on_reply: OnReply, name: str, keys: Sequence[str], *arguments: Argument) -> None:
        self.script(name, keys, *arguments).add_done_callback(partial(hand_over, on_reply))

    async def _gated_script(self, name: str, keys: Sequence[str], arguments: Sequence[Argument]) -> Any:
        publishes = "'PUBLISH'" in self._world.scripts[name].source
        reply = await self._gated(partial(super().script, name, keys, *arguments), publishes=publishes)
        self._world.on_script(name, keys, arguments, reply)
        return reply

    async def _gated(self, send: Callable[[], asyncio.Future[Any]], *, publishes: bool) -> Any:
        await self._gate.wait()
        with self._world.calling():
            reply = await send()
        if publishes:
            self._world.collect_wakeups()
        return reply

    def send(self, commands: Sequence[Command], on_replies: OnReplies) -> None:
        self._turn = self._world.loop.create_task(self._send_in_turn(commands, on_replies))

    async def _send_in_turn(self, commands: Sequence[Command], on_replies: OnReplies) -> None:
        done = self._world.loop.create_future()

        def finish(replies: list[Any] | Exception) -> None:
            done.set_result(None)
            on_replies(replies)

        async with self._world.one_at_a_time:
            super().send(commands, finish)
            await done


def started(work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """Starts a task and retrieves its error: after the first of several errors nothing awaits the others."""
    task = asyncio.get_running_loop().create_task(work)
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    return task
