"""The harness's assertions can fail."""

import pytest

from tests.harness.events import number_of, reading
from tests.harness.sockets import assert_consecutive, assert_in_order, assert_nothing_lost
from tests.harness.waiting import wait_until


def test_a_missing_number_fails() -> None:
    assert_nothing_lost(range(4), [3, 0, 1, 2, 2])
    with pytest.raises(AssertionError, match="lost 1,"):
        assert_nothing_lost(range(4), [0, 1, 3])


def test_a_wrong_order_fails_and_a_repetition_does_not() -> None:
    assert_in_order([0, 1, 2, 1, 2, 3])
    with pytest.raises(AssertionError, match="out of order in 1"):
        assert_in_order([0, 2, 1, 3])


@pytest.mark.parametrize("received", [[0, 2], [0, 1, 1], [1, 0]])
def test_gaps_and_repetitions_are_not_consecutive(received: list[int]) -> None:
    assert_consecutive([7, 8, 9])
    with pytest.raises(AssertionError):
        assert_consecutive(received)


def test_a_padded_reading_has_its_number() -> None:
    for padding in (0, 1, 1000):
        assert number_of(reading(17, padding=padding)["data"]) == 17


async def test_waiting_fails_after_its_limit_with_the_reason() -> None:
    with pytest.raises(AssertionError, match="the moon"):
        await wait_until(lambda: False, within_s=0.01, what="the moon")
