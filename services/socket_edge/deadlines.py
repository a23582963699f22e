"""Which sockets end at a known time: one ordered line, instead of a timer for each."""

import itertools
import math
from bisect import bisect_left, insort
from typing import Generic, TypeVar

T = TypeVar("T")


class Deadlines(Generic[T]):
    """Sockets in the order of their ends. Those that never end do not stand in it."""

    def __init__(self) -> None:
        self._line: list[tuple[float, int, T]] = []
        self._places: dict[T, tuple[float, int]] = {}
        self._numbers = itertools.count()

    def set(self, socket: T, *, until_ms: float) -> None:
        """Its end from now on, whatever it was before; infinity for never."""
        place = self._places.get(socket)
        if place is not None and place[0] == until_ms:
            return
        self.forget(socket)
        if until_ms < math.inf:
            # The number is never the same: two ends may be, and sockets have no order.
            self._places[socket] = (until_ms, number := next(self._numbers))
            insort(self._line, (until_ms, number, socket))

    def forget(self, socket: T) -> None:
        place = self._places.pop(socket, None)
        if place is not None:
            del self._line[bisect_left(self._line, place)]

    def over(self, *, now_ms: float) -> list[T]:
        """Those whose end has come; each is told once."""
        count = bisect_left(self._line, (now_ms, math.inf))
        over = [socket for _, _, socket in self._line[:count]]
        del self._line[:count]
        for socket in over:
            del self._places[socket]
        return over
