"""The publishes that are under way, by account."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from shared import telemetry
from shared.publish.request import Posted

OnEnd: TypeAlias = Callable[[list[int] | Exception], None]
"""Gets for each event the number of channels and sessions it went to, or the error."""


@dataclass(slots=True, eq=False)
class Account:
    """The publishes of one account: `open` have not ended, `in_flight` wait for replies of Redis.

    `stale` ones have met a changed routing table, or none in memory. While `repair` runs, later ones are
    `waiting`.
    """

    id: str
    open: int = 0
    in_flight: int = 0
    stale: list["Publish"] = field(default_factory=list)
    waiting: list["Publish"] = field(default_factory=list)
    repair: asyncio.Task[None] | None = None
    idle: asyncio.Future[None] | None = None


@dataclass(slots=True)
class Taken:
    """What has taken events so far, with the indexes of the events.

    A channel takes all of its events or none. A session takes the first ones that its queue has room for: for
    each index that it was offered, whether it took it.
    """

    channels: dict[str, Sequence[int]] = field(default_factory=dict)
    sessions: dict[str, dict[int, bool]] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Publish:
    """One publish. `number` is its place in the order of arrival, `now_ms` the time of its arrival.

    `rounds` counts the round trips of its repair, `paid_copies` the notifications that it has tokens for.
    """

    account: Account
    posted: Posted
    on_end: OnEnd
    number: int
    now_ms: int
    started_s: float
    span: telemetry.PublishSpan | None
    taken: Taken = field(default_factory=Taken)
    rounds: int = 0
    paid_copies: int = 0
