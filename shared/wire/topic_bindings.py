"""The body of PUT /v1/bindings: topic patterns, some with conditions (docs/protocols/events.md, section 4).

    binding   := pattern | {"topic": pattern, "where"?: {path: value or [value, ...], ...}}
    value     := text, number, true or false | {"prefix": text} | {"exists": true or false}
               | {"gt" or "gte"?: number, "lt" or "lte"?: number}

All paths must match, each by one of its values.
"""

from collections.abc import Iterator, Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from shared.model import topics
from shared.model.bindings import (
    Between,
    DataFields,
    Equals,
    Exists,
    Pattern,
    Prefix,
    Topic,
    TopicWhere,
    Wanted,
)
from shared.model.data_values import text_of
from shared.model.errors import Invalid
from shared.wire.models import Closed

MOST_PATHS = 16
MOST_VALUES = 64
# Each value takes a node in every gateway's index.
MOST_VALUES_OF_ALL = 4096
_MOST_PATH = 255

_Text = Annotated[str, Meta(max_length=255)]
_Pattern = Annotated[str, Meta(min_length=1, max_length=topics.MAX_LENGTH, examples=["orders.*.created"])]


class Condition(Closed, omit_defaults=True):
    """What a value must be, besides being equal."""

    prefix: Annotated[str, Meta(min_length=1, max_length=255)] | None = None
    exists: bool | None = None
    gt: int | float | None = None
    gte: int | float | None = None
    lt: int | float | None = None
    lte: int | float | None = None


_Value = _Text | int | float | bool | Condition


class TopicBinding(Closed, omit_defaults=True):
    """A topic pattern, for events whose data meets conditions."""

    topic: _Pattern
    where: (
        Annotated[
            dict[str, _Value | Annotated[list[_Value], Meta(min_length=1, max_length=MOST_VALUES)]],
            Meta(max_length=MOST_PATHS, description="Dotted paths in the data, each with the values wanted."),
        ]
        | None
    ) = None


Topics = Annotated[
    list[_Pattern | TopicBinding],
    Meta(max_length=1024, description="Words between dots; * is one word, # any number of them."),
]

_STORED = msgspec.json.Decoder(list[str | TopicBinding])


def check_topics(posted: Sequence[str | TopicBinding]) -> None:
    """Raises Invalid, naming the field."""
    values = 0
    for index, binding in enumerate(posted):
        at = f"[{index}]"
        pattern = binding if isinstance(binding, str) else binding.topic
        wrong = topics.pattern_error(pattern)
        if wrong is not None:
            raise Invalid(wrong, field=at if isinstance(binding, str) else f"{at}.topic")
        if not isinstance(binding, str):
            values += _check_where(binding, f"{at}.where")
    if values > MOST_VALUES_OF_ALL:
        raise Invalid(
            f"the bindings have {values} values in their conditions; the limit is {MOST_VALUES_OF_ALL}"
        )


def stored_topics(stored: bytes) -> tuple[Pattern, ...]:
    """The bindings, from their stored form."""
    return tuple(map(_pattern, _STORED.decode(stored)))


def _pattern(binding: str | TopicBinding) -> Pattern:
    if isinstance(binding, str):
        return Topic(binding)
    if not binding.where:
        return Topic(binding.topic)
    wanted = tuple(
        (path, tuple(_wanted(value) for _, value in _values(posted)))
        for path, posted in binding.where.items()
    )
    return TopicWhere(binding.topic, DataFields(wanted))


def _wanted(value: _Value) -> Wanted:
    if not isinstance(value, Condition):
        # Data is parsed likewise: an integer beyond 64 bits becomes a float.
        is_large = isinstance(value, int) and not -(2**63) <= value < 2**64
        return Equals(text_of(float(value) if is_large else value) or "")
    if value.prefix is not None:
        return Prefix(value.prefix)
    if value.exists is not None:
        return Exists(value.exists)
    return Between(
        value.gte if value.gt is None else value.gt,
        value.lte if value.lt is None else value.lt,
        with_low=value.gte is not None,
        with_high=value.lte is not None,
    )


def _values(posted: _Value | list[_Value]) -> Iterator[tuple[str, _Value]]:
    """The values of a path, each with its position for errors."""
    if isinstance(posted, list):
        for index, value in enumerate(posted):
            yield f"[{index}]", value
    else:
        yield "", posted


def _check_where(binding: TopicBinding, at: str) -> int:
    """The number of values. Raises Invalid."""
    count = 0
    for path, posted in (binding.where or {}).items():
        if len(path) > _MOST_PATH or not all(path.split(".")):
            raise Invalid(
                f"must be names between dots, of at most {_MOST_PATH} characters", field=f"{at}.{path[:100]}"
            )
        for position, value in _values(posted):
            count += 1
            if isinstance(value, Condition):
                wrong = _error_in(value)
                if wrong is not None:
                    raise Invalid(wrong, field=f"{at}.{path}{position}")
    if count > MOST_VALUES:
        raise Invalid(f"has {count} values; the limit of a binding is {MOST_VALUES}", field=at)
    return count


def _error_in(value: Condition) -> str | None:
    bounds = [value.gt, value.gte, value.lt, value.lte]
    kinds = [
        value.prefix is not None,
        value.exists is not None,
        any(bound is not None for bound in bounds),
    ]
    if sum(kinds) != 1:
        return "must have exactly one of prefix, exists, and bounds (gt or gte, lt or lte)"
    if value.gt is not None and value.gte is not None:
        return "has gt and gte; one of them is enough"
    if value.lt is not None and value.lte is not None:
        return "has lt and lte; one of them is enough"
    wanted = _wanted(value)
    if isinstance(wanted, Between) and wanted.low is not None and wanted.high is not None:
        is_empty = wanted.low > wanted.high or (
            wanted.low == wanted.high and not (wanted.with_low and wanted.with_high)
        )
        if is_empty:
            return "no number is within these bounds"
    return None
