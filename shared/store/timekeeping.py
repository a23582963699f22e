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
        self._own = _Difference(clock)
        self._between = _Difference(clock)

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
        self._log()

    async def keep(self) -> None:
        """Measures for ever. While Redis is away the clock goes on by itself."""
        # The first sample may have waited for connections, or for a machine on which everything starts.
        pause_s = _RETRY_S
        while True:
            await asyncio.sleep(pause_s)
            pause_s = _RETRY_S
            with contextlib.suppress(StoreUnavailable):
                await self.measure()
                pause_s = _INTERVAL_S

    def _log(self) -> None:
        ahead_ns, spread_ns = self._clock.ahead_ns() or 0, self._clock.spread_ns() or 0
        if self._own.is_news(ahead_ns):
            facts = {"seconds": round(ahead_ns / 1e9, 3)}
            if self._own.is_over:
                logger.warning("clock.off", extra={"facts": facts})
            else:
                logger.info("clock.right", extra={"facts": facts})
        if self._between.is_news(spread_ns):
            facts = {"seconds": round(spread_ns / 1e9, 3)}
            if self._between.is_over:
                logger.warning("redis.clocks-differ", extra={"facts": facts})
            else:
                logger.info("redis.clocks-agree", extra={"facts": facts})

    async def _sample(self, redis: RedisCommands) -> Sample:
        asked_ns = self._clock.monotonic_ns()
        seconds, microseconds = await redis.command("TIME")
        redis_ns = (int(seconds) * 1_000_000 + int(microseconds)) * 1000
        return Sample(asked_ns, redis_ns, self._clock.monotonic_ns())


class _Difference:
    """Whether a difference is news: it begins, changes or ends, and the last news is a minute old."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._reported_ns = 0
        self._quiet_until_ns = 0

    @property
    def is_over(self) -> bool:
        """The last news was of a difference above the tolerance."""
        return self._reported_ns != 0

    def is_news(self, found_ns: int) -> bool:
        if abs(found_ns) <= TOLERANCE_NS:
            found_ns = 0
        now_ns = self._clock.monotonic_ns()
        is_changed = abs(found_ns - self._reported_ns) > TOLERANCE_NS
        if not is_changed or now_ns < self._quiet_until_ns:
            return False
        self._reported_ns, self._quiet_until_ns = found_ns, now_ns + _LOG_INTERVAL_NS
        return True
