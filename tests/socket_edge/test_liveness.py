"""Connections are checked when the earliest of their deadlines has come."""

import asyncio
import itertools
import math
from collections.abc import Awaitable, Callable
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from services.socket_edge.edge import Edge
from services.socket_edge.held import HeldConnection
from services.socket_edge.liveness import Liveness
from shared.model.channels import CloseReason

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("moves"), st.integers(0, 5), st.sampled_from([1.0, 2.0, 3.0, 4.0, 0.0, math.inf])),
        st.tuples(st.just("leaves"), st.integers(0, 5), st.just(0.0)),
        st.tuples(st.just("pass"), st.just(0), st.sampled_from([0.5, 1.0, 2.5])),
    )
)
# Due dates are whole seconds, ticks a quarter of one: a check comes one tick late at most.
TICK_S = 0.25


class Connection(HeldConnection):
    """Notes when it was checked; its next deadline is what the test says."""

    kind = "fake"
    due_s = math.inf

    def __init__(self, id: str = "one", *, fails: bool = False) -> None:
        super().__init__(cast(Edge, None), id)
        self.is_held = True
        self.checked: list[float] = []
        self.closed: list[CloseReason] = []
        self._fails = fails

    async def close(self, reason: CloseReason) -> None:
        self.closed.append(reason)

    async def abort(self) -> None: ...

    def wake(self) -> None: ...

    async def finish(self) -> Callable[[], Awaitable[object]] | None:
        return None

    def on_removed(self) -> None: ...

    @property
    def next_check_s(self) -> float:
        return min(self.due_s, super().next_check_s)

    async def check(self, now_s: float) -> None:
        await super().check(now_s)
        if self.due_s <= now_s:
            self.checked.append(now_s)
            self.due_s = math.inf
        if self._fails:
            raise ValueError("a check that fails")


def liveness() -> Liveness:
    return Liveness(ping_interval_s=4 * TICK_S, ping_timeout_s=4 * TICK_S)


async def test_a_connection_is_checked_once_and_in_the_order_of_time() -> None:
    line = liveness()
    late, early = Connection(), Connection()
    late.due_s, early.due_s = 20, 10
    for each in (late, early):
        line.watch(each)

    await line.check_due(9.9)
    assert late.checked == early.checked == []
    await line.check_due(10.25)
    await line.check_due(19)
    assert (early.checked, late.checked) == ([10.25], [])
    await line.check_due(20.25)
    assert (early.checked, late.checked) == ([10.25], [20.25])


async def test_a_deadline_that_moves_to_a_later_time_is_found_at_the_earlier_one() -> None:
    line, moving = liveness(), Connection()
    moving.due_s = 10
    line.watch(moving)
    moving.due_s = 20

    await line.check_due(10.25)
    assert moving.checked == []
    await line.check_due(20.25)
    assert moving.checked == [20.25]


async def test_a_check_that_fails_keeps_no_other_from_being_checked() -> None:
    line = liveness()
    broken, healthy = Connection(fails=True), Connection()
    broken.due_s = healthy.due_s = 10
    for each in (broken, healthy):
        line.watch(each)

    await line.check_due(10.25)

    assert healthy.checked == [10.25]


async def test_a_credential_that_expires_closes_its_connection_once() -> None:
    line, connection = liveness(), Connection()
    line.watch(connection)
    connection.expires_at_ms = 1
    line.watch(connection)

    now_s = asyncio.get_running_loop().time()
    for ahead_s in (TICK_S, 10, 20):
        await line.check_due(now_s + ahead_s)

    assert connection.closed == [CloseReason.KEY_EXPIRED]


@given(STEPS)
def test_it_does_what_a_plain_dictionary_would(steps: list[tuple[str, int, float]]) -> None:
    async def compare() -> None:
        line = liveness()
        connections = [Connection(str(number)) for number in range(6)]
        plain: dict[int, float] = {}
        now_s = 0.0
        for step, number, seconds in steps:
            connection = connections[number]
            if step == "moves":
                connection.is_held = True
                connection.due_s = plain[number] = now_s + seconds
                line.watch(connection)
            elif step == "leaves":
                line.forget(connection)
                connection.is_held = False
                plain.pop(number, None)
            else:
                now_s += seconds
                await line.check_due(now_s)
            for other, due_s in list(plain.items()):
                checked = connections[other].due_s == math.inf and due_s < math.inf
                assert not checked or due_s <= now_s
                if step == "pass":
                    assert checked or due_s > now_s - TICK_S
                if checked:
                    del plain[other]

    asyncio.run(compare())


async def test_many_checks_leave_the_event_loop_to_others() -> None:
    line = liveness()
    for _ in range(1000):
        connection = Connection()
        connection.due_s = 10
        line.watch(connection)
    turns = itertools.count()
    checking = asyncio.create_task(line.check_due(10.25))
    while not checking.done():
        next(turns)
        await asyncio.sleep(0)

    assert next(turns) > 5
