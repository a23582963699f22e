"""A client that is measured while others attack: what the attack costs other clients."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from tests.harness.api import Api
from tests.harness.events import reading
from tests.harness.sockets import Receiver

INTERVAL_S = 1 / 50
NOISE_S = 0.25
"""What a slow machine with other work may add by itself."""
MOST_S = 0.5


@dataclass(frozen=True)
class Latencies:
    """From a publish request to the receiver's frame."""

    p50_s: float
    p99_s: float

    def __str__(self) -> str:
        return f"p50 {self.p50_s * 1000:.0f} ms, p99 {self.p99_s * 1000:.0f} ms"


class Neighbour:
    """A client that receives 50 notifications a second on the edge at `url`."""

    def __init__(self, api: Api, url: str) -> None:
        self._api, self._url = api, url

    async def latencies(self, seconds: float) -> Latencies:
        """Publishes and receives for so long, over a socket of its own."""
        key = await self._api.api_key()
        await self._api.register(key)
        receiver = await Receiver.open(self._url, key)
        count, sent_at, publishing = int(seconds / INTERVAL_S), list[float](), []
        begun = time.monotonic()
        for number in range(count):
            await asyncio.sleep(begun + number * INTERVAL_S - time.monotonic())
            sent_at.append(time.monotonic())
            publishing.append(asyncio.create_task(self._api.publish(key, reading(number, to=key.id))))
        await asyncio.gather(*publishing)
        await receiver.received(count)
        await receiver.drop()
        arrived = dict(zip(receiver.numbers, receiver.arrived_at, strict=True))
        took = sorted(arrived[number] - sent_at[number] for number in range(count))
        return Latencies(took[count // 2], took[int(count * 0.99)])


def assert_isolated(alone: Latencies, attacked: Latencies) -> None:
    """At most three times the p99 alone, and never over half a second."""
    assert attacked.p99_s <= max(NOISE_S, min(3 * alone.p99_s, MOST_S)), f"{attacked}; alone {alone}"


@contextlib.asynccontextmanager
async def again_and_again(count: int, attack: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """So many tasks that repeat the attack."""
    is_over = False

    async def repeat() -> None:
        # Python 3.11's wait_for may swallow a cancellation.
        while not is_over:
            with contextlib.suppress(EOFError, OSError, AssertionError):
                await attack()

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(repeat()) for _ in range(count)]
        yield
        is_over = True
        for task in tasks:
            task.cancel()
