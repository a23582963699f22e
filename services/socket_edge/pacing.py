"""Many things to do, spread evenly over a time."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from typing import TypeVar

T = TypeVar("T")

# What is late is made up for at once, but no more of it: after a pause of ours all would go together.
MOST_LATE_S = 0.25


async def paced(items: Sequence[T], *, over_s: float) -> AsyncIterator[T]:
    """Each of them once, in no order, the last when the time is over; all at once if there is none."""
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    shuffled = random.sample(items, len(items))
    for count, item in enumerate(shuffled, start=1):
        wait_s = began_s + over_s * count / len(shuffled) - loop.time()
        if wait_s > 0:
            await asyncio.sleep(wait_s)
        began_s += max(0.0, -wait_s - MOST_LATE_S)
        yield item
