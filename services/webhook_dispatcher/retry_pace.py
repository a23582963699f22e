"""The times of retries, spread for an account: its thousand retries must not come due in the same second.

Retry jobs run in the order of their times, at a few hundred a second. Without the spread a retry of another
account would wait for all that came due before it.
"""

_PER_SECOND = 50
# Beyond it retries are no longer spread: so many failing webhooks of one account, 30,000, are its own delay.
_SPREAD_S = 600


class RetryPace:
    """At most 50 retries of an account in one second. Keeps counts of seconds to come only."""

    def __init__(self) -> None:
        self._counts: dict[int, dict[str, int]] = {}

    def plan(self, account: str, *, now_ms: int, earliest_ms: int) -> int:
        """The time of the retry, in ms: `earliest_ms`, or a later second that is not full."""
        for past in [second for second in self._counts if second < now_ms // 1000]:
            del self._counts[past]
        first = earliest_ms // 1000
        for second in range(first, first + _SPREAD_S):
            counts = self._counts.setdefault(second, {})
            if counts.get(account, 0) < _PER_SECOND:
                break
        counts[account] = counts.get(account, 0) + 1
        return max(earliest_ms, second * 1000)
