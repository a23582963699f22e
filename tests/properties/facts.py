"""Facts of a model that changes and publishes see while they overlap.

A fact is certain from the answer of a change on, until the next change of it begins. A change whose caller
died leaves it uncertain until another change replaces it. Times are steps of one counter.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

Value: TypeAlias = bool | str | frozenset[str]


@dataclass(eq=False)
class Fact:
    """What changes replace as a whole, with its possible values."""

    possible: set[Value]
    since: int = 0
    """When the last change of it began or ended."""
    open: set["Change"] = field(default_factory=set)

    def certain(self, *, since: int) -> Value | None:
        """Its value, if it had no other one from then until now."""
        if self.open or self.since > since or len(self.possible) > 1:
            return None
        return next(iter(self.possible))


@dataclass(eq=False)
class Change:
    """A change of facts that an administrator makes."""

    values: Mapping[Fact, Value]
    began: int
    overlapped: set["Change"] = field(default_factory=set)
    before: Mapping[Fact, frozenset[Value]] = field(default_factory=dict)


class Changes:
    """Changes of facts, and every violation."""

    def __init__(self, violations: list[str]) -> None:
        self._violations = violations
        self._time = 0

    def check(self, condition: object, violation: str) -> None:
        if not condition:
            self._violations.append(violation)

    @property
    def now(self) -> int:
        return self._time

    def tick(self) -> int:
        self._time += 1
        return self._time

    def begin_change(self, values: Mapping[Fact, Value]) -> Change:
        now = self.tick()
        change = Change(values, began=now, before={fact: frozenset(fact.possible) for fact in values})
        for fact, value in values.items():
            for other in fact.open:
                other.overlapped.add(change)
                change.overlapped.add(other)
            fact.open.add(change)
            fact.possible.add(value)
            fact.since = now
        return change

    def end_change(self, change: Change) -> None:
        """The change is answered: it has replaced everything but what came beside it."""
        now = self.tick()
        for fact, value in change.values.items():
            fact.possible = {value} | self._beside(change, fact)
            fact.open.discard(change)
            fact.since = now

    def refuse_change(self, change: Change) -> None:
        """The change is answered: it was refused, and nothing of it is left."""
        now = self.tick()
        for fact in change.values:
            fact.possible = {*change.before[fact], *self._beside(change, fact)}
            fact.open.discard(change)
            fact.since = now

    def _beside(self, change: Change, fact: Fact) -> set[Value]:
        return {other.values[fact] for other in change.overlapped if fact in other.values}

    def abandon_change(self, change: Change) -> None:
        """Its caller has died, or it failed: it may be done, in part or not at all."""
        now = self.tick()
        for fact in change.values:
            fact.open.discard(change)
            fact.since = now


def flag(fact: Fact, since: int) -> bool | None:
    value = fact.certain(since=since)
    assert value is None or isinstance(value, bool)
    return value


def all_of(values: Iterable[bool | None]) -> bool | None:
    """Whether all hold; None: uncertain."""
    values = list(values)
    return False if False in values else None if None in values else True
