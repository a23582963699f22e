"""Reads Redis' time, so that the clock of this process follows it.

One command every ten seconds; on a cluster, one to each primary.
"""

import asyncio
import contextlib
import logging

from shared.clock import PROCESS, TOLERANCE_NS, Clock, Sample
from shared.model.errors import StoreUnavailable
from shared.redis.pipeline import RedisCommands

logger = logging.getLogger(__name__)

_INTERVAL_S = 10.0
# After a failure: another server, with another clock, may take over.
_RETRY_S = 1.0
_LOG_INTERVAL_NS = 60_000_000_000


class Timekeeper:
    """Keeps `clock` at Redis' time."""

    def __init__(self, redis: RedisCommands, *, clock: Clock = PROCESS) -> None:
        self._redis = redis
        self._clock = clock
        self._own = _Difference(clock, "clock.off", "clock.right")
        self._between = _Difference(clock, "redis.clocks-differ", "redis.clocks-agree")

    async def measure(self) -> None:
        """Reads the time of each primary. Raises StoreUnavailable when none replies."""
        primaries = await self._redis.primaries()
        samples: dict[str, Sample] = {}
        lost = StoreUnavailable(why="no primary is known")
        replies = await asyncio.gather(*map(self._sample, primaries.values()), return_exceptions=True)
        for name, reply in zip(primaries, replies, strict=True):
            match reply:
                case Sample():
                    samples[name] = reply
                case StoreUnavailable():
                    lost = reply
                case BaseException():
                    raise reply
        if not samples:
            raise lost
        self._clock.learn(samples)
        self._own.log(self._clock.ahead_ns())
        self._between.log(self._clock.spread_ns())

    async def keep(self) -> None:
        """Measures for ever. While Redis is away the clock goes on by itself."""
        pause_s = _INTERVAL_S
        while True:
            await asyncio.sleep(pause_s)
            pause_s = _RETRY_S
            with contextlib.suppress(StoreUnavailable):
                await self.measure()
                pause_s = _INTERVAL_S

    async def _sample(self, redis: RedisCommands) -> Sample:
        asked_ns = self._clock.monotonic_ns()
        seconds, microseconds = await redis.command("TIME")
        redis_ns = (int(seconds) * 1_000_000 + int(microseconds)) * 1000
        return Sample(asked_ns, redis_ns, self._clock.monotonic_ns())


class _Difference:
    """Logs when a difference begins, changes and ends; at most once a minute."""

    def __init__(self, clock: Clock, begins: str, ends: str) -> None:
        self._clock = clock
        self._begins = begins
        self._ends = ends
        self._logged_ns = 0
        self._quiet_until_ns = 0

    def log(self, difference_ns: int | None) -> None:
        """`difference_ns` counts as none while it is within the tolerance."""
        found_ns = difference_ns or 0
        is_over = abs(found_ns) > TOLERANCE_NS
        was_over = self._logged_ns != 0
        if is_over == was_over and (not is_over or abs(found_ns - self._logged_ns) <= TOLERANCE_NS):
            return
        now_ns = self._clock.monotonic_ns()
        if now_ns < self._quiet_until_ns:
            return
        self._quiet_until_ns = now_ns + _LOG_INTERVAL_NS
        self._logged_ns = found_ns if is_over else 0
        seconds = round(found_ns / 1e9, 3)
        if is_over:
            logger.warning(self._begins, extra={"facts": {"seconds": seconds}})
        else:
            logger.info(self._ends, extra={"facts": {"seconds": seconds}})
