"""Due times: whatever order of steps and crashes, a channel has one, and it is not too late."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from shared.model.channels import Kind
from shared.store.channels import Channels
from shared.store.due_channels import DueChannel
from tests.store.stores import Stores

PULL_EXPIRY_MS = 600_000
DAY_MS = 24 * 3600 * 1000
# Looks for the channel, makes it due, creates it, makes it due again.
STEPS = 4


class Stepwise:
    """Passes calls to Redis on, one at each `step`. A crash leaves the rest."""

    def __init__(self, calls: Any) -> None:
        self._calls = calls
        self._waiting = asyncio.Queue[tuple[Callable[[], Awaitable[Any]], asyncio.Future[Any]]]()

    def command(self, *arguments: Any) -> asyncio.Future[Any]:
        return self._wait(lambda: self._calls.command(*arguments))

    def script(self, *arguments: Any) -> asyncio.Future[Any]:
        return self._wait(lambda: self._calls.script(*arguments))

    def _wait(self, call: Callable[[], Awaitable[Any]]) -> asyncio.Future[Any]:
        reply = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait((call, reply))
        return reply

    async def step(self) -> None:
        call, reply = await self._waiting.get()
        reply.set_result(await call())


class Visit:
    """A reaper's visit, in three steps that others come between."""

    def __init__(self, stores: Stores, channel: str) -> None:
        self._stores = stores
        self._channel = channel
        self._due: DueChannel | None = None
        self._next_ms: float | None = None

    async def read(self) -> None:
        now_ms = self._stores.now_ms()
        due = await self._stores.due_channels.due(now_ms=now_ms, count=10)
        self._due = next((each for each in due if each.id == self._channel), None)

    async def look(self) -> None:
        times = await self._stores.channels.times(self._channel)
        # A lower bound, as the reaper computes it.
        expiry_ms = DAY_MS if times and times.kind is Kind.WEBSOCKET else PULL_EXPIRY_MS
        self._next_ms = None if times is None else times.idle_since_ms + expiry_ms

    async def plan(self) -> None:
        if self._due is not None:
            now_ms = self._stores.now_ms()
            await self._stores.due_channels.plan([(self._due, self._next_ms)], now_ms=now_ms)


async def nothing(stores: Stores, channel: str) -> None:
    """The API key has never had a channel."""


async def deleted(stores: Stores, channel: str) -> None:
    """A channel of the API key was deleted a moment ago."""
    await stores.make_channel(channel)
    await stores.delete_channel(channel)


async def looked_for(stores: Stores, channel: str) -> None:
    """A visit has found no channel, a while ago: the next one removes the due time."""
    await deleted(stores, channel)
    visit = Visit(stores, channel)
    for step in (visit.read, visit.look, visit.plan):
        await step()
    stores.age(channel, by_ms=60_000)


async def deleted_unnoticed(stores: Stores, channel: str) -> None:
    """The process that deleted it died before it made the channel due: it is due in a day."""
    await stores.make_channel(channel)
    await stores.due_channels.plan(
        [(DueChannel(channel, f"{stores.due_ms(channel):.0f}".encode()), stores.now_ms() + DAY_MS)],
        now_ms=stores.now_ms(),
    )
    stores.direct.delete(f"{{{channel}}}:channel")


def orders() -> Iterator[tuple[int, ...]]:
    """How many steps of the creation are done: before each of the visit's steps, and when it ends."""
    return itertools.combinations_with_replacement(range(STEPS + 1), 4)


@pytest.mark.parametrize("before", [nothing, deleted, looked_for, deleted_unnoticed])
async def test_no_order_of_creation_visit_and_crash_leaves_a_channel_without_a_due_time(
    stores: Stores, before: Callable[[Stores, str], Awaitable[None]]
) -> None:
    for order in orders():
        channel = (await stores.api_key())[0].id
        await before(stores, channel)
        await _create_and_visit(stores, channel, order)

        exists = await stores.channels.times(channel) is not None
        due_ms = stores.due_ms(channel)
        if exists:
            assert due_ms is not None, (before.__doc__, order)
            assert due_ms <= stores.now_ms() + PULL_EXPIRY_MS, (before.__doc__, order)
        assert exists == (order[-1] >= 3), order


async def _create_and_visit(stores: Stores, channel: str, order: tuple[int, ...]) -> None:
    calls: Any = Stepwise(stores.calls)
    channels = Channels(calls, stores.routing, stores.wakeups)
    creation = asyncio.create_task(channels.create(stores.account_id, channel, kind=Kind.PULL))
    visit, done = Visit(stores, channel), 0
    for until, step in zip(order, (visit.read, visit.look, visit.plan, None), strict=True):
        while done < until:
            await calls.step()
            done += 1
        if step is not None:
            await step()
    creation.cancel()
    await asyncio.wait([creation])


async def test_an_existing_channel_costs_no_due_time(stores: Stores) -> None:
    """Each long poll asks for its channel."""
    channel = await stores.channel()
    stores.direct.config_resetstat()

    await stores.make_channel(channel)

    counts = stores.direct.info("commandstats")
    assert {name for name in counts if "cmdstat_z" in name} == set()


async def test_all_channels_are_brought_forward_in_lots(stores: Stores) -> None:
    ids = [f"{n:032x}" for n in range(2000)]
    later_ms = stores.now_ms() + DAY_MS
    await stores.due_channels.add_missing(ids)
    due = [DueChannel(each, b"0") for each in ids]
    await stores.due_channels.plan([(each, later_ms) for each in due], now_ms=0)
    assert await stores.due_channels.due(now_ms=later_ms - 1, count=1) == []
    kept = 0

    async def keep() -> None:
        nonlocal kept
        kept += 1

    await stores.due_channels.bring_all_forward(keep)

    assert len(await stores.due_channels.due(now_ms=stores.now_ms(), count=2000)) == 2000
    assert kept >= 2000 / 512, "no script touches more than 512 of them"
