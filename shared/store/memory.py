"""How full each Redis is. Needs the right to INFO, which a restricted user may lack."""

import asyncio
import logging

from shared.model.errors import StoreUnavailable
from shared.redis.pipeline import RedisCommands

logger = logging.getLogger(__name__)


class RedisMemory:
    """Reads the memory of every primary."""

    def __init__(self, redis: RedisCommands) -> None:
        self._redis = redis
        self._why = ""

    async def used_and_limit(self) -> dict[str, tuple[int, int]]:
        """Bytes in use and `maxmemory` (0: no limit), by the primary's address ('' for a single Redis).

        Of those that replied. Logs once why one did not.
        """
        primaries = await self._redis.primaries()
        replies = await asyncio.gather(
            *(each.command("INFO", "memory") for each in primaries.values()), return_exceptions=True
        )
        found = {}
        for primary, reply in zip(primaries, replies, strict=True):
            match reply:
                case bytes():
                    found[primary] = _parse(reply)
                case StoreUnavailable():
                    self._log(reply)
                case BaseException():
                    raise reply
        return found

    def _log(self, error: StoreUnavailable) -> None:
        why = f"{type(error.__cause__).__name__}: {error.__cause__}"
        if why != self._why:
            self._why = why
            logger.info("redis.memory-unknown", extra={"facts": {"why": why}})


def _parse(text: bytes) -> tuple[int, int]:
    fields = dict(line.split(b":", 1) for line in text.splitlines() if b":" in line)
    return int(fields[b"used_memory"]), int(fields[b"maxmemory"])
