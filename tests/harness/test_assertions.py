"""What the stories lean on must itself be able to fail."""

import pytest

from tests.harness.events import number_of, reading
from tests.harness.sockets import assert_consecutive, assert_in_order, assert_nothing_lost
from tests.harness.waiting import wait_until


def test_a_missing_number_is_noticed() -> None:
    assert_nothing_lost(range(4), [3, 0, 1, 2, 2])
    with pytest.raises(AssertionError, match="lost 1,"):
        assert_nothing_lost(range(4), [0, 1, 3])


def test_an_order_that_is_wrong_is_noticed_and_a_repetition_is_none() -> None:
    assert_in_order([0, 1, 2, 1, 2, 3])
    with pytest.raises(AssertionError, match="out of order in 1"):
        assert_in_order([0, 2, 1, 3])


@pytest.mark.parametrize("received", [[0, 2], [0, 1, 1], [1, 0]])
def test_a_gap_and_a_repetition_are_noticed(received: list[int]) -> None:
    assert_consecutive([7, 8, 9])
    with pytest.raises(AssertionError):
        assert_consecutive(received)


def test_a_reading_carries_its_number_however_long_it_is() -> None:
    for padding in (0, 1, 1000):
        assert number_of(reading(17, padding=padding)["data"]) == 17


async def test_waiting_has_an_end_and_says_what_for() -> None:
    with pytest.raises(AssertionError, match="the moon"):
        await wait_until(lambda: False, within_s=0.01, what="the moon")
