"""Background loops of a process: an error is logged and does not end the loop."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

logger = logging.getLogger(__name__)

_RETRY_DELAY_S = 1.0
_CANCEL_INTERVAL_S = 0.5


@asynccontextmanager
async def in_background(*loops: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Runs the loops while entered, each again whenever it returns or raises."""
    tasks = [asyncio.create_task(_forever(loop)) for loop in loops]
    try:
        yield
    finally:
        await end(*tasks)


async def _forever(loop: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await loop()
        except Exception:
            logger.exception("loop.failed", extra={"facts": {"loop": loop.__qualname__}})
            await asyncio.sleep(_RETRY_DELAY_S)


async def end(*tasks: asyncio.Task[Any]) -> None:
    """Cancels the tasks repeatedly until each has ended.

    `asyncio.wait_for`, with which redis-py writes each command, loses a cancellation that arrives in the turn
    of the loop in which its future completes (Python 3.11).
    """
    left = {task for task in tasks if not task.done()}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=_CANCEL_INTERVAL_S)
