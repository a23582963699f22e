"""A binding is a pattern held by an API key, of one of two kinds.

`Topic` asks for a topic by AMQP's rules. `Fields` asks for values in an event of one topic: all named fields
must match, each by one of its patterns; a trailing `*` in a pattern matches any rest.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from shared.model import topics
from shared.model.events import is_of_a_device


class Source(StrEnum):
    """Where an API key's bindings come from; each is kept, read and replaced by itself."""

    PRESUBSCRIPTIONS = "bindings"
    RESOURCES = "resources"
    TOPICS = "topics"
    SESSION = "session"


@dataclass(frozen=True, slots=True)
class Topic:
    """A plain topic. What is of a device has rules of its own, so that `#` does not ask for it."""

    pattern: str

    def matches(self, topic: str, _: Mapping[str, str]) -> bool:
        return not is_of_a_device(topic) and topics.matches(self.pattern, topic)


@dataclass(frozen=True, slots=True)
class Fields:
    """AND over fields, OR inside a field. `wanted` is ((field, patterns), ...)."""

    topic: str
    wanted: tuple[tuple[str, tuple[str, ...]], ...]

    def matches(self, topic: str, fields: Mapping[str, str]) -> bool:
        if topic != self.topic:
            return False
        return all(_any_matches(patterns, fields.get(name, "")) for name, patterns in self.wanted)


Pattern: TypeAlias = Topic | Fields


def _any_matches(patterns: tuple[str, ...], value: str) -> bool:
    return any(
        value.startswith(pattern[:-1]) if pattern.endswith("*") else value == pattern for pattern in patterns
    )
