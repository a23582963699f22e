"""The `pattern` of a join: which events a socket receives (section 2).

    pattern   := json | rule
    json      := {"path": value or [value, ...], ...}
    rule      := condition {";" condition} [";"]
    condition := path "=" value {"|" value}

All fields must match, each by one of its values; a `*` in a value is any run of characters.
"""

import re
from collections.abc import Iterator
from typing import Any

import msgspec
import orjson

from shared.model.bindings import DataFields
from shared.model.data_values import text_of
from shared.model.errors import Invalid

FIELD = "pattern"
MAX_LENGTH = 16 * 1024
# Each value takes a node in every gateway's index.
MAX_VALUES = 256
MAX_PATH = 255
# Rules of the original service may name a stored list; we have none.
_STORED_LIST = re.compile(r"valuelist\(.*\)", re.DOTALL)
_SHOWN = 100


def parse_pattern(text: str) -> DataFields:
    """The parsed pattern; a blank one matches everything. Raises Invalid, with the position of the error."""
    if len(text) > MAX_LENGTH:
        raise Invalid(f"is over {MAX_LENGTH} characters", field=FIELD)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise Invalid(f"is not UTF-8 at character {error.start + 1}", field=FIELD) from None
    if not text.strip():
        return DataFields(())
    read = _fields_of_json if text.lstrip().startswith("{") else _fields_of_rule
    wanted: dict[str, tuple[str, ...]] = {}
    for path, values, where in read(text):
        if path in wanted:
            message = f"names {path[:_SHOWN]} twice{where}; several values of a field go in one condition"
            raise Invalid(message, field=FIELD)
        wanted[path] = values
    if sum(map(len, wanted.values())) > MAX_VALUES:
        raise Invalid(f"has more than {MAX_VALUES} values", field=FIELD)
    return DataFields(tuple(wanted.items()))


_Field = tuple[str, tuple[str, ...], str]
"""A path, its values, and their position for error messages."""


def _fields_of_json(text: str) -> Iterator[_Field]:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise Invalid(f"is not JSON: {error}", field=FIELD) from None
    # orjson has the better messages, but rounds integers beyond 64 bits.
    posted = msgspec.json.decode(text)
    for path, value in posted.items():
        _check_path(path, where="")
        name = f"{FIELD}.{path[:_SHOWN]}"
        if isinstance(value, list):
            if not value:
                raise Invalid("must have at least one value", field=name)
            values = [_json_value(one, field=f"{name}[{index}]") for index, one in enumerate(value)]
        else:
            values = [_json_value(value, field=name)]
        yield path, tuple(values), ""


def _json_value(value: Any, *, field: str) -> str:
    text = text_of(value)
    if text is None:
        raise Invalid("must be a string, a number, true or false, or an array of these", field=field)
    if _STORED_LIST.fullmatch(text):
        raise Invalid("names a stored list; there are none", field=field)
    return text


def _fields_of_rule(text: str) -> Iterator[_Field]:
    conditions = list(_pieces(text, ";", at=1))
    if not conditions[-1][0]:
        # The last condition may end with a semicolon too.
        conditions.pop()
    for condition, at in conditions:
        path, sign, values = condition.partition("=")
        if not sign:
            raise Invalid(f"needs path=value{_where(at)}", field=FIELD)
        path = path.rstrip()
        _check_path(path, where=_where(at))
        begin = at + condition.index("=") + 1
        yield path, tuple(_rule_value(*piece) for piece in _pieces(values, "|", at=begin)), _where(at)


def _pieces(text: str, sign: str, *, at: int) -> Iterator[tuple[str, int]]:
    """The stripped text between the signs, each with the character at which it begins."""
    for piece in text.split(sign):
        yield piece.strip(), at + len(piece) - len(piece.lstrip())
        at += len(piece) + 1


def _rule_value(text: str, at: int) -> str:
    if not text:
        raise Invalid(f"lacks a value{_where(at)}", field=FIELD)
    if _STORED_LIST.fullmatch(text):
        raise Invalid(f"names a stored list{_where(at)}; there are none", field=FIELD)
    return text


def _check_path(path: str, *, where: str) -> None:
    if not all(path.split(".")):
        raise Invalid(f"has an empty name in the path {path[:_SHOWN]!r}{where}", field=FIELD)
    if len(path) > MAX_PATH:
        raise Invalid(f"has a path of over {MAX_PATH} characters{where}", field=FIELD)


def _where(at: int) -> str:
    return f" at character {at}"
