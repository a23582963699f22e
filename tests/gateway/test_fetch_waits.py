"""Waiting fetches of one gateway: bounded, and one read for all of a channel."""

import asyncio
from collections import Counter
from contextlib import ExitStack

import pytest

from services.gateway.fetch_waits import MOST_OF_ACCOUNT, FetchWaits
from shared.model.errors import StoreUnavailable
from shared.runtime.http.responses import Problem
from tests.harness.waiting import wait_until


class Queues:
    """Lengths of queues; counts the reads. `once`: the next read finds something in these."""

    def __init__(self) -> None:
        self.lengths: dict[str, int] = {}
        self.reads = Counter[str]()
        self.once: set[str] = set()
        self.is_away = False

    async def pending(self, channel: str) -> int:
        self.reads[channel] += 1
        if self.is_away:
            raise StoreUnavailable(why="away")
        if channel in self.once:
            self.once.remove(channel)
            return 1
        return self.lengths.get(channel, 0)


@pytest.fixture
def queues() -> Queues:
    return Queues()


@pytest.fixture
def waits(queues: Queues) -> FetchWaits:
    return FetchWaits(queues.pending, most=3 * MOST_OF_ACCOUNT, look_s=0.01)


def start(waits: FetchWaits, channel: str, count: int = 1) -> list[asyncio.Task[None]]:
    gone = asyncio.get_running_loop().create_future()
    wait = (waits.wait(channel, within_s=60, gone=gone) for _ in range(count))
    return [asyncio.create_task(each) for each in wait]


async def test_a_queue_wakes_one_fetch_in_each_round(queues: Queues, waits: FetchWaits) -> None:
    tasks, others = start(waits, "a", 3), start(waits, "b")
    await wait_until(lambda: queues.reads["a"] > 3)
    assert abs(queues.reads["a"] - queues.reads["b"]) <= 1, "one read for all that wait for a channel"
    assert not any(task.done() for task in tasks)

    for number, woken in enumerate(tasks[:2]):
        queues.once.add("a")
        await woken
        reads = queues.reads["a"]
        await wait_until(lambda: queues.reads["a"] > reads + 2)  # noqa: B023
        assert [task.done() for task in tasks] == [each <= number for each in range(len(tasks))]
    assert not others[0].done()
    await waits.end()
    await asyncio.gather(*tasks, *others)


async def test_nothing_is_read_without_a_waiting_fetch(queues: Queues, waits: FetchWaits) -> None:
    gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    await waits.wait("a", within_s=0.001, gone=gone)
    await wait_until(lambda: waits._looking is None)
    reads = queues.reads["a"]
    await waits.wait("b", within_s=0.05, gone=gone)
    assert queues.reads["a"] == reads
    assert waits._waiting == {}


async def test_a_redis_that_is_away_ends_the_waits(queues: Queues, waits: FetchWaits) -> None:
    tasks = start(waits, "a", 2)
    queues.is_away = True
    for task in tasks:
        with pytest.raises(StoreUnavailable):
            await task
    queues.is_away = False
    [again] = start(waits, "a")
    queues.lengths["a"] = 1
    await again


async def test_the_end_of_a_client_and_of_the_gateway(waits: FetchWaits) -> None:
    gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    both = [
        asyncio.create_task(waits.wait("a", within_s=60, gone=gone)),
        asyncio.create_task(waits.pause(within_s=60, gone=gone)),
    ]
    gone.set_result(None)
    await asyncio.gather(*both)

    tasks = start(waits, "a", 2)
    await waits.end()
    await asyncio.gather(*tasks)
    assert waits.is_stopping
    await asyncio.gather(*start(waits, "a"))


def test_places(waits: FetchWaits) -> None:
    with ExitStack() as held:
        for account in ("a", "b", "c"):
            for _ in range(MOST_OF_ACCOUNT):
                held.enter_context(waits.place(account))
            if account != "c":
                with pytest.raises(Problem) as problem, waits.place(account):
                    pass
                assert problem.value.status_code == 429
        with pytest.raises(Problem) as problem, waits.place("d"):
            pass
        assert problem.value.status_code == 503
    with waits.place("a"), waits.place("d"):
        assert waits._places == {"a": 1, "d": 1}
    assert waits._places == {}
