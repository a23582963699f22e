"""Loops that a process depends on: a fault in one is told, and does not end it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

logger = logging.getLogger(__name__)

_AGAIN_S = 1.0


async def forever(loop: Callable[[], Awaitable[None]]) -> None:
    """Runs the loop again whenever it ends or fails."""
    while True:
        try:
            await loop()
        except Exception:
            logger.exception("loop.failed", extra={"facts": {"loop": loop.__qualname__}})
            await asyncio.sleep(_AGAIN_S)
