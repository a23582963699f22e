"""A session's patterns as they are stored: JSON of {"topic": pattern} and {"data": {path: [value, ...]}}."""

from collections.abc import Sequence
from typing import Any

import orjson

from shared.model.bindings import DataFields, Fields, Pattern, Topic, TopicWhere
from shared.model.sessions import SessionBinding


def encode_patterns(bindings: Sequence[SessionBinding]) -> bytes:
    """The distinct patterns of bindings to one account."""
    return orjson.dumps([_encode(pattern) for pattern in dict.fromkeys(each.pattern for each in bindings)])


def decode_patterns(stored: bytes) -> tuple[Pattern, ...]:
    return tuple(_decode(each) for each in orjson.loads(stored))


def _encode(pattern: Pattern) -> dict[str, Any]:
    match pattern:
        case Topic():
            return {"topic": pattern.pattern}
        case DataFields():
            return {"data": dict(pattern.wanted)}
        case Fields() | TopicWhere():
            raise TypeError(f"sessions have no {type(pattern).__name__} patterns")


def _decode(stored: dict[str, Any]) -> Pattern:
    if "topic" in stored:
        return Topic(stored["topic"])
    return DataFields(tuple((path, tuple(values)) for path, values in stored["data"].items()))
