"""Loops that a process depends on: a error in one is told, and does not end it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

logger = logging.getLogger(__name__)

_AGAIN_S = 1.0
_CANCEL_AGAIN_S = 0.5


async def forever(loop: Callable[[], Awaitable[None]]) -> None:
    """Runs the loop again whenever it ends or fails."""
    while True:
        try:
            await loop()
        except Exception:
            logger.exception("loop.failed", extra={"facts": {"loop": loop.__qualname__}})
            await asyncio.sleep(_AGAIN_S)


async def end(*tasks: asyncio.Task[Any]) -> None:
    """Cancels the tasks, again and again, until each has ended.

    Once is not enough: `asyncio.wait_for`, by which redis-py writes each command, loses a cancel that comes
    in the turn of the loop in which it is done (Python 3.11).
    """
    left = {task for task in tasks if not task.done()}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=_CANCEL_AGAIN_S)
