"""The body of POST /v1/events (docs/protocols/events.md): strict, with errors that name the field."""

import random
import re
from collections.abc import Callable, Iterator
from enum import StrEnum
from itertools import islice
from typing import Annotated, Any

import msgspec
import orjson
from msgspec import UNSET, Meta, UnsetType

from shared.model import events
from shared.model.errors import Invalid, TooLarge
from shared.model.events import OF_DEVICES, Event
from shared.model.topics import is_system
from shared.wire.cloudevents import BATCH_MEDIA_TYPE, MEDIA_TYPE
from shared.wire.models import Closed, Count, field_at, parse, rule

MAX_EVENTS = 10_000
MAX_EVENT_BYTES = 256 * 1024
# The deepest nesting that orjson writes. Data with fewer brackets cannot exceed it.
_MAX_DEPTH = 254
# What an event has beside its data adds less than this to its size.
_TEXTS = 6 * 255
# The bits of a UUID that say what it is, and all others but the last 16.
_VERSION_4 = 0x4000_8000_0000_0000_0000
_RANDOM_BITS = (1 << 128) - (1 << 16) - 0xF000_C000_0000_0000_0000
_LINE = re.compile(rb"[^ \t\r\n][^\n]*")

_Topic = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=255,
        pattern=rule(r"^[^\s\x00-\x1f\x7f]+\Z", "must have no blanks or control characters"),
        examples=["orders.paid", "device.notifications"],
    ),
]
_Text = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=255,
        pattern=rule(r"^[^\x00-\x1f\x7f]+\Z", "must have no control characters"),
    ),
]


class NewEvent(Closed):
    """An event as it is published."""

    topic: _Topic
    data: Annotated[msgspec.Raw, Meta(description="Any JSON; on the topics of devices the item that it is.")]
    id: _Text | None = None
    name: _Text | None = None
    time: _Text | None = None
    to: Annotated[_Text | None, Meta(description="A channel, by its id or name, or an API key.")] = None
    customer: Annotated[_Text | None, Meta(description="Only channels of this customer get it.")] = None
    receipt: Annotated[bool | None, Meta(description="Keep for an hour what became of the event.")] = False


class StreamPlace(Closed):
    """The place of an event in the stream of its topic."""

    offset: Annotated[str, Meta(examples=["1792108800000-0"])]


class PublishedEvent(Closed):
    id: str
    channels: Count
    stream: StreamPlace | UnsetType = UNSET


class PublishedBody(Closed):
    """For each event the number of channels and sessions it went to."""

    events: list[PublishedEvent]


_ONE = msgspec.json.Decoder(NewEvent)
_ONE_OR_MANY: msgspec.json.Decoder[NewEvent | list[NewEvent]] = msgspec.json.Decoder(
    NewEvent | list[NewEvent]
)


class Form(StrEnum):
    """How a body holds its events."""

    JSON = "one event or an array of them"
    LINES = "one event a line"
    STRUCTURED = "one CloudEvent"
    BATCH = "an array of CloudEvents"
    BINARY = "the data of one CloudEvent"
    """Its attributes are headers."""


FORMS = {
    "": Form.JSON,
    "application/json": Form.JSON,
    "application/x-ndjson": Form.LINES,
    "application/ndjson": Form.LINES,
    MEDIA_TYPE: Form.STRUCTURED,
    BATCH_MEDIA_TYPE: Form.BATCH,
}
"""By media types that have no parameters."""
OF_CLOUDEVENTS = {"topic": "type", "to": "notifyto", "customer": "notifycustomer"}
"""What CloudEvents call fields of ours."""


def form_of(media_type: str) -> Form:
    """The form that a media type names; JSON for any other. Raises Invalid for other CloudEvents."""
    form = FORMS.get(media_type)
    if form is not None:
        return form
    if media_type.startswith("application/cloudevents"):
        raise Invalid(f"CloudEvents are taken as {MEDIA_TYPE} or {BATCH_MEDIA_TYPE}", field="Content-Type")
    return Form.JSON


def position_of(index: int, *, body: bytes, form: Form = Form.JSON) -> str:
    """How errors name the event at `index`: `[3]`, `line 4`, or '' for a single event without an array."""
    if form is Form.LINES:
        return next(islice(_lines(body), index, None))[0]
    return f"[{index}]" if form is not Form.BINARY and body.lstrip().startswith(b"[") else ""


def field_of(index: int, field: str, *, body: bytes, form: Form = Form.JSON) -> str:
    """How errors name a field of the event at `index`, whatever its form calls it."""
    if form in (Form.STRUCTURED, Form.BATCH, Form.BINARY):
        field = OF_CLOUDEVENTS.get(field, field)
    if form is Form.BINARY:
        field = f"ce-{field}"
    return field_at(position_of(index, body=body, form=form), field)


def random_ids() -> Callable[[int], str]:
    """Names the events of one request that have no id: random UUIDs that differ in their last four digits."""
    first = ""

    def id_of(index: int) -> str:
        nonlocal first
        if not first:
            # A tenth of `uuid.uuid4()` for an event of an array. An event id need not be hard to guess.
            digits = f"{random.getrandbits(128) & _RANDOM_BITS | _VERSION_4:032x}"
            first = f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:28]}"
        return f"{first}{index:04x}"

    return id_of


def parse_events(
    body: bytes, *, form: Form = Form.JSON, id_of: Callable[[int], str] | None = None, most: int = MAX_EVENTS
) -> list[Event]:
    """The events, in the order given. `id_of(index)` names those without an id; None: at random.

    `data` keeps the publisher's bytes. Raises Invalid, naming the field, or TooLarge: beyond `most` events.
    """
    id_of = id_of or random_ids()
    try:
        return [_event(posted, index, id_of) for index, posted in enumerate(_posted(body, form, most))]
    except EventError as error:
        raise with_position(error, body, form) from None


