"""Request and response bodies as msgspec models: one declaration gives validation, errors and OpenAPI schema.

`parse` reads a body and raises Invalid with the field in our own form: `[1].topic`, `line 4.data`.
"""

import codecs
import re
from typing import Annotated, Any, TypeVar

import msgspec
import orjson
from msgspec import Meta, Struct

from shared.model.errors import Invalid

T = TypeVar("T")
_RULES: dict[str, str] = {}
_TYPES = {
    "str": "a string",
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "object": "an object",
    "array": "an array",
}
_QUOTED_TYPE = re.compile(r"`([a-z |]+)`")
_LONGEST_QUOTE = 100
_AT = " - at `$"


class Closed(Struct, forbid_unknown_fields=True):
    """A body with exactly the declared fields."""


def rule(pattern: str, text: str) -> str:
    """Returns the pattern, for `Meta`; an error says `text` instead of quoting it.

    End a pattern with `\\Z`: Python's `$` accepts a trailing newline. The OpenAPI document says `$` instead.
    """
    _RULES[f"Expected `str` matching regex {pattern!r}"] = text
    return pattern


Id = Annotated[str, Meta(pattern=rule(r"^[0-9a-f]{32}\Z", "must be 32 hexadecimal digits"))]
Name = Annotated[str, Meta(min_length=1, max_length=255)]
Moment = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
Count = Annotated[int, Meta(ge=0)]


def parse(decoder: msgspec.json.Decoder[T], body: bytes, *, at: str = "") -> T:
    """The decoded body. `at` is its position in the request. Raises Invalid, naming the field."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _invalid(str(error), at=at) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        wrong = f"is not JSON: {_syntax_error(body, is_line=bool(at)) or error}"
    except RecursionError:
        wrong = "is nested too deeply"
    raise Invalid(wrong if at else f"the body {wrong}", field=at or None)


def convert(value: Any, model: type[T]) -> T:
    """The same for a value that was parsed already."""
    try:
        return msgspec.convert(value, model)
    except msgspec.ValidationError as error:
        raise _invalid(str(error), at="") from None


def field_at(at: str, path: str) -> str:
    """A field's full name: `path` (`topic`, `[1]`) below `at` (`line 4`, `[3]`, or nothing)."""
    return at + (path if path.startswith("[") or not at else f".{path}" if path else "")


def _syntax_error(body: bytes, *, is_line: bool) -> str:
    """orjson's message, which is right about lone surrogates; with line and column, unless for one line."""
    if body.startswith(codecs.BOM_UTF8):
        # RFC 8259, 8.1: a sender must not add one.
        return "it begins with a byte order mark"
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError as error:
        return error.msg if is_line else str(error)
    return ""


def _invalid(error: str, *, at: str) -> Invalid:
    text, _, path = error.removesuffix("`").rpartition(_AT) if _AT in error else (error, "", "")
    # msgspec writes `[...]` for a key of a map.
    path = path.partition("[...]")[0].removeprefix(".")
    what, _, name = text.removesuffix("`").partition(" field `")
    if what == "Object missing required":
        return Invalid("is missing", field=field_at(field_at(at, path), name))
    if what == "Object contains unknown":
        return Invalid("unknown field", field=field_at(field_at(at, path), name[:_LONGEST_QUOTE]))
    return Invalid(_plain(text), field=field_at(at, path) or None)


def _plain(text: str) -> str:
    """msgspec's sentence in plain words: "must be a string, not an integer"."""
    if text in _RULES:
        return _RULES[text]
    if text.startswith("Invalid enum value "):
        value = text.removeprefix("Invalid enum value ")[:_LONGEST_QUOTE]
        return f"{value} is not one of the values that GET /openapi.json lists"
    text = _QUOTED_TYPE.sub(
        lambda match: " or ".join(_TYPES.get(name, name) for name in match[1].split(" | ")), text
    )
    return text.replace("Expected ", "must be ", 1).replace(", got ", ", not ", 1)
