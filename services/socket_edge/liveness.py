"""When to check which connection: for pings, overdue pongs, idle clients and expired credentials.

A connection is checked at the earliest of its deadlines. A pong moves a deadline to a later time at no cost:
the check at the earlier time finds nothing to do and schedules the next.
"""

import asyncio
import logging
import math

from services.socket_edge.held import HeldConnection, in_turns

logger = logging.getLogger(__name__)


class Liveness:
    """Checks each connection when one of its deadlines may have come, in ticks of at most half a second.

    So a check comes at most a second late: within that time a connection ends with its secret.
    """

    def __init__(self, *, ping_interval_s: float, ping_timeout_s: float, idle_s: float = math.inf) -> None:
        self.ping_interval_s = ping_interval_s
        self.ping_timeout_s = ping_timeout_s
        self._tick_s = min(0.5, ping_interval_s / 4, ping_timeout_s / 4, idle_s / 4)
        self._ticks: dict[float, dict[HeldConnection, None]] = {}

    def watch(self, connection: HeldConnection) -> None:
        """From now on the connection is checked, while the edge holds it."""
        self.check_by(connection, connection.next_check_s)

    def forget(self, connection: HeldConnection) -> None:
        waiting = self._ticks.get(connection.check_tick, {})
        waiting.pop(connection, None)
        if not waiting:
            self._ticks.pop(connection.check_tick, None)
        connection.check_tick = math.inf

    def check_by(self, connection: HeldConnection, at_s: float) -> None:
        """Has the connection checked at this time, or earlier; never, if the time is infinity."""
        if at_s == math.inf or not connection.is_held:
            return
        tick = at_s // self._tick_s + 1
        if tick < connection.check_tick:
            self.forget(connection)
            connection.check_tick = tick
            self._ticks.setdefault(tick, {})[connection] = None

    async def run(self) -> None:
        """Checks connections for ever."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._tick_s)
            await self.check_due(loop.time())

    async def check_due(self, now_s: float) -> None:
        """Checks the connections whose time has come."""
        async for connection in in_turns(self._take_due(now_s)):
            await self.check(connection, now_s)

    async def check(self, connection: HeldConnection, now_s: float) -> None:
        """Checks the connection now, and schedules its next check."""
        try:
            await connection.check(now_s)
        except Exception:
            # One connection must not keep the others from being checked.
            logger.exception("check.failed", extra={"facts": {"id": connection.id}})
        self.watch(connection)

    def _take_due(self, now_s: float) -> list[HeldConnection]:
        ticks = sorted(tick for tick in self._ticks if tick * self._tick_s <= now_s)
        due = [connection for tick in ticks for connection in self._ticks.pop(tick)]
        for connection in due:
            connection.check_tick = math.inf
        return due
