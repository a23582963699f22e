"""The delay before a webhook delivery is retried."""

from shared.model.backoff import backoff_s


def test_delay_doubles_up_to_two_minutes() -> None:
    delays = [backoff_s(failed) for failed in range(1, 12)]

    assert delays == [1, 2, 4, 8, 16, 32, 64, 120, 120, 120, 120]


def test_delay_stays_at_two_minutes() -> None:
    assert backoff_s(100_000) == 120
