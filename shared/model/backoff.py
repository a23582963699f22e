"""The delay before a failed webhook delivery is retried (docs/protocols/callbacks.md)."""

LONGEST_S = 120


def backoff_s(failed_attempts: int) -> int:
    """Seconds from the end of the last failed attempt to the next: 1, 2, 4 … 120, then always 120."""
    return min(1 << min(failed_attempts - 1, 10), LONGEST_S)
