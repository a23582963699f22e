"""Replays: retained events since a time, queued for one channel once more."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

RESEND, REPLAY = "resend", "replay"
"""How notifications that are queued once more are marked."""
USUAL_PER_S = 100
MOST_PER_S = 1000


class ReplayState(StrEnum):
    RUNNING = "running"
    DONE = "done"
    CANCELLED = "cancelled"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class NewReplay:
    """Of events that were published from `since_ms` on and before `until_ms`, on topics of these patterns.

    `total`: it passes no more than so many.
    """

    id: str
    channel: str
    account_id: str
    since_ms: int
    until_ms: int
    topics: Sequence[str]
    per_s: int
    total: int
    created_ms: int


@dataclass(frozen=True, slots=True)
class Replay:
    """A replay as it is now: it has `passed` so many events up to its `cursor`, and queued `done` of them.

    `waits`: the queue of the channel is too full.
    """

    new: NewReplay
    state: ReplayState
    cursor: str
    passed: int
    done: int
    waits: bool
    error: str
    ended_ms: int | None


def before_all(since_ms: int) -> str:
    """The cursor of a replay that has passed nothing."""
    return f"{since_ms - 1}-{2**64 - 1}:"
