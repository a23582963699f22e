"""What the beginning of a replay may cost."""

import asyncio
from collections.abc import AsyncIterator
from typing import cast

import pytest

from services.gateway.replays import retained_count
from shared.runtime.http.responses import Problem
from shared.store.streams import Streams


class Slow:
    """Streams of three topics with two events each, which are read when `go` is set."""

    def __init__(self) -> None:
        self.go = asyncio.Event()

    async def topics(self, _: str) -> AsyncIterator[list[str]]:
        await self.go.wait()
        yield ["orders.paid", "orders.sent", "stock"]

    async def length(self, _account: str, _topic: str) -> int:
        return 2


async def test_an_accounts_events_are_counted_once_at_a_time() -> None:
    slow = Slow()
    streams = cast(Streams, slow)
    first = asyncio.create_task(retained_count(streams, "one", []))
    await asyncio.sleep(0)

    with pytest.raises(Problem, match="another replay of this account"):
        await retained_count(streams, "one", [])
    other = asyncio.create_task(retained_count(streams, "other", ["orders.*"]))
    slow.go.set()

    assert (await first, await other) == (6, 4)
    assert await retained_count(streams, "one", ["stock"]) == 2
