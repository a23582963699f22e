"""The pace at which an edge lets go, on a clock that jumps where others would wait."""

import asyncio
import selectors
from collections.abc import Callable
from typing import Any

import pytest

from services.socket_edge.shutdown import MOST_LATE_S, paced

COUNT, OVER_S = 100, 10.0


class _Jumps(selectors.DefaultSelector):
    def __init__(self, loop: "JumpingLoop") -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._loop.now_s += timeout or 0
        return super().select(0)


class JumpingLoop(asyncio.SelectorEventLoop):
    """Time goes on only where somebody waits for it, or where a test says so."""

    def __init__(self) -> None:
        self.now_s = 0.0

        super().__init__(_Jumps(self))

    def time(self) -> float:
        return self.now_s


def let_go(*, over_s: float = OVER_S, after_each: Callable[[int, JumpingLoop], None]) -> list[float]:
    """When each was done."""
    loop = JumpingLoop()
    times: list[float] = []

    async def go() -> None:
        seen: set[Any] = set()
        async for item in paced(range(COUNT), over_s=over_s):
            times.append(loop.time())
            seen.add(item)
            after_each(len(times), loop)
        assert seen == set(range(COUNT))

    try:
        loop.run_until_complete(go())
    finally:
        loop.close()
    return times


def most_in_a_second(times: list[float]) -> int:
    return max(sum(at_s <= other_s < at_s + 1 for other_s in times) for at_s in times)


def nothing(count: int, loop: JumpingLoop) -> None:
    """Each is done in no time."""


def test_it_is_even() -> None:
    times = let_go(after_each=nothing)
    assert times == pytest.approx([OVER_S * n / COUNT for n in range(1, COUNT + 1)])


def test_without_a_window_all_go_at_once() -> None:
    assert set(let_go(over_s=0, after_each=nothing)) == {0.0}


def test_a_pause_is_followed_by_no_rush() -> None:
    def pause(count: int, loop: JumpingLoop) -> None:
        loop.now_s += 3 if count == 30 else 0

    times = let_go(after_each=pause)
    assert most_in_a_second(times) <= COUNT / OVER_S * (1 + MOST_LATE_S) + 1
    assert times[-1] == pytest.approx(OVER_S + 3 - MOST_LATE_S, abs=0.2), "and costs no more than itself"


def test_small_delays_do_not_add_up() -> None:
    def late(count: int, loop: JumpingLoop) -> None:
        loop.now_s += 0.09 if count % 2 else 0

    assert let_go(after_each=late)[-1] == pytest.approx(OVER_S, abs=0.1)
