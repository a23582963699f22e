"""How what a session wants is kept: a JSON array of {"topic": pattern} and {"data": {path: [value, ...]}}."""

from collections.abc import Sequence
from typing import Any

import orjson

from shared.model.bindings import DataFields, Fields, Pattern, Topic
from shared.model.sessions import Wanted


def stored_wanted(wanted: Sequence[Wanted]) -> bytes:
    """The patterns, each once; whose events they ask for is kept by where this is."""
    return orjson.dumps([_stored(pattern) for pattern in dict.fromkeys(one.pattern for one in wanted)])


def compiled_wanted(stored: bytes) -> tuple[Pattern, ...]:
    """The patterns as they were stored."""
    return tuple(_compiled(one) for one in orjson.loads(stored))


def _stored(pattern: Pattern) -> dict[str, Any]:
    match pattern:
        case Topic():
            return {"topic": pattern.pattern}
        case DataFields():
            return {"data": dict(pattern.wanted)}
        case Fields():
            raise TypeError("no session asks for the fields of a topic")


def _compiled(stored: dict[str, Any]) -> Pattern:
    if "topic" in stored:
        return Topic(stored["topic"])
    return DataFields(tuple((path, tuple(values)) for path, values in stored["data"].items()))
