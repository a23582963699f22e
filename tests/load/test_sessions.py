"""What a session lacks is lost, or only missed: it depends on what else its socket got."""

import pytest

from tests.load.sessions import SessionCount, Spans

END = None
"""The socket closes, and another one opens."""


@pytest.mark.parametrize(
    ("takes", "received", "lost", "missed"),
    [
        ([0, 1, 2, 3], 4, 0, 0),
        ([0, 1], 2, 2, 0),
        ([0, 1, 3], 3, 1, 0),
        ([1, 2, 3], 3, 0, 1),
        ([], 0, 0, 4),
        ([0, 1, END, 2, 3], 4, 0, 0),
        ([0, END, 2, 3], 3, 0, 1),
        ([0, END, 1, 3], 3, 1, 0),
        ([0, 2, END, 3], 3, 1, 0),
        ([0, 1, END], 2, 0, 2),
        ([0, 1, END, 3], 3, 0, 1),
        ([0, 2, END], 2, 1, 1),
    ],
)
def test_a_gap_within_a_span_is_lost_and_one_between_spans_is_missed(
    takes: list[int | None], received: int, lost: int, missed: int
) -> None:
    spans = Spans()
    for number in takes:
        if number is END:
            spans.end(7)
        else:
            spans.take(7, 0, number)
    assert spans.count({(7, 0): 4}) == SessionCount(4, received, lost, missed)


def test_an_open_socket_is_waited_for_until_it_has_the_last_number() -> None:
    spans = Spans()
    spans.take(7, 0, 0)
    assert not spans.is_complete({(7, 0): 2})
    spans.take(7, 0, 1)
    assert spans.is_complete({(7, 0): 2})
    spans.take(7, 1, 0)
    assert not spans.is_complete({(7, 0): 2, (7, 1): 2})
    spans.end(7)
    assert spans.is_complete({(7, 0): 2, (7, 1): 2})
