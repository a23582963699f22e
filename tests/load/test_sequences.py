"""Counting lost, duplicated, out-of-order and unknown notifications."""

import pytest

from tests.load.sequences import Count, Sequence, count_all

CHANNEL, LANE = 7, 3


def count_of(numbers: list[int], *, published: int = 4) -> Count:
    sequence = Sequence()
    for number in numbers:
        sequence.take(number)
    return count_all({(CHANNEL, LANE): published}, [((CHANNEL, LANE), sequence)])


@pytest.mark.parametrize(
    ("numbers", "lost", "duplicated", "out_of_order", "unknown", "passed"),
    [
        ([0, 1, 2, 3], 0, 0, 0, 0, True),
        ([0, 1, 3], 1, 0, 0, 0, False),
        ([0, 1, 2], 1, 0, 0, 0, False),
        ([1, 2, 3], 1, 0, 0, 0, False),
        ([], 4, 0, 0, 0, False),
        ([0, 1, 1, 2, 3], 0, 1, 0, 0, True),
        ([0, 1, 2, 0, 1, 2, 3], 0, 3, 0, 0, True),
        ([0, 2, 1, 3], 0, 0, 1, 0, False),
        ([3, 0, 1, 2], 0, 0, 3, 0, False),
        ([0, 2, 1, 1, 3], 0, 1, 1, 0, False),
        ([0, 1, 2, 3, 4], 0, 0, 0, 1, False),
        ([0, 1, 2, 3, 9], 0, 0, 0, 1, False),
        ([0, 1, 9], 2, 0, 0, 1, False),
    ],
)
def test_counts_by_received_numbers(
    numbers: list[int], lost: int, duplicated: int, out_of_order: int, unknown: int, passed: bool
) -> None:
    count = count_of(numbers)
    assert (count.lost, count.duplicated, count.out_of_order, count.unknown, count.passed) == (
        lost,
        duplicated,
        out_of_order,
        unknown,
        passed,
    )
    assert count.received == 4 - lost


def test_lanes_and_channels_have_no_order_between_them() -> None:
    published = {(0, 0): 2, (0, 1): 2, (1, 0): 1}
    sequences = {place: Sequence() for place in published}
    for place, number in [((0, 1), 0), ((1, 0), 0), ((0, 0), 0), ((0, 1), 1), ((0, 0), 1)]:
        sequences[place].take(number)
    assert count_all(published, sequences.items()) == Count(published=5, received=5)


def test_a_channel_without_receipts_and_one_without_publishes() -> None:
    stray = Sequence()
    stray.take(0)
    count = count_all({(0, 0): 3}, [((1, 0), stray)])
    assert (count.lost, count.unknown, count.passed) == (3, 1, False)


def test_the_sum_of_two_counts() -> None:
    assert count_of([0, 1, 3]) + Count(published=2, received=2, duplicated=1) == Count(
        published=6, received=5, lost=1, duplicated=1
    )


def test_the_difference_of_two_counts() -> None:
    before = count_of([0, 1, 3])
    assert count_of([0, 1, 3, 4, 4], published=5).since(before) == Count(
        published=1, received=1, duplicated=1
    )
