"""A binding is a pattern of an API key or a session, of one of three kinds.

`Topic` matches topics by AMQP's rules. `Fields` matches field values of events of one topic. `DataFields`
matches values in the data of events of any topic.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import Any, TypeAlias

from shared.model import topics
from shared.model.events import OF_DEVICES

# Only so many values of a list are compared: each of them is tried with every wildcard.
MAX_TEXTS = 1_000


class Source(StrEnum):
    """Where bindings come from; each source is stored, read and replaced separately."""

    PRESUBSCRIPTIONS = "bindings"
    RESOURCES = "resources"
    TOPICS = "topics"
    SESSION = "session"


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic pattern. It never matches device topics, not even as `#`."""

    pattern: str

    def matches(self, topic: str) -> bool:
        return not topic.startswith(OF_DEVICES) and topics.matches(self.pattern, topic)


@dataclass(frozen=True, slots=True)
class Fields:
    """AND over fields, OR inside a field. `wanted` is ((field, patterns), ...).

    A trailing `*` in a pattern matches any rest.
    """

    topic: str
    wanted: tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True, slots=True)
class DataFields:
    """AND over fields of an event's data, OR inside a field. `wanted` is ((dotted path, patterns), ...).

    A `*` in a pattern matches any run of characters. Values are compared as text: 310 is "310", true is
    "true". A list matches by any of its elements, at the end of a path or within it. A missing value, null or
    an object matches nothing. An empty `wanted` matches everything.
    """

    wanted: tuple[tuple[str, tuple[str, ...]], ...]

    def matches(self, texts: Callable[[str], Collection[str]]) -> bool:
        """Whether the pattern matches data with these texts at each path."""
        return all(_any_in(patterns, texts(path)) for path, patterns in self.wanted)


Pattern: TypeAlias = Topic | Fields | DataFields


def _any_in(patterns: tuple[str, ...], texts: Collection[str]) -> bool:
    return any(
        any(glob_matches(pattern, text) for text in texts) if "*" in pattern else pattern in texts
        for pattern in patterns
    )


def glob_matches(pattern: str, text: str) -> bool:
    """Whether the text matches a pattern in which each `*` is any run of characters.

    Linear in the text for any number of stars: the first occurrence of a part leaves the most text to the
    following parts, so there is no backtracking.
    """
    first, *parts = pattern.split("*")
    if not parts:
        return text == pattern
    last = parts.pop()
    if not text.startswith(first) or not text.endswith(last):
        return False
    at, end = len(first), len(text) - len(last)
    for part in parts:
        found = text.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return at <= end


def texts_at(value: Any, path: str) -> frozenset[str]:
    """The texts of parsed data at a dotted path."""
    found = [value]
    for word in path.split("."):
        found = [item[word] for item in flatten(found) if isinstance(item, dict) and word in item]
    return texts_in(found)


def texts_in(values: Iterable[Any]) -> frozenset[str]:
    """The texts of these values and of the elements of lists among them."""
    texts = (text_of(value) for value in flatten(values))
    return frozenset(islice((text for text in texts if text is not None), MAX_TEXTS))


def flatten(values: Iterable[Any]) -> Iterator[Any]:
    """The values, with each list replaced by its elements, at any depth."""
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
    """The text that a value is compared as; None for null, lists and objects."""
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case int() | float():
            return str(value)
        case _:
            return None
