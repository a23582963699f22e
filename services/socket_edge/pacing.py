"""Many things to do, spread evenly over a time."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from typing import TypeVar

T = TypeVar("T")


async def paced(items: Sequence[T], *, over_s: float) -> AsyncIterator[T]:
    """Each of them once, in no order, the last when the time is over; all at once if there is none."""
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    shuffled = random.sample(items, len(items))
    for count, item in enumerate(shuffled, start=1):
        due_s = began_s + over_s * count / len(shuffled)
        if (wait_s := due_s - loop.time()) > 0:
            await asyncio.sleep(wait_s)
        yield item
