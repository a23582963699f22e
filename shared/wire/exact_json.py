"""JSON that is rewritten without a change of its numbers.

A parser rounds 0.1000000000000000055 and integers beyond 64 bits, and writes 1e2 as 100.0 and -0 as 0. So
numbers that it could change are kept as the text that they were.
"""

import json
import re
from typing import Any

import msgspec
import orjson

# The parsers agree on every other number: an integer of at most 15 digits.
_DELICATE = re.compile(rb"[0-9][.eE]|-0|[0-9]{16}")


def loads(text: bytes) -> Any:
    """The value; a number that a parser could change is a `msgspec.Raw`. Raises orjson.JSONDecodeError."""
    value = orjson.loads(text)
    if _DELICATE.search(text) is None:
        return value
    try:
        return json.loads(text, parse_float=_as_given, parse_int=_as_given)
    except RecursionError:
        # It cannot be written either: `dumps` refuses such a depth.
        return value


def dumps(value: Any) -> bytes:
    """The JSON of a value of `loads`. Raises TypeError for one that is nested too deeply."""
    return orjson.dumps(value, default=_written)


def number_text(value: Any) -> str | None:
    """A number or boolean of `loads` as JSON writes it; None for anything else."""
    if isinstance(value, msgspec.Raw):
        return bytes(value).decode()
    return orjson.dumps(value).decode() if isinstance(value, bool | int | float) else None


def _as_given(number: str) -> msgspec.Raw:
    return msgspec.Raw(number.encode())


def _written(value: Any) -> orjson.Fragment:
    if isinstance(value, msgspec.Raw):
        return orjson.Fragment(bytes(value))
    raise TypeError(type(value).__name__)
