"""When a webhook is tried again."""

from shared.model.backoff import backoff_s


def test_the_delay_doubles_up_to_two_minutes() -> None:
    delays = [backoff_s(failed) for failed in range(1, 12)]

    assert delays == [1, 2, 4, 8, 16, 32, 64, 120, 120, 120, 120]


def test_it_stays_there_for_ever() -> None:
    assert backoff_s(100_000) == 120
