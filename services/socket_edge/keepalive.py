"""Which sockets to ping, and which did not answer in time: two lines to stand in, instead of timers.

All sockets wait equally long, so each line is in order of time by itself.
"""

from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Keepalive(Generic[T]):
    """Sockets that rest until their next ping is due, and sockets that owe a pong."""

    def __init__(self, *, interval_s: float, timeout_s: float) -> None:
        self._interval_s = interval_s
        self._timeout_s = timeout_s
        self._resting: dict[T, float] = {}
        self._owing: dict[T, float] = {}

    def rests(self, socket: T, *, now_s: float) -> None:
        """It was heard of; ping it when it has been quiet for the interval."""
        self._owing.pop(socket, None)
        self._resting.pop(socket, None)
        self._resting[socket] = now_s + self._interval_s

    def owes(self, socket: T, *, now_s: float) -> None:
        """It was pinged; its pong is due within the time-out."""
        self._resting.pop(socket, None)
        self._owing.pop(socket, None)
        self._owing[socket] = now_s + self._timeout_s

    def forget(self, socket: T) -> None:
        self._owing.pop(socket, None)
        self._resting.pop(socket, None)

    def to_ping(self, *, now_s: float) -> list[T]:
        return list(_due(self._resting, now_s))

    def overdue(self, *, now_s: float) -> list[T]:
        return list(_due(self._owing, now_s))


def _due(line: dict[T, float], now_s: float) -> Iterator[T]:
    for socket, due_s in line.items():
        if due_s > now_s:
            return
        yield socket
