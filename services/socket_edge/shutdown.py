"""How an edge closes what it holds when its replica stops."""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Sequence
from typing import TypeVar

from services.socket_edge.registry import Registry
from shared.model.channels import CloseReason

logger = logging.getLogger(__name__)

T = TypeVar("T")

# How long a socket may take to acknowledge what it was sent before it is closed.
DRAIN_ACKS_S = 1.0
# Together with the time for requests in progress this stays under ten seconds, whatever Redis does.
CLOSE_S = 3.0
ABORT_S = 1.0
# A late close is caught up at once up to this delay: after a long pause all would close together.
MOST_LATE_S = 0.25


async def close_all(registry: Registry, *, over_s: float) -> None:
    """Closes every connection and waits until all have released their leases, but not for long.

    Sockets close at an even pace, each when it has acknowledged what it was sent, or all clients would
    reconnect elsewhere in the same moment. Polls are answered at once: their clients poll again anyway.
    """
    connections = registry.all()
    for connection in connections:
        if not connection.closes_at_a_pace:
            await connection.close(CloseReason.STOPPING)
    sockets = [connection for connection in connections if connection.closes_at_a_pace]
    draining = [
        asyncio.create_task(socket.drain(within_s=DRAIN_ACKS_S))
        async for socket in paced(sockets, over_s=over_s)
        if socket.is_held
    ]
    await asyncio.gather(*draining)
    # Connections whose handshake was in progress when the shutdown began.
    for connection in registry.all():
        await connection.close(CloseReason.STOPPING)
    if not await registry.wait_empty(CLOSE_S):
        logger.warning("shutdown.cut-short", extra={"facts": {"held": len(registry)}})
        for connection in registry.all():
            await connection.abort()
        await registry.wait_empty(ABORT_S)


async def paced(items: Sequence[T], *, over_s: float) -> AsyncIterator[T]:
    """Each item once, in random order, the last when the time is over; without a time all at once."""
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    shuffled = random.sample(items, len(items))
    for count, item in enumerate(shuffled, start=1):
        wait_s = began_s + over_s * count / len(shuffled) - loop.time()
        if wait_s > 0:
            await asyncio.sleep(wait_s)
        began_s += max(0.0, -wait_s - MOST_LATE_S)
        yield item
