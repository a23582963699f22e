"""Sockets that end at a known time, in the order of their ends."""

import math

from hypothesis import given
from hypothesis import strategies as st

from services.socket_edge.deadlines import Deadlines

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.integers(0, 5), st.sampled_from([1.0, 2.0, 3.0, 4.0, 0.0, math.inf])),
        st.tuples(st.just("forget"), st.integers(0, 5), st.just(0.0)),
        st.tuples(st.just("over"), st.just(0), st.sampled_from([0.0, 1.0, 2.5, 4.0])),
    )
)


def test_a_socket_is_over_from_its_end_on_and_told_once() -> None:
    line: Deadlines[str] = Deadlines()
    line.set("a", until_ms=100)

    assert line.over(now_ms=99) == []
    assert line.over(now_ms=100) == ["a"]
    assert line.over(now_ms=101) == []


def test_a_new_end_takes_the_place_of_the_old() -> None:
    line: Deadlines[str] = Deadlines()
    line.set("later", until_ms=100)
    line.set("later", until_ms=200)
    line.set("sooner", until_ms=200)
    line.set("sooner", until_ms=100)
    line.set("never", until_ms=100)
    line.set("never", until_ms=math.inf)

    assert line.over(now_ms=100) == ["sooner"]
    assert line.over(now_ms=1e15) == ["later"]


def test_who_is_forgotten_is_not_told() -> None:
    line: Deadlines[str] = Deadlines()
    for socket in "abc":
        line.set(socket, until_ms=100)
    line.forget("b")
    line.forget("b")
    line.forget("nobody")

    assert line.over(now_ms=100) == ["a", "c"]


@given(STEPS)
def test_it_does_what_a_plain_dictionary_would(steps: list[tuple[str, int, float]]) -> None:
    line: Deadlines[int] = Deadlines()
    plain: dict[int, float] = {}
    for step, socket, ms in steps:
        if step == "set":
            line.set(socket, until_ms=ms)
            plain[socket] = ms
        elif step == "forget":
            line.forget(socket)
            plain.pop(socket, None)
        else:
            over = sorted((until, each) for each, until in plain.items() if until <= ms)
            found = line.over(now_ms=ms)
            assert sorted(found) == sorted(each for _, each in over)
            assert [plain[each] for each in found] == [until for until, _ in over]
            for each in found:
                del plain[each]
