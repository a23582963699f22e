"""Whether the reason of a failure is worth a line in the log: a new one is, and an old one after a while."""

import time

# For an operator who reads only the end of a log.
_AGAIN_S = 30.0
_MOST_REASONS = 16
_MOST_CHARACTERS = 300


class Reminders:
    """The reasons of one thing that is tried again and again."""

    def __init__(self) -> None:
        self._logged_s: dict[str, float] = {}

    def is_due(self, why: str) -> bool:
        """`why` begins with the class of the error. The same words come with one or another, by chance."""
        words = why.partition(": ")[2] or why
        now_s = time.monotonic()
        if now_s - self._logged_s.get(words, -_AGAIN_S) < _AGAIN_S:
            return False
        if len(self._logged_s) >= _MOST_REASONS:
            self._logged_s.clear()
        self._logged_s[words] = now_s
        return True

    def forget(self) -> None:
        """It worked: the next failure is new, whatever its reason."""
        self._logged_s.clear()


def shortened(text: str) -> str:
    """One line of at most 300 characters: a Redis in protected mode explains itself at length."""
    line = " ".join(text.split())
    return line if len(line) <= _MOST_CHARACTERS else line[: _MOST_CHARACTERS - 1] + "…"
