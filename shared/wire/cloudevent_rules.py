"""The rules of CloudEvents 1.0 and our own for attributes, and the event that they make.

Attributes of our own begin with `notify`, as CloudEvents know no other place for what is said to the gateway.
"""

import re
from collections.abc import Callable, Iterable
from typing import Any

import orjson

from shared.model.errors import TooLarge
from shared.model.events import OF_DEVICES, Event
from shared.model.topics import is_system
from shared.wire.cloudevents import DATA_BASE64, OFFSET, PUBLISHED_TIME, is_timestamp
from shared.wire.events import MAX_EVENT_BYTES, OF_CLOUDEVENTS, EventError, checked_data, device_fields
from shared.wire.uris import is_uri, is_uri_reference

MOST_ATTRIBUTES = 64
LONGEST_NAME = 64
LONGEST_VALUE = 2048
_LONGEST_TEXT = 255
_OURS = "notify"
_TO, _CUSTOMER, _RECEIPT = "notifyto", "notifycustomer", "notifyreceipt"
_NAME = re.compile(rf"[a-z0-9]{{1,{LONGEST_NAME}}}")
_LAST_OF_PLANES = "".join(chr(plane * 0x10000 + last) for plane in range(17) for last in (0xFFFE, 0xFFFF))
_NOT_PRINTABLE = re.compile(f"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef{_LAST_OF_PLANES}]")
_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_MEDIA_TYPE = re.compile(rf"{_WORD}/{_WORD}[ \t]*(;[\t -~]*)?")
_BLANK = re.compile(r"\s")
_BOOLEANS = {"true": True, "false": False}
_REQUIRED = ("specversion", "id", "source", "type")
_FORMS: dict[str, tuple[Callable[[str], object], str]] = {
    "source": (is_uri_reference, "must be a URI reference, in ASCII"),
    "dataschema": (is_uri, "must be a URI, in ASCII"),
    "datacontenttype": (_MEDIA_TYPE.fullmatch, "must be a media type"),
    "time": (is_timestamp, "must be a time of RFC 3339, as 2026-01-31T12:00:00Z"),
    "type": (lambda text: not _BLANK.search(text), "must have no blanks: it is the topic"),
}
# What is stored as a field of its own, or meant for the gateway alone; and a place in another stream.
_APART = frozenset((*_REQUIRED, "time", _TO, _CUSTOMER, _RECEIPT, OFFSET)) - {"source"}


def event_of(attributes: dict[str, Any], data: bytes, *, how: str, index: int) -> Event:
    """The event of these attributes: strings, integers of 32 bits and booleans.

    `data` is JSON; `how` is `DATA_BASE64`, `NO_DATA` or ''. Raises EventError, which names the attribute.
    """
    _check(attributes, index)
    type_, to = attributes["type"], attributes.get(_TO)
    travels = {name: value for name, value in attributes.items() if name not in _APART}
    kept = orjson.dumps(travels | {how: True} if how else travels)
    if sum(map(len, (data, kept, type_, attributes["id"], attributes.get("time", "")))) > MAX_EVENT_BYTES:
        raise too_large(index)
    value = checked_data(data, index)
    fields = None
    if type_.startswith(OF_DEVICES):
        if how == DATA_BASE64:
            raise EventError(index, how, "must be left out: on this topic the event has `data`")
        try:
            fields = device_fields(type_, value, to=to, index=index)
        except EventError as error:
            error.field = OF_CLOUDEVENTS.get(error.field, error.field)
            raise
    return Event(
        attributes["id"],
        type_,
        data,
        time=attributes.get("time", ""),
        to=to,
        fields=fields,
        receipt=_boolean(attributes.get(_RECEIPT, False)) is True,
        customer=attributes.get(_CUSTOMER),
        attributes=kept,
    )


def too_large(index: int) -> EventError:
    return EventError(index, "data", f"the event is over {MAX_EVENT_BYTES // 1024} KiB", kind=TooLarge)


def shown(name: str) -> str:
    """A name as errors show it: it may be long, or empty."""
    return name[:LONGEST_NAME] or '""'


def _check(attributes: dict[str, Any], index: int) -> None:
    for name, wrong in _wrong(attributes):
        raise EventError(index, shown(name), wrong)


def _wrong(attributes: dict[str, Any]) -> Iterable[tuple[str, str]]:
    """Attributes that break a rule, with the rule; the specification's version is judged first."""
    for name in _REQUIRED:
        if name not in attributes:
            yield name, "is missing"
        if name == "specversion" and attributes[name] != "1.0":
            yield name, "must be 1.0"
    for number, (name, value) in enumerate(attributes.items()):
        if number == MOST_ATTRIBUTES:
            yield name, f"is one too many: an event has at most {MOST_ATTRIBUTES} attributes"
        if not _NAME.fullmatch(name):
            yield name, f"is no attribute's name: that is 1 to {LONGEST_NAME} lower-case letters or digits"
        if isinstance(value, str):
            yield from _wrong_text(name, value)
        elif name in _TEXTS:
            yield name, "must be a string"
    yield from _wrong_ours(attributes)


def _wrong_text(name: str, value: str) -> Iterable[tuple[str, str]]:
    longest = _LONGEST_TEXT if name in _SHORT else LONGEST_VALUE
    if not value and name in _TEXTS:
        yield name, "must not be empty"
    if len(value) > longest:
        yield name, f"must be at most {longest} characters"
    if _NOT_PRINTABLE.search(value):
        yield name, "must have no control characters"
    if name in _FORMS:
        fits, rule = _FORMS[name]
        if not fits(value):
            yield name, rule


def _wrong_ours(attributes: dict[str, Any]) -> Iterable[tuple[str, str]]:
    if is_system(attributes["type"]):
        yield "type", "begins with the word system, which is reserved"
    if _TO in attributes and _CUSTOMER in attributes:
        yield _CUSTOMER, f"must be left out beside {_TO}, which names one channel"
    if _boolean(attributes.get(_RECEIPT, False)) is None:
        yield _RECEIPT, "must be true or false"
    for name in attributes:
        # A typing error in one that says who gets the event would send it to everybody.
        if name.startswith(_OURS) and name not in _KNOWN:
            yield name, f"is unknown: of the names with {_OURS} there are {', '.join(_KNOWN)}"


def _boolean(value: Any) -> bool | None:
    return value if isinstance(value, bool) else _BOOLEANS.get(value) if isinstance(value, str) else None


_KNOWN = (_TO, _CUSTOMER, _RECEIPT, PUBLISHED_TIME, OFFSET)
_SHORT = frozenset(("id", "type", _TO, _CUSTOMER))
_TEXTS = frozenset((*_REQUIRED, *_FORMS, "subject", _TO, _CUSTOMER))
