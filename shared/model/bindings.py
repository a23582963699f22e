"""A binding is a pattern of an API key or a session, of one of four kinds.

`Topic` matches topics by AMQP's rules; `TopicWhere` does so for events whose data meets conditions. `Fields`
matches field values of events of one topic. `DataFields` matches values in the data of events of any topic.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from shared.model import topics
from shared.model.data_values import DataValues, glob_matches
from shared.model.events import OF_DEVICES

# Values of conditions that take as much memory as a pattern without any.
_VALUES_OF_A_PATTERN = 2


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
class Equals:
    """The text itself, in which a `*` is a star."""

    text: str


@dataclass(frozen=True, slots=True)
class Prefix:
    """Texts that begin so."""

    text: str


@dataclass(frozen=True, slots=True)
class Between:
    """Numbers within bounds; None: no bound. Each bound is included or not."""

    low: float | None = None
    high: float | None = None
    with_low: bool = False
    with_high: bool = False

    def includes(self, number: float) -> bool:
        low, high = self.low, self.high
        if low is not None and (number < low or (number == low and not self.with_low)):
            return False
        return high is None or number < high or (number == high and self.with_high)


@dataclass(frozen=True, slots=True)
class Exists:
    """Whether the data has the field, be it null or empty."""

    wanted: bool


Wanted: TypeAlias = str | Equals | Prefix | Between | Exists
"""A value that a field may have. In a `str` each `*` is any run of characters."""


@dataclass(frozen=True, slots=True)
class DataFields:
    """AND over fields of an event's data, OR inside a field. `wanted` is ((dotted path, values), ...).

    Values are compared as text: 310 is "310", true is "true". A list matches by any of its elements, at the
    end of a path or within it. A missing value, null or an object matches nothing but `Exists`. An empty
    `wanted` matches everything.
    """

    wanted: tuple[tuple[str, tuple[Wanted, ...]], ...]

    def matches(self, data: DataValues) -> bool:
        return all(any(_meets(data, path, one) for one in values) for path, values in self.wanted)


@dataclass(frozen=True, slots=True)
class TopicWhere:
    """A topic pattern, for events whose data has these fields."""

    pattern: str
    where: DataFields


Pattern: TypeAlias = Topic | TopicWhere | Fields | DataFields


def weight_of(patterns: Iterable[Pattern]) -> int:
    """How many plain patterns take as much memory: the values of conditions count too."""
    weight = 0
    for pattern in patterns:
        weight += 1
        if isinstance(pattern, DataFields | TopicWhere):
            where = pattern if isinstance(pattern, DataFields) else pattern.where
            weight += sum(len(values) for _, values in where.wanted) // _VALUES_OF_A_PATTERN
    return weight


def _meets(data: DataValues, path: str, wanted: Wanted) -> bool:
    match wanted:
        case str():
            texts = data.texts(path)
            return any(glob_matches(wanted, text) for text in texts) if "*" in wanted else wanted in texts
        case Equals(text):
            return text in data.texts(path)
        case Prefix(text):
            return any(each.startswith(text) for each in data.texts(path))
        case Between():
            return any(map(wanted.includes, data.numbers(path)))
        case Exists():
            return data.has(path) is wanted.wanted
