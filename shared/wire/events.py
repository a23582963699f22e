"""The body of POST /v1/events, read strictly: every error names its field (docs/protocols/events.md)."""

import random
import re
from collections.abc import Callable, Iterator
from enum import StrEnum
from itertools import islice
from typing import Any

import orjson

from shared.model import events
from shared.model.errors import Invalid, TooLarge
from shared.model.events import Event, is_of_a_device

MAX_EVENTS = 10_000
MAX_EVENT_BYTES = 256 * 1024
_MAX_TEXT = 255
_NAMES = frozenset({"topic", "data", "id", "name", "time", "to", "receipt"})
_TEXTS = ("id", "name", "time", "to")
_TOPIC = re.compile(r"[^\s\x00-\x1f\x7f]{1,255}")
_LINE = re.compile(rb"[^ \t\r\n][^\n]*")
_PRINTABLE = re.compile(r"[^\x00-\x1f\x7f]{1,255}")


class Form(StrEnum):
    """How events are written down in a body."""

    JSON = "one event or an array of them"
    LINES = "one event a line"


def form_of(media_type: str) -> Form:
    """Only what says that it is newline-delimited is read so; anything else is taken for JSON."""
    return Form.LINES if media_type in ("application/x-ndjson", "application/ndjson") else Form.JSON


def place_of(index: int, *, body: bytes, form: Form = Form.JSON) -> str:
    """How faults name the event at `index` of a body: `[3]`, `line 4`, or '' when it is the only one, in no
    array."""
    if form is Form.LINES:
        return next(islice(_lines(body), index, None))[0]
    return f"[{index}]" if body.lstrip().startswith(b"[") else ""


def _random_id(_: int) -> str:
    # As `str(uuid.uuid4())`, which takes five times as long. Nothing rests on nobody guessing it.
    digits = f"{random.getrandbits(128):032x}"
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


def parse_events(
    body: bytes, *, form: Form = Form.JSON, id_of: Callable[[int], str] = _random_id
) -> list[Event]:
    """The events, in the order given. `id_of(index)` names those that came without an id.

    Raises Invalid (what is wrong, and where) or TooLarge. Numbers beyond 64 bits come out as doubles.
    """
    items = enumerate(_items(body, form))
    return [_event(item, at=at, index=index, id_of=id_of) for index, (at, item) in items]


def _items(body: bytes, form: Form) -> Iterator[tuple[str, Any]]:
    """What stands for an event, and how faults name its place."""
    if form is Form.LINES:
        return _items_in_lines(body)
    try:
        posted = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Invalid(f"the body is not JSON: {error}") from None
    if isinstance(posted, dict):
        return iter([("", posted)])
    if not isinstance(posted, list):
        raise Invalid("the body must be an event or an array of events")
    if not posted:
        raise Invalid("the array of events is empty")
    if len(posted) > MAX_EVENTS:
        raise TooLarge(f"{len(posted)} events; at most {MAX_EVENTS} are taken at once")
    return ((f"[{index}]", item) for index, item in enumerate(posted))


def _items_in_lines(body: bytes) -> Iterator[tuple[str, Any]]:
    count = 0
    for at, line in _lines(body):
        count += 1
        if count > MAX_EVENTS:
            raise TooLarge(f"more than {MAX_EVENTS} events; so many are taken at once")
        try:
            yield at, orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise Invalid(f"is not JSON: {error.msg}", field=at) from None
    if not count:
        raise Invalid("the body holds no event")


def _lines(body: bytes) -> Iterator[tuple[str, bytes]]:
    """Lines that are not blank, with their names; all lines count, from 1. Runs of blank ones cost little."""
    number, end = 1, 0
    for line in _LINE.finditer(body):
        number += body.count(b"\n", end, line.start())
        end = line.end()
        yield f"line {number}", line[0]


def _event(posted: Any, *, at: str, index: int, id_of: Callable[[int], str]) -> Event:
    if not isinstance(posted, dict):
        raise Invalid("an event must be an object", field=at)
    if not posted.keys() <= _NAMES:
        name = min(posted.keys() - _NAMES)
        raise Invalid("an event has no such field", field=_field(at, name[:100]))
    for name in ("topic", "data"):
        if name not in posted:
            raise Invalid("is missing", field=_field(at, name))
    topic = posted["topic"]
    if not isinstance(topic, str) or not _TOPIC.fullmatch(topic):
        raise Invalid("must be a string of 1 to 255 characters without blanks", field=_field(at, "topic"))
    id_, name, time, to = [_text(posted[name], at, name) if name in posted else "" for name in _TEXTS]
    receipt = posted.get("receipt", False)
    if not isinstance(receipt, bool):
        raise Invalid("must be true or false", field=_field(at, "receipt"))
    try:
        data = orjson.dumps(posted["data"])
    except TypeError:
        raise Invalid("is nested too deeply", field=_field(at, "data")) from None
    if len(data) + len(topic) + len(id_) + len(name) + len(time) + len(to) > MAX_EVENT_BYTES:
        raise TooLarge(f"the event is over {MAX_EVENT_BYTES // 1024} KB", field=_field(at, "data"))
    return Event(
        id=id_ or id_of(index),
        topic=topic,
        data=data,
        name=name,
        time=time,
        to=to or None,
        fields=_device_fields(topic, posted["data"], to=to, at=at) if is_of_a_device(topic) else None,
        receipt=receipt,
    )


def _field(at: str, name: str) -> str:
    return f"{at}.{name}" if at else name


def _text(value: Any, at: str, name: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str) or not _PRINTABLE.fullmatch(value):
        raise Invalid(f"must be a string of 1 to {_MAX_TEXT} printable characters", field=_field(at, name))
    return value


def _device_fields(topic: str, data: Any, *, to: str, at: str) -> dict[str, str] | None:
    """The values bindings look at, for topics that carry an item of a NotificationMessage."""
    if topic == events.DEVICE_NOTIFICATIONS:
        fields = _strings(data, ("ep", "path"), at)
        # Publishers and bindings may leave the first slash out; both are held with it.
        return {"ep": fields["ep"], "path": "/" + fields["path"].lstrip("/")}
    if topic in (events.DEVICE_REGISTRATIONS, events.DEVICE_REG_UPDATES):
        fields = _strings(data, ("ep",), at)
        kind = data.get("ept")
        if kind is not None and not isinstance(kind, str):
            raise Invalid("must be a string", field=_field(at, "data.ept"))
        return fields if kind is None else {**fields, "ept": kind}
    if topic in (events.DEVICE_DE_REGISTRATIONS, events.DEVICE_REGISTRATIONS_EXPIRED):
        if not isinstance(data, str) or not data:
            raise Invalid("must be the name of a device on this topic", field=_field(at, "data"))
        return {"ep": data}
    if topic == events.DEVICE_ASYNC_RESPONSES:
        if not to:
            raise Invalid("is needed: an async-response must say whom it is for", field=_field(at, "to"))
        return _strings(data, ("id",), at)
    return None


def _strings(data: Any, names: tuple[str, ...], at: str) -> dict[str, str]:
    if not isinstance(data, dict):
        raise Invalid("must be an object on this topic", field=_field(at, "data"))
    for name in names:
        if not isinstance(data.get(name), str) or not data[name]:
            raise Invalid("must be a string that is not empty", field=_field(at, f"data.{name}"))
    return {name: data[name] for name in names}
