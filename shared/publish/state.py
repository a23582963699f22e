"""The publishes that are under way, by account."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from shared import telemetry
from shared.model.idempotency import Deadline
from shared.publish.lots import Sendable
from shared.publish.matching import Matched
from shared.publish.request import Posted

OnEnd: TypeAlias = Callable[[list[int] | Exception], None]
"""Gets for each event the number of channels and sessions it went to, or the error; `Published` if some are
retained."""


@dataclass(slots=True, eq=False)
class Account:
    """The publishes of one account: `open` have not ended, `in_flight` wait to be sent or for replies of
    Redis. `Lots` has `sent_cost`, `unsent` and `takes_turns`.

    `stale` ones have met a changed routing table, or none in memory. While `repair` runs, later ones are
    `waiting`. Each has a request of an open connection, which bounds their number.
    """

    id: str
    open: int = 0
    in_flight: int = 0
    stale: list["Publish"] = field(default_factory=list)
    waiting: deque["Publish"] = field(default_factory=deque)
    repair: asyncio.Task[None] | None = None
    idle: asyncio.Future[None] | None = None
    sent_cost: int = 0
    unsent: deque[Sendable] = field(default_factory=deque)
    takes_turns: bool = False

    @property
    def is_repairing(self) -> bool:
        return self.repair is not None


@dataclass(slots=True)
class Taken:
    """What has taken events so far, with the indexes of the events.

    A channel takes all of its events or none, unless they do not fit in one lot: then it takes lot after lot,
    and is `unfinished` until the last one. A session takes the first ones that its queue has room for: for
    each index that it was offered, whether it took it. `counts` has the number of channels for each event,
    `offsets` the place of each that its topic's stream took.
    """

    counts: list[int]
    channels: dict[str, Sequence[int]] = field(default_factory=dict)
    unfinished: set[str] = field(default_factory=set)
    sessions: dict[str, dict[int, bool]] = field(default_factory=dict)
    offsets: dict[int, str] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Publish:
    """One publish. `number` is its place in the order of arrival, `now_ms` the time of its arrival.

    `rounds` counts the round trips of its repair, `paid_copies` the notifications that it has tokens for.
    Nothing of it is written after its `deadline`.
    """

    account: Account
    posted: Posted
    on_end: OnEnd
    number: int
    now_ms: int
    started_s: float
    span: telemetry.PublishSpan | None
    taken: Taken
    deadline: Deadline | None = None
    rounds: int = 0
    paid_copies: int = 0


def counts_of(publish: Publish, matched: Matched) -> list[int]:
    """For each event the number of channels and sessions that have taken it.

    A session counts only if it matches now: what it took and no longer wants, its edge drops.
    """
    counts = list(publish.taken.counts)
    for session, indexes in matched.sessions.items():
        offered = publish.taken.sessions[session]
        for index in indexes:
            counts[index] += offered[index]
    return counts
