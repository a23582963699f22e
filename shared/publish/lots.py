"""Appends go to Redis in lots, so that a publish to many channels delays no other account.

All publishes of a process share one pipeline to Redis, which is first come, first served. So what enters it
is bounded: an account has about one lot on its way at a time, and all accounts together about two. The other
appends of an account wait in the order of arrival, and the accounts take turns. What fits goes at once: the
first small publish of an account never waits. Whatever waits has a request of an open connection, and that
request is all that it holds: its appends are made when they are sent.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

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


class Sendable(Protocol):
    """What is sent in lots: a round of a publish."""

    line: "Line"
    cost: int
    """At least the sum of the costs of its lots."""
    lot_cost: int
    """The cost of the lot that was sent last."""
    is_sent: bool
    error: Exception | None

    def send_lot(self, on_lot: Callable[["Sendable"], None]) -> None:
        """Sends a lot, and calls back in a later turn of the event loop, when it has all of its replies.

        The cost of one that is not the last is over LOT_COST. Never raises: an error ends it.
        """

    def end(self) -> None:
        """Its last lot has its replies, or it has failed."""

    def fail(self, error: Exception) -> None:
        """Ends it before anything, or anything more, of it is sent."""


@dataclass(slots=True, eq=False)
class Line:
    """What one account has on its way, and what waits behind it, in the order of arrival.

    `takes_turns`: it is among those whose turn comes.
    """

    cost: int = 0
    waiting: deque[Sendable] = field(default_factory=deque)
    takes_turns: bool = False


class Lots:
    """The lots of one process. Each call comes from one event loop."""

    def __init__(self) -> None:
        self._cost = 0
        self._turns: deque[Line] = deque()

    def send(self, sending: Sendable) -> None:
        """Sends it now, or when the turn of its account comes."""
        line = sending.line
        if self._cost < _ON_THE_WAY:
            fits = line.cost + sending.cost <= LOT_COST
        else:
            fits = not line.cost and sending.cost <= _SMALL
        if fits and not line.waiting:
            self._send_lot(sending)
            return
        line.waiting.append(sending)
        self._queue(line)
        self._go_on(_ON_THE_WAY)

    def _send_lot(self, sending: Sendable) -> None:
        sending.send_lot(self._on_lot)
        sending.line.cost += sending.lot_cost
        self._cost += sending.lot_cost

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
            while line.waiting and line.cost < LOT_COST:
                self._send_lot(line.waiting[0])
                if line.waiting[0].is_sent:
                    line.waiting.popleft()

    def _on_lot(self, sending: Sendable) -> None:
        line, limit = sending.line, float(_ON_THE_WAY)
        line.cost -= sending.lot_cost
        self._cost -= sending.lot_cost
        if sending.error is not None:
            if line.waiting and line.waiting[0] is sending:
                line.waiting.popleft()
            if isinstance(sending.error, StoreUnavailable):
                # Each lot that waits would wait for a timeout of its own. So what waits in this account fails
                # too, and the others get their next lot on its way together.
                limit = float("inf")
                waiting, line.waiting = line.waiting, deque()
                for each in waiting:
                    each.fail(sending.error)
        if sending.is_sent:
            sending.end()
        if line.waiting:
            self._queue(line)
        if self._turns:
            self._go_on(limit)
