"""Many topics that want something at once: accounts take turns, and what hangs keeps nobody waiting."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from services.socket_edge.streams import topic_turns
from services.socket_edge.streams.topic_turns import READERS_PER_TURN, READS, Reads, Turns
from shared.model.errors import StoreUnavailable
from shared.model.streams import BEGINNING, Mark, Resumed, Start
from tests.harness.waiting import wait_until


class Under:
    """Reads that are under way, of which the test ends some."""

    def __init__(self) -> None:
        self.reads = Reads(None)  # type: ignore[arg-type]
        self.begun: list[str] = []
        self._ends: list[asyncio.Event] = []

    def begin(self, account: str, count: int) -> None:
        for _ in range(count):
            ends = asyncio.Event()
            self.reads.begin(account, lambda ends=ends: self._read(account, ends))  # type: ignore[misc]

    async def _read(self, account: str, ends: asyncio.Event) -> None:
        self.begun.append(account)
        self._ends.append(ends)
        await ends.wait()

    async def end(self, count: int) -> None:
        await wait_until(lambda: len(self._ends) >= count)
        for ends in self._ends[:count]:
            ends.set()
        del self._ends[:count]
        # So that those that follow have begun.
        for _ in range(3):
            await asyncio.sleep(0)


async def test_a_few_reads_are_under_way_at_once_and_accounts_take_turns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(topic_turns, "_SLOW_S", 3600.0)
    under = Under()
    under.begin("many", 100)
    under.begin("few", 2)
    await under.end(0)
    await wait_until(lambda: len(under.begun) == READS)
    assert under.begun == ["many"] * READS
    await under.end(4)
    assert len(under.begun) == READS + 4
    assert under.begun[READS:].count("few") == 2, "it does not wait for the other one's hundred"
    await under.reads.stop()


async def test_reads_that_hang_lose_their_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of a primary that does not respond."""
    monkeypatch.setattr(topic_turns, "_SLOW_S", 0.01)
    under = Under()
    under.begin("hangs", READS)
    under.begin("other", 1)
    await wait_until(lambda: under.begun[-1:] == ["other"])
    await under.reads.stop()


class Work:
    """A topic with so many calls to make."""

    def __init__(self, account_id: str, calls: int, made: list[str]) -> None:
        self.account_id = account_id
        self._left = calls
        self._made = made

    def work(self, most: int) -> int:
        count = min(most, self._left)
        self._left -= count
        self._made += [self.account_id] * count
        return count

    @property
    def has_work(self) -> bool:
        return self._left > 0


async def test_a_turn_makes_a_hundred_calls_and_accounts_take_turns() -> None:
    made: list[str] = []
    turns = Turns()
    turns.add(Work("many", 1000, made))
    turns.add(Work("few", 3, made))
    for _ in range(4):
        turns.add(Work("many", 50, made))
    in_turns: list[int] = []
    while len(made) < 1203:
        before = len(made)
        await asyncio.sleep(0)
        in_turns.append(len(made) - before)
    assert max(in_turns) <= READERS_PER_TURN
    assert made.index("few") <= READERS_PER_TURN, "in the second turn at the latest"


class Streams:
    """Answers each read as the test says."""

    def __init__(self, answer: Callable[[], Resumed]) -> None:
        self._answer = answer

    async def resume(self, *_: Any, **__: Any) -> Resumed:
        return self._answer()


def unavailable() -> Resumed:
    raise StoreUnavailable(why="the test says so")


def bug() -> Resumed:
    raise ValueError("a bug")


def nothing_behind() -> Resumed:
    return Resumed("1", None, "1-0", "1-0", "2-0", [], "1-0")


@pytest.mark.parametrize(
    ("answer", "logs"),
    [(unavailable, []), (bug, ["stream.read-failed"]), (nothing_behind, ["stream.read-failed"])],
)
async def test_a_read_that_fails_is_no_page(
    answer: Callable[[], Resumed], logs: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """The feed asks again after a while; a page that leads nowhere would be read for ever."""
    reads = Reads(Streams(answer))
    for since in (Start.LATEST, Mark("1", BEGINNING)):
        assert await reads.page("a", "t", since) is None
    assert caplog.messages == logs * 2
