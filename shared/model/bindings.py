"""A binding is a pattern held by an API key or a session, of one of three kinds.

`Topic` asks for a topic by AMQP's rules. `Fields` asks for values in an event of one topic: all named fields
must match, each by one of its patterns; a trailing `*` in a pattern matches any rest. `DataFields` asks for
values in the data of an event, whatever its topic.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import Any, TypeAlias

from shared.model import topics
from shared.model.events import is_of_a_device

# Of a field with more values, in lists, the first are looked at: each costs every wildcard a look.
MAX_TEXTS = 1_000


class Source(StrEnum):
    """Where bindings come from; each is kept, read and replaced by itself."""

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


@dataclass(frozen=True, slots=True)
class DataFields:
    """AND over fields of an event's data, OR inside a field. `wanted` is ((dotted path, patterns), ...).

    A `*` in a pattern matches any run of characters. Values are compared as text: 310 is "310", true "true".
    A list matches by any of its elements, at the end of a path or on its way. What is missing, null or an
    object matches nothing. An empty `wanted` asks for everything.
    """

    wanted: tuple[tuple[str, tuple[str, ...]], ...]

    def matches(self, _: str, __: Mapping[str, str]) -> bool:
        """Topic and fields never tell: ask `matches_data`."""
        return False

    def matches_data(self, value: Any) -> bool:
        """Does it ask for data that was parsed to this value? To ask many, use `matching.Index`."""
        return self.agrees(lambda path: texts_at(value, path))

    def agrees(self, texts: Callable[[str], Collection[str]]) -> bool:
        """The same, of data that has these texts at a path."""
        return all(_any_in(patterns, texts(path)) for path, patterns in self.wanted)


Pattern: TypeAlias = Topic | Fields | DataFields


def _any_matches(patterns: tuple[str, ...], value: str) -> bool:
    return any(
        value.startswith(pattern[:-1]) if pattern.endswith("*") else value == pattern for pattern in patterns
    )


def _any_in(patterns: tuple[str, ...], texts: Collection[str]) -> bool:
    return any(
        any(glob_matches(pattern, text) for text in texts) if "*" in pattern else pattern in texts
        for pattern in patterns
    )


def glob_matches(pattern: str, text: str) -> bool:
    """Does the text match, with each `*` in the pattern standing for any run of characters?

    Takes time in proportion to the text, however many stars there are: of several places where a part may
    be, the first leaves the most to what follows.
    """
    first, *parts = pattern.split("*")
    if not parts:
        return text == pattern
    last = parts.pop()
    if not text.startswith(first) or not text.endswith(last):
        return False
    here, end = len(first), len(text) - len(last)
    for part in parts:
        found = text.find(part, here, end)
        if found < 0:
            return False
        here = found + len(part)
    return here <= end


def texts_at(value: Any, path: str) -> frozenset[str]:
    """The texts that parsed data has at a dotted path."""
    found = [value]
    for word in path.split("."):
        found = [item[word] for item in unfolded(found) if isinstance(item, dict) and word in item]
    return texts_in(found)


def texts_in(values: Iterable[Any]) -> frozenset[str]:
    """The texts of these values and of the elements of those that are lists."""
    texts = (text_of(value) for value in unfolded(values))
    return frozenset(islice((text for text in texts if text is not None), MAX_TEXTS))


def unfolded(values: Iterable[Any]) -> Iterator[Any]:
    """The values, and in the place of each list its elements, at any depth."""
    open_lists = [iter(values)]
    while open_lists:
        for value in open_lists[-1]:
            if isinstance(value, list):
                open_lists.append(iter(value))
                break
            yield value
        else:
            open_lists.pop()


def text_of(value: Any) -> str | None:
    """What a value of parsed data is compared as; None for what cannot be: null, lists and objects."""
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case int() | float():
            return str(value)
        case _:
            return None
