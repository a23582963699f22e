"""What a story found, and what is too much of it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Bounds:
    """The most that a story may cost clients; None: no bound. A lost notification always fails.

    *Sessions* are sockets without a queue: what is published around the end of one is missed, and not lost.
    """

    gap_s: float | None = 1.0
    reconnects: float | None = 1.25
    publisher_errors: int | None = 0
    """Requests that failed and whose first repetition failed too."""
    session_lost: int | None = 0
    """Notifications that a session lacks although its socket stayed open."""


# The others are about the machine, which the cluster shares with the load.
_OF_CLIENTS = re.compile(
    r"\d+ ((sockets|sessions) were closed|(connects|joins|requests) were refused|frames of sessions) "
)
ROLLOUT = Bounds()
WATCHED = Bounds(gap_s=None)
"""A roll-out whose gaps are not what the story is about: Prometheus has its share of a small machine."""
DRAIN = Bounds(reconnects=1.5)
"""An eviction adds no pod first, so half of the first edge's sockets go to the one that is next."""
CRASH = Bounds(gap_s=15.0, publisher_errors=None, session_lost=None)
"""A process or a node's link to it is gone without a warning."""
REDIS_AWAY = Bounds(gap_s=60.0, reconnects=0.0, publisher_errors=None, session_lost=None)
"""Sockets stay open meanwhile; a new poll is refused until Redis is back."""
REDIS_RESTARTS = Bounds(publisher_errors=None, session_lost=None)
"""A roll-out in which the chart's own Redis is a new pod, which publishers see for some seconds."""
PRIMARY_AWAY = Bounds(gap_s=20.0, reconnects=0.0, publisher_errors=None, session_lost=None)
"""The same for the channels of one primary, for some seconds."""


@dataclass(slots=True)
class Outcome:
    """A row of the table."""

    story: str
    seconds: float = 0.0
    figures: Mapping[str, float] = field(default_factory=dict)
    count: Mapping[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def judge(outcome: Outcome, line: Mapping[str, Any], bounds: Bounds) -> None:
    """Adds the figures of a load run's result line to the outcome, and what exceeds the bounds."""
    figures, count = line["figures"], line["count"]
    outcome.figures, outcome.count = figures, count
    if figures.get("session_published"):
        outcome.notes.append(_of_sessions(figures))
    outcome.notes += [warning for warning in line["warnings"] if _OF_CLIENTS.match(warning)]
    problems = outcome.problems
    if not count["published"]:
        problems.append("nothing was published")
    for what in ("lost", "out_of_order", "unknown"):
        if count[what]:
            problems.append(f"{count[what]} notifications were {what.replace('_', ' ')}")
    if figures["away_at_the_end"]:
        problems.append(f"{figures['away_at_the_end']:.0f} clients were not connected at the end")
    gap_ms = None if bounds.gap_s is None else bounds.gap_s * 1000
    for what, name, most in (
        ("the longest gap in ms", "gap_max_ms", gap_ms),
        ("reconnects per socket", "reconnects_per_socket", bounds.reconnects),
        ("requests that failed twice", "repeated_more_than_once", bounds.publisher_errors),
        ("the longest gap of a session in ms", "session_gap_max_ms", gap_ms),
        ("reconnects per session", "session_reconnects_per_socket", bounds.reconnects),
        ("notifications that open sessions lack", "session_lost", bounds.session_lost),
        ("sessions that were not connected at the end", "session_away_at_the_end", 0),
    ):
        if most is not None and figures.get(name, 0) > most:
            problems.append(f"{what}: {figures[name]:g}, at most {most:g} allowed")


def _of_sessions(figures: Mapping[str, float]) -> str:
    return (
        f"sessions got {figures['session_received']:,.0f} of {figures['session_published']:,.0f}, "
        f"lost {figures['session_lost']:.0f} while open, missed {figures['session_missed']:.0f} while away; "
        f"{figures['session_reconnects_per_socket']:g} reconnects each, "
        f"longest gap {figures['session_gap_max_ms'] / 1000:.2f} s"
    )


COLUMNS = (
    "story",
    "notifications",
    "lost",
    "doubled",
    "longest gap",
    "reconnects/socket",
    "failed twice",
    "s",
)


def table(outcomes: Sequence[Outcome]) -> str:
    """All outcomes, then what is wrong and what was seen besides."""
    rows: list[Sequence[str]] = [COLUMNS, *(_row(outcome) for outcome in outcomes)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    lines = [
        "  ".join(
            [f"{row[0]:<{widths[0]}}", *(f"{c:>{w}}" for c, w in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]
    for outcome in outcomes:
        lines += [f"  ✗ {outcome.story}: {problem}" for problem in outcome.problems]
    for outcome in outcomes:
        lines += [f"  ! {outcome.story}: {note}" for note in outcome.notes]
    return "\n".join(lines)


def _row(outcome: Outcome) -> Sequence[str]:
    mark = "✗ " if outcome.problems else ""
    took = f"{outcome.seconds:.0f}"
    if not outcome.count:
        return (mark + outcome.story, "", "", "", "", "", "", took)
    figures, count = outcome.figures, outcome.count
    return (
        mark + outcome.story,
        f"{count['published']:,}",
        str(count["lost"]),
        str(count["duplicated"]),
        f"{figures['gap_max_ms'] / 1000:.2f} s",
        f"{figures['reconnects_per_socket']:.2f}",
        f"{figures['repeated_more_than_once']:.0f}",
        took,
    )
