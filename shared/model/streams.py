"""Streams: retained logs of topics, and the rules of an account that say which topics have one."""

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from shared.model import topics
from shared.model.bindings import Topic
from shared.model.events import OF_DEVICES, Event
from shared.model.matching import Index

NEVER_RETAINED = (topics.SYSTEM, OF_DEVICES.removesuffix(topics.DOT))
"""First words of topics that never have a stream."""
BEGINNING = "0-0"
"""The offset before every event."""
# As Redis gives entry ids, and short enough for the numbers of Lua to be exact.
_OFFSET = re.compile(r"(0|[1-9][0-9]{0,14})-(0|[1-9][0-9]{0,14})")


class Keep(NamedTuple):
    """How much of a topic is kept: its last events, and none that is older."""

    most: int
    age_ms: int

    def within(self, limit: "Keep") -> "Keep":
        if self.most <= limit.most and self.age_ms <= limit.age_ms:
            return self
        return Keep(min(self.most, limit.most), min(self.age_ms, limit.age_ms))


@dataclass(frozen=True, slots=True)
class StreamRule:
    """`patterns` of topics, and how much of each such topic is kept."""

    patterns: Sequence[str]
    keep: Keep


class StreamRules:
    """The rules of one account. The first one that matches a topic counts."""

    def __init__(self, rules: Iterable[StreamRule]) -> None:
        self.rules = tuple(rules)
        self._edition = next(_editions)
        self._index = Index(lambda _: None)
        for number, rule in enumerate(self.rules):
            for pattern in rule.patterns:
                self._index.add(Topic(pattern), str(number))

    @property
    def patterns(self) -> int:
        return sum(len(rule.patterns) for rule in self.rules)

    def keep_for(self, topic: str) -> Keep | None:
        """How much of the topic is kept; None for one without a stream."""
        which = self._edition, topic
        if which in _kept:
            return _kept[which]
        if len(_kept) >= _MOST_KEPT:
            _kept.clear()
        keep = _kept[which] = self._find(topic)
        return keep

    def _find(self, topic: str) -> Keep | None:
        if not may_be_retained(topic):
            return None
        found = self._index.owners(topic, {})
        return self.rules[min(map(int, found))].keep if found else None


# What rules say of a topic: publishers send the same ones again and again. Rules never change: others take
# their place.
_MOST_KEPT = 4096
_kept: dict[tuple[int, str], Keep | None] = {}
_editions = itertools.count()


class Published(list[int]):
    """For each event of a publish the number of channels and sessions it went to.

    `offsets` has, by index, the place that an event got in the stream of its topic.
    """

    def __init__(self, counts: Iterable[int], offsets: dict[int, str]) -> None:
        super().__init__(counts)
        self.offsets = offsets


class Retained(NamedTuple):
    """An event in the stream of its topic. Of one that was for a single channel, `event.to` is its id."""

    offset: str
    event: Event

    @property
    def published_ms(self) -> int:
        return int(self.offset.partition("-")[0])


class NotRecovered(StrEnum):
    """Why a reader cannot go on where it was."""

    TRIMMED = "trimmed"
    """More came than the rule keeps."""
    EXPIRED = "expired"
    """It became older than the rule keeps."""
    PURGED = "purged"
    """The stream was purged."""
    LOST = "lost"
    """Redis knows nothing of what the reader names: it has lost writes, or its state, or the reader errs."""


class Start(StrEnum):
    """Where a reader begins that has no mark."""

    LATEST = "latest"
    """Behind the last event."""
    EARLIEST = "earliest"
    """At the first event to be had."""


class Mark(NamedTuple):
    """Where a reader of a topic is: behind `offset` in the stream of this epoch.

    `offset` must be one (`is_offset`). The epoch is "" of a reader who found no stream; others have up to 32
    hexadecimal digits and hyphens.
    """

    epoch: str
    offset: str


@dataclass(frozen=True, slots=True)
class Resumed:
    """Where a reader goes on, and the next events there.

    `epoch` is that of the stream now, "" without one. `reason` is None when nothing is missing. `events` are
    behind `offset`, without those for one channel or one customer; `until` is the last offset that was read.
    `first` is that of the first event to be had, "" without one; `last` of the last one ever.
    """

    epoch: str
    reason: NotRecovered | None
    offset: str
    first: str
    last: str
    events: list[Retained]
    until: str

    @property
    def is_at_end(self) -> bool:
        """Whether nothing is behind `until`."""
        return self.until == self.last

    @property
    def mark(self) -> Mark:
        """Behind everything that was read."""
        return Mark(self.epoch, self.until)


@dataclass(frozen=True, slots=True)
class StreamState:
    """What is known of a stream.

    `last` is the offset of the last event ever, `trimmed` that of the last one that is gone, and `reason`
    why it is ("" both when none is). `length` and `size_bytes` count also what is too old, until the next
    event comes.
    """

    epoch: str
    first: str
    last: str
    trimmed: str
    reason: NotRecovered | None
    length: int
    size_bytes: int


def is_offset(text: str) -> bool:
    """Whether this may be the offset of an event, or `BEGINNING`."""
    return _OFFSET.fullmatch(text) is not None


def may_be_retained(topic: str) -> bool:
    return not topic.startswith(OF_DEVICES) and not topics.is_system(topic)


def rules_of(stored: Any) -> StreamRules:
    """The rules in their stored form: `[[patterns, count, age in ms], ...]`."""
    return StreamRules(StreamRule(patterns, Keep(most, age_ms)) for patterns, most, age_ms in stored)


def stored_rules(rules: Iterable[StreamRule]) -> list[Any]:
    return [[list(rule.patterns), rule.keep.most, rule.keep.age_ms] for rule in rules]
