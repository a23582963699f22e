"""Streams: retained logs of topics, and the rules of an account that say which topics have one."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from shared.model import topics
from shared.model.bindings import Topic
from shared.model.events import OF_DEVICES, Event
from shared.model.matching import Index

NEVER_RETAINED = (topics.SYSTEM, OF_DEVICES.removesuffix(topics.DOT))
"""First words of topics that never have a stream."""


class Keep(NamedTuple):
    """How much of a topic is kept: its last events, and none that is older."""

    most: int
    age_ms: int

    def within(self, limit: "Keep") -> "Keep":
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
        self._index = Index(lambda _: None)
        for number, rule in enumerate(self.rules):
            for pattern in rule.patterns:
                self._index.add(Topic(pattern), str(number))

    @property
    def patterns(self) -> int:
        return sum(len(rule.patterns) for rule in self.rules)

    def keep_for(self, topic: str) -> Keep | None:
        """How much of the topic is kept; None for one without a stream."""
        if not may_be_retained(topic):
            return None
        found = self._index.owners(topic, {})
        return self.rules[min(map(int, found))].keep if found else None


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


def may_be_retained(topic: str) -> bool:
    return not topic.startswith(OF_DEVICES) and not topics.is_system(topic)


def rules_of(stored: Any) -> StreamRules:
    """The rules in their stored form: `[[patterns, count, age in ms], ...]`."""
    return StreamRules(StreamRule(patterns, Keep(most, age_ms)) for patterns, most, age_ms in stored)


def stored_rules(rules: Iterable[StreamRule]) -> list[Any]:
    return [[list(rule.patterns), rule.keep.most, rule.keep.age_ms] for rule in rules]
