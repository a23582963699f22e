"""Whether the reason of a failure is worth a line in the log: a new one is, and an old one after a while."""

import time

# For whoever reads only the end of a log.
_AGAIN_S = 30.0
_MOST_CHARACTERS = 300


class Reminders:
    """The reasons of one thing that is tried again and again."""

    def __init__(self) -> None:
        self._why = ""
        self._told_s = 0.0

    def is_due(self, why: str) -> bool:
        now_s = time.monotonic()
        if why == self._why and now_s - self._told_s < _AGAIN_S:
            return False
        self._why, self._told_s = why, now_s
        return True

    def forget(self) -> None:
        """It worked: the next failure is new, whatever its reason."""
        self._why = ""


def shortened(text: str) -> str:
    """One line of at most 300 characters: a Redis in protected mode explains itself at length."""
    line = " ".join(text.split())
    return line if len(line) <= _MOST_CHARACTERS else line[: _MOST_CHARACTERS - 1] + "…"