def events_in(
    body: bytes, *, form: Form, id_of: Callable[[int], str] | None = None, most: int = MAX_EVENTS
) -> Iterator[Event]:
    """The same one by one, for a body that takes long: to check 10,000 events takes 50 ms or more."""
    id_of = id_of or random_ids()
    try:
        for index, posted in enumerate(_posted(body, form, most)):
            yield _event(posted, index, id_of)
    except EventError as error:
        raise with_position(error, body, form) from None


class EventError(Exception):
    """The event at `index` breaks a rule. `parse_events` adds its position in the body."""

    def __init__(self, index: int, field: str, message: str, *, kind: type[Invalid] = Invalid) -> None:
        self.index, self.field, self.message, self.kind = index, field, message, kind


def with_position(error: EventError, body: bytes, form: Form) -> Invalid:
    field = field_at(position_of(error.index, body=body, form=form), error.field)
    return error.kind(error.message, field=field)


def _posted(body: bytes, form: Form, most: int) -> list[NewEvent] | Iterator[NewEvent]:
    if form is Form.LINES:
        return _posted_lines(body, most)
    try:
        posted = _ONE_OR_MANY.decode(body)
    except Exception:
        # Again, for an error that names the field.
        posted = parse(_ONE_OR_MANY, body)
    if isinstance(posted, NewEvent):
        return [posted]
    if not posted:
        raise Invalid("the array of events is empty")
    if len(posted) > most:
        raise TooLarge(f"{len(posted)} events in one request; the limit is {most}")
    return posted


def _posted_lines(body: bytes, most: int) -> Iterator[NewEvent]:
    count = 0
    for at, line in _lines(body):
        count += 1
        if count > most:
            raise TooLarge(f"more than {most} events in one request")
        yield parse(_ONE, line, at=at)
    if not count:
        raise Invalid("the body has no event")


def _lines(body: bytes) -> Iterator[tuple[str, bytes]]:
    """The lines that are not blank, with their names. Numbers count blank ones too, from 1."""
    number, end = 1, 0
    for line in _LINE.finditer(body):
        number += body.count(b"\n", end, line.start())
        end = line.end()
        yield f"line {number}", line[0]


def _event(posted: NewEvent, index: int, id_of: Callable[[int], str]) -> Event:
    topic, data = posted.topic, bytes(posted.data)
    id_, name, time, to = posted.id or "", posted.name or "", posted.time or "", posted.to
    customer = posted.customer
    if len(data) > MAX_EVENT_BYTES - _TEXTS:
        texts = (topic, id_, name, time, to or "", customer or "")
        if len(data) + sum(map(len, texts)) > MAX_EVENT_BYTES:
            raise EventError(index, "data", f"the event is over {MAX_EVENT_BYTES // 1024} KiB", kind=TooLarge)
    if is_system(topic):
        raise EventError(index, "topic", "begins with the word system, which is reserved")
    if to is not None and customer is not None:
        raise EventError(index, "customer", "must be left out beside `to`, which names one channel")
    value = checked_data(data, index)
    fields = device_fields(topic, value, to=to, index=index) if topic.startswith(OF_DEVICES) else None
    return Event(id_ or id_of(index), topic, data, name, time, to, fields, posted.receipt is True, customer)


def checked_data(data: bytes, index: int) -> Any:
    """The parsed data. msgspec accepts invalid UTF-8 in a `Raw`; it would break the receivers' frames."""
    try:
        value = orjson.loads(data)
        if len(data) > _MAX_DEPTH and data.count(b"[") + data.count(b"{") > _MAX_DEPTH:
            orjson.dumps(value)
    except orjson.JSONDecodeError as error:
        raise EventError(index, "data", f"is not JSON: {error.msg}") from None
    except TypeError:
        raise EventError(index, "data", "is nested too deeply") from None
    return value


def device_fields(topic: str, data: Any, *, to: str | None, index: int) -> dict[str, str] | None:
    """The values that bindings match, on topics whose data is an item of a NotificationMessage."""
    if topic == events.DEVICE_NOTIFICATIONS:
        fields = _strings(data, ("ep", "path"), index)
        # The first slash is optional in events and in bindings; add it, so that they match.
        fields["path"] = "/" + fields["path"].lstrip("/")
        return fields
    if topic in (events.DEVICE_REGISTRATIONS, events.DEVICE_REG_UPDATES):
        fields = _strings(data, ("ep",), index)
        device_type = data.get("ept")
        if device_type is not None and not isinstance(device_type, str):
            raise EventError(index, "data.ept", "must be a string")
        return fields if device_type is None else {**fields, "ept": device_type}
    if topic in (events.DEVICE_DE_REGISTRATIONS, events.DEVICE_REGISTRATIONS_EXPIRED):
        if not isinstance(data, str) or not data:
            raise EventError(index, "data", "must be the name of a device on this topic")
        return {"ep": data}
    if topic == events.DEVICE_ASYNC_RESPONSES:
        if not to:
            raise EventError(index, "to", "is missing: an async-response is for one channel")
        return _strings(data, ("id",), index)
    return None


def _strings(data: Any, names: tuple[str, ...], index: int) -> dict[str, str]:
    if not isinstance(data, dict):
        raise EventError(index, "data", "must be an object on this topic")
    found: dict[str, str] = {}
    for name in names:
        value = data.get(name)
        if not isinstance(value, str) or not value:
            raise EventError(index, f"data.{name}", "must be a string that is not empty")
        found[name] = value
    return found
