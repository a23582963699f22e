"""What all actors share, and the gate before each one's calls to Redis."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from shared.redis.client import connect
from shared.redis.connection import Command, OnReplies
from shared.redis.pipeline import Argument, Pipeline, Script
from shared.store.commands import HOOKS
from tests.harness.overheard import Overheard
from tests.properties.pending import Pending

START_MS = 1_700_000_000_000
# The loop has nothing to do when so many turns of it changed nothing.
_QUIET_TURNS = 12


class World:
    """The model, the time, the wakeups under way, and how busy everybody is."""

    def __init__(self, loop: asyncio.AbstractEventLoop, url: str, scripts: Mapping[str, Script]) -> None:
        self.loop = loop
        self.url = url
        self.scripts = scripts
        self.pending = Pending()
        self.now_ms = START_MS
        # For each instance, in the order in which Redis told them.
        self.post: dict[str, list[bytes]] = {}
        self.calls_begun = 0
        self.calls_under_way = 0
        self._call_ended = asyncio.Event()
        # So that the model is told of things in the order in which Redis did them.
        self.one_at_a_time = asyncio.Lock()
        self._overheard: Overheard | None = None

    def listens(self, direct: Any) -> None:
        """From now on to this Redis."""
        self._overheard = Overheard(direct)

    def hears(self) -> None:
        """Every wakeup that Redis has told by now, also from inside a script, is under way."""
        assert self._overheard is not None
        for instance, message in self._overheard.all():
            self.post.setdefault(instance, []).append(message)

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
        """Waits until everybody waits for the machine."""
        idle = 0
        while idle < _QUIET_TURNS:
            begun = self.calls_begun
            if self.calls_under_way:
                self._call_ended.clear()
                await self._call_ended.wait()
            else:
                await asyncio.sleep(0)
            idle = idle + 1 if begun == self.calls_begun and not self.calls_under_way else 0


class Gate:
    """Lets calls through, all or so many; the others stand in line."""

    def __init__(self) -> None:
        self._left: int | None = None
        self._line: deque[asyncio.Future[None]] = deque()

    @property
    def is_open(self) -> bool:
        return self._left is None

    def close(self, *, after: int) -> None:
        self._left = after

    def let_through(self, count: int) -> None:
        while count and self._line:
            first = self._line.popleft()
            if not first.done():
                first.set_result(None)
                count -= 1

    def open(self) -> None:
        self._left = None
        self.let_through(len(self._line))

    async def passed(self) -> None:
        if self._left is None:
            return
        if self._left > 0 and all(place.done() for place in self._line):
            self._left -= 1
            return
        self._line.append(asyncio.get_running_loop().create_future())
        await self._line[-1]


class GatedCalls(Pipeline):
    """Pipeline that pass a gate first; wakeups are posted for the machine to deliver, or to lose."""

    def __init__(self, world: World, gate: Gate) -> None:
        self.redis = connect(world.url)
        super().__init__(self.redis, scripts=world.scripts, hooks=HOOKS)
        self._world = world
        self._gate = gate
        self._turn: asyncio.Task[None] | None = None

    def command(self, *arguments: Argument) -> asyncio.Future[Any]:
        wakeups = arguments[0] == "PUBLISH"
        return begun(self._gated(partial(super().command, *arguments), wakeups=wakeups))

    def read(self, *arguments: Argument) -> asyncio.Future[Any]:
        return begun(self._gated(partial(super().read, *arguments), wakeups=False))

    def script(self, name: str, keys: Sequence[str], *arguments: Argument) -> asyncio.Future[Any]:
        wakeups = "'PUBLISH'" in self._world.scripts[name].source
        return begun(
            self._gated(lambda: super(GatedCalls, self).script(name, keys, *arguments), wakeups=wakeups)
        )

    async def _gated(self, send: Callable[[], asyncio.Future[Any]], *, wakeups: bool) -> Any:
        await self._gate.passed()
        with self._world.calling():
            answer = await send()
        if wakeups:
            self._world.hears()
        return answer

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


def begun(work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """Whoever waits for several goes with the first fault; the loop would complain of the others."""
    task = asyncio.get_running_loop().create_task(work)
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    return task
