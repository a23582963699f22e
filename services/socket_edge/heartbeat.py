"""The edge's heartbeat, without which its leases count as free, and the releases that wait for Redis.

While Redis is away sockets stay open: leases are fenced, so one that was lost does no harm.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable

from services.serving import Awaited
from services.socket_edge.held import HeldConnection, in_turns
from services.socket_edge.registry import Registry
from shared.model.channels import CloseReason
from shared.model.errors import StoreUnavailable
from shared.store.commands import words_of
from shared.store.replicas import Heartbeat

logger = logging.getLogger(__name__)

STOP_S = 1.0


class EdgeHeartbeat:
    """The heartbeat of one edge. It closes every connection when Redis is unavailable for too long."""

    def __init__(
        self,
        heartbeat: Heartbeat,
        registry: Registry,
        *,
        every_s: float,
        outage_limit_s: float,
        awaited: Awaited,
    ) -> None:
        self._heartbeat = heartbeat
        self._registry = registry
        self._every_s = every_s
        self._outage_limit_s = outage_limit_s
        self._awaited = awaited
        self._unreleased: list[Callable[[], Awaitable[object]]] = []

    async def run(self) -> None:
        """Beats for ever; closes connections after the outage limit."""
        answered_s = time.monotonic()
        while True:
            if await self.beat():
                answered_s = time.monotonic()
            elif time.monotonic() - answered_s > self._outage_limit_s and len(self._registry):
                logger.warning("redis.outage-limit-reached", extra={"facts": {"held": len(self._registry)}})
                async for connection in in_turns(self._registry.all()):
                    await connection.close(CloseReason.REDIS_UNAVAILABLE)
            await asyncio.sleep(min(self._every_s, self._outage_limit_s / 2))

    async def beat(self) -> bool:
        """Sends a heartbeat, then the releases that failed before; False when Redis is unavailable."""
        try:
            await self._heartbeat.beat()
        except StoreUnavailable as error:
            self._awaited.failed(words_of(error))
            return False
        self._awaited.has_come()
        unreleased, self._unreleased = self._unreleased, []
        await asyncio.gather(*map(self._release, unreleased))
        return True

    async def release(self, connection: HeldConnection) -> None:
        """Stops the connection's delivery and releases its lease or session.

        If Redis is unavailable, the next heartbeat retries; until then the channel counts as connected.
        """
        # A session that is being written again must not outlive its release.
        connection.is_held = False
        call = await connection.finish()
        if call is not None and not await self._release(call):
            logger.warning("connection.not-released", extra={"facts": {"id": connection.id}})

    async def release_by(self, call: Callable[[], Awaitable[object]]) -> None:
        """Releases what no connection holds any more; the next heartbeat retries if Redis is unavailable."""
        await self._release(call)

    async def stop(self) -> None:
        """Ends the heartbeat in Redis: the leases may be claimed at once."""
        with contextlib.suppress(StoreUnavailable, TimeoutError):
            await asyncio.wait_for(self._heartbeat.stop(), STOP_S)

    async def _release(self, call: Callable[[], Awaitable[object]]) -> bool:
        try:
            await call()
        except StoreUnavailable:
            self._unreleased.append(call)
            return False
        return True
