"""Appends go to Redis in lots, so that a publish to many channels delays no other account.

All publishes of a process share one pipeline to Redis, which is first come, first served. So what enters it
is bounded: an account has about one lot on its way at a time, and all accounts together about two. The other
appends of an account wait in the order of arrival, and the accounts take turns. What fits goes at once: the
first small publish of an account never waits. Whatever waits has a request of an open connection, and that
request is all that it holds: its appends are made when they are sent.
"""

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from shared.model.errors import StoreUnavailable

LOT_COST = 256
"""The cost of a lot: about 64 appends of one short event each. Redis takes 1 to 2 ms for it."""
# Redis works on one lot while this process makes the next one; a third would only delay others.
_ON_THE_WAY = 2 * LOT_COST
_SMALL = LOT_COST // 8


def cost_of(*, commands: int, copies: int, size_bytes: int) -> int:
    """What appends of so many notifications cost Redis, in about 5 µs: a script call as much as three copies,
    1 KiB as much as one."""
    return 3 * commands + copies + size_bytes // 1024


class Line(Protocol):
    """What one account has on its way, and what is still `unsent`, in the order of arrival.

    `takes_turns`: it is among those whose turn comes.
    """

    sent_cost: int
    unsent: deque["Sendable"]
    takes_turns: bool


class Sendable(Protocol):
    """What is sent in lots: a round of a publish."""

    line: Line
    cost: int
    """At least the sum of the costs of its lots, beside what they take of those behind it."""
    lot_cost: int
    """The cost of the lot that was sent last."""
    is_sent: bool
    error: Exception | None
    on_end: Callable[[Any], None]
    """Called with this when its last lot has its replies, or it has failed."""

    def send_lot(self, on_lot: Callable[["Sendable"], None]) -> None:
        """Sends a lot, and calls back in a later turn of the event loop, when it has all of its replies.

        The cost of one that is not the last is over LOT_COST. Never raises: an error ends it.
        """

    def fail(self, error: Exception) -> None:
        """Ends it before anything, or anything more, of it is sent."""


class Lots:
    """The lots of one process. Each call comes from one event loop."""

    def __init__(self) -> None:
        self._cost = 0
        self._turns: deque[Line] = deque()

    def send(self, sending: Sendable) -> None:
        """Sends it now, or when the turn of its account comes."""
        line = sending.line
        if self._cost < _ON_THE_WAY:
            fits = line.sent_cost + sending.cost <= LOT_COST
        else:
            fits = not line.sent_cost and sending.cost <= _SMALL
        if fits and not line.unsent:
            sending.send_lot(self._on_lot)
            line.sent_cost += sending.lot_cost
            self._cost += sending.lot_cost
            return
        line.unsent.append(sending)
        self._queue(line)
        self._go_on(_ON_THE_WAY)

    def _queue(self, line: Line) -> None:
        if not line.takes_turns:
            line.takes_turns = True
            self._turns.append(line)

    def _go_on(self, limit: float) -> None:
        """A lot for each account whose turn it is, until so much is on its way."""
        while self._turns and self._cost < limit:
            line = self._turns.popleft()
            line.takes_turns = False
            # With more than a lot on its way it comes back when that has its replies.
            while line.unsent and line.sent_cost < LOT_COST:
                first = line.unsent[0]
                first.send_lot(self._on_lot)
                line.sent_cost += first.lot_cost
                self._cost += first.lot_cost
                if first.is_sent:
                    line.unsent.popleft()

    def _on_lot(self, sending: Sendable) -> None:
        line, limit = sending.line, float(_ON_THE_WAY)
        line.sent_cost -= sending.lot_cost
        self._cost -= sending.lot_cost
        if sending.error is not None:
            if line.unsent and line.unsent[0] is sending:
                line.unsent.popleft()
            if isinstance(sending.error, StoreUnavailable):
                # Each lot that waits would wait for a timeout of its own. So what waits in this account fails
                # too, and the others get their next lot on its way together.
                limit = float("inf")
                unsent, line.unsent = line.unsent, deque()
                for each in unsent:
                    each.fail(sending.error)
        if sending.is_sent:
            sending.on_end(sending)
        if line.unsent:
            self._queue(line)
        if self._turns:
            self._go_on(limit)
