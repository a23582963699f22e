"""One event loop for all actors of an example: steps, clocks, and errors that become violations."""

import asyncio
import logging
from collections.abc import Coroutine, Iterable, Mapping
from typing import Any

from shared.redis.pipeline import Script
from tests.harness.valkey import Valkey
from tests.properties.actors import Actor
from tests.properties.world import World


class _ErrorLogs(logging.Handler):
    """Makes each logged error a violation."""

    def __init__(self, violations: list[str]) -> None:
        super().__init__(logging.ERROR)
        self._violations = violations

    def emit(self, record: logging.LogRecord) -> None:
        self._violations.append(f"{record.getMessage()}: {record.exc_info and record.exc_info[1]!r}")


class Stage:
    """An empty Valkey, a client of it for the checks, and the world of the actors."""

    def __init__(self, valkey: Valkey, *, scripts: Mapping[str, Script]) -> None:
        self.valkey = valkey
        self.direct = valkey.client()
        self.direct.flushall()
        self._runner = asyncio.Runner()
        loop = self._runner.get_loop()
        # Timers follow the machine's clock.
        self._loop_s = loop.time()
        loop.time = lambda: self._loop_s  # type: ignore[method-assign]
        self.world = World(loop, valkey.url, scripts)
        self.world.set_time_of(self.direct)
        self.violations = self.world.model.violations
        loop.set_exception_handler(self._record_error)
        self._error_logs = _ErrorLogs(self.violations)
        for room in ("services", "shared"):
            logging.getLogger(room).addHandler(self._error_logs)

    def _record_error(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.violations.append(f"{context['message']}: {context.get('exception')!r}")

    def run(self, work: Coroutine[Any, Any, None] | None = None) -> None:
        """One step: runs the work and what follows from it, until all actors wait again."""

        async def step() -> None:
            if work is not None:
                await work
            await self.world.quiet()

        self._runner.run(step())

    def end(self, actors: Iterable[Actor]) -> None:
        """Closes the connections of all actors, and the loop."""
        self.run(_disconnect(actors))
        for room in ("services", "shared"):
            logging.getLogger(room).removeHandler(self._error_logs)
        self._runner.close()
        self.direct.close()


async def _disconnect(actors: Iterable[Actor]) -> None:
    for actor in actors:
        await actor.calls.close()
