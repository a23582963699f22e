"""CloudEvents as they are posted: structured, batched and binary (docs/protocols/events.md, section 10)."""

import base64
import re
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec
import orjson

from shared.model.errors import Invalid, TooLarge
from shared.model.events import Event
from shared.wire.cloudevent_rules import event_of, shown, too_large
from shared.wire.cloudevents import DATA_BASE64, NO_DATA
from shared.wire.events import MAX_EVENT_BYTES, MAX_EVENTS, EventError, Form, with_position
from shared.wire.models import parse

CONTENT_TYPE = "Content-Type"
_PREFIX = "ce-"
# Blanks and escapes may double an event. To count the members of a longer text would only take time.
_MAX_TEXT_BYTES = 2 * MAX_EVENT_BYTES
# What is no header of an attribute in binary mode, and where it is.
_ELSEWHERE = {"datacontenttype": CONTENT_TYPE, "data": "body"}
_CHARSET = re.compile(r';[ \t]*charset[ \t]*=[ \t]*"?([^\s;"]*)', re.IGNORECASE)
_UTF8 = ("", "utf-8", "utf8", "us-ascii")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_ESCAPED = re.compile(r"\\(.)")


class _Name:
    """The name of a member. No two are equal, so that a dict keeps both of two members with one name."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text


_MEMBERS: msgspec.json.Decoder[dict[_Name, msgspec.Raw]] = msgspec.json.Decoder(
    dict[_Name, msgspec.Raw], dec_hook=lambda _, text: _Name(text)
)
_BATCH: msgspec.json.Decoder[list[msgspec.Raw]] = msgspec.json.Decoder(list[msgspec.Raw])


def cloudevents_in(
    body: bytes, *, form: Form, headers: Sequence[tuple[bytes, bytes]] = (), content_type: str = ""
) -> Iterator[Event]:
    """The events of a request, one by one; `headers` are those of attributes, their names in lower case.

    JSON data keeps the publisher's bytes. Raises Invalid, naming the attribute or its header, or TooLarge.
    """
    try:
        if form is Form.BINARY:
            yield _binary(headers, content_type, body)
        elif form is Form.BATCH:
            for index, text in enumerate(_batch(body)):
                yield _structured(text, index, at=f"[{index}]")
        else:
            yield _structured(body, 0, at="")
    except EventError as error:
        if form is Form.BINARY:
            error.field = _header_of(error.field)
        raise with_position(error, body, form) from None


def _batch(body: bytes) -> Iterator[bytes]:
    texts = parse(_BATCH, body)
    if not texts:
        raise Invalid("the batch of events is empty")
    if len(texts) > MAX_EVENTS:
        raise TooLarge(f"{len(texts)} events in one request; the limit is {MAX_EVENTS}")
    return map(bytes, texts)


def _structured(text: bytes, index: int, *, at: str) -> Event:
    if len(text) > _MAX_TEXT_BYTES:
        raise too_large(index)
    attributes: dict[str, Any] = {}
    data: dict[str, bytes] = {}
    seen: set[str] = set()
    for each, raw in parse(_MEMBERS, text, at=at).items():
        name = each.text
        if name in seen:
            raise EventError(index, shown(name), "must be given once")
        seen.add(name)
        if name in ("data", DATA_BASE64):
            data[name] = bytes(raw)
        elif (value := _value(name, raw, index)) is not None:
            attributes[name] = value
    if data.get(DATA_BASE64) == b"null":
        del data[DATA_BASE64]
    if len(data) > 1:
        raise EventError(index, DATA_BASE64, "must be left out beside `data`")
    if DATA_BASE64 in data:
        _check_base64(data[DATA_BASE64], index)
        return event_of(attributes, data[DATA_BASE64], how=DATA_BASE64, index=index)
    return event_of(attributes, data.get("data", b"null"), how="" if data else NO_DATA, index=index)


def _value(name: str, raw: msgspec.Raw, index: int) -> Any:
    """A string, an integer or a boolean. None for null, which is an attribute that is not set."""
    try:
        value = orjson.loads(bytes(raw))
    except orjson.JSONDecodeError as error:
        raise EventError(index, shown(name), f"is not JSON: {error.msg}") from None
    is_integer = isinstance(value, int) and -(2**31) <= value < 2**31
    if value is None or is_integer or isinstance(value, str | bool):
        return value
    raise EventError(index, shown(name), "must be a string, an integer of 32 bits, true or false")


def _check_base64(raw: bytes, index: int) -> None:
    try:
        text = orjson.loads(raw)
        if isinstance(text, str):
            base64.b64decode(text, validate=True)
            return
    except ValueError:
        # So are the errors of both parsers.
        pass
    raise EventError(index, DATA_BASE64, "must be base64, with `+`, `/` and padding")


def _binary(headers: Sequence[tuple[bytes, bytes]], content_type: str, body: bytes) -> Event:
    attributes: dict[str, Any] = {}
    for header, raw in headers:
        name = header.decode("latin-1").removeprefix(_PREFIX)
        if name in attributes:
            raise EventError(0, shown(name), "must be given once")
        attributes[name] = _header_value(name, raw)
    for name, place in _ELSEWHERE.items():
        if name in attributes:
            raise Invalid(f"must be left out: it is the {place}", field=f"{_PREFIX}{name}")
    if content_type:
        attributes["datacontenttype"] = content_type
    data, how = _data_of(body, content_type)
    return event_of(attributes, data, how=how, index=0)


def _header_value(name: str, raw: bytes) -> str:
    """The value, unquoted and percent-decoded once. A `%` without two digits stays: the SDKs read it so."""
    try:
        text = raw.decode("ascii").strip()
        if quoted := _QUOTED.fullmatch(text):
            text = _ESCAPED.sub(r"\1", quoted[1])
        return unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        rule = "must be ASCII, with other characters percent-encoded as UTF-8"
        raise EventError(0, shown(name), rule) from None


def _data_of(body: bytes, content_type: str) -> tuple[bytes, str]:
    """The JSON of a body and how it came: text as a string, what is neither text nor JSON as base64."""
    if not body:
        return b"null", NO_DATA
    media_type = content_type.partition(";")[0].strip().lower()
    subtype = media_type.partition("/")[2]
    if not media_type and not _is_json(body):
        raise Invalid("is missing, and the body is not JSON", field=CONTENT_TYPE)
    if not media_type or subtype == "json" or subtype.endswith("+json"):
        return body, ""
    is_text = media_type.startswith("text/") or subtype == "xml" or subtype.endswith("+xml")
    charset = _CHARSET.search(content_type)
    if is_text and (charset[1].lower() if charset else "") in _UTF8:
        try:
            return orjson.dumps(body.decode()), ""
        except UnicodeDecodeError:
            pass
    return orjson.dumps(base64.b64encode(body).decode()), DATA_BASE64


def _is_json(body: bytes) -> bool:
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    return True


def _header_of(attribute: str) -> str:
    if attribute == "datacontenttype":
        return CONTENT_TYPE
    # `data` and what is in it are the body.
    return attribute if attribute.partition(".")[0] == "data" else f"{_PREFIX}{attribute}"
