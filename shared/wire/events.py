"""The body of POST /v1/events, read strictly: every fault names its field (docs/protocols/events.md)."""

import re
import uuid
from collections.abc import Callable
from typing import Any

import orjson

from shared.model import events
from shared.model.errors import Invalid, TooLarge
from shared.model.events import Event

MAX_EVENTS = 10_000
MAX_EVENT_BYTES = 256 * 1024
_MAX_TEXT = 255
_NAMES = frozenset({"topic", "data", "id", "name", "time", "to"})
_TOPIC = re.compile(r"[^\s\x00-\x1f\x7f]{1,255}")
_PRINTABLE = re.compile(r"[^\x00-\x1f\x7f]{1,255}")


def place_of(index: int, *, body: bytes) -> str:
    """How faults name the event at `index` of a body: `[3]`, or '' when it is the only one, in no array."""
    return f"[{index}]" if body.lstrip().startswith(b"[") else ""


def parse_events(body: bytes) -> list[Event]:
    """One event or an array of them, in the order given.

    Raises Invalid (what is wrong, and where) or TooLarge. Numbers beyond 64 bits come out as doubles.
    """
    try:
        posted = orjson.loads(body)
    except orjson.JSONDecodeError as fault:
        raise Invalid(f"the body is not JSON: {fault}") from None
    if isinstance(posted, dict):
        return [_event(posted, at="")]
    if not isinstance(posted, list):
        raise Invalid("the body must be an event or an array of events")
    if not posted:
        raise Invalid("the array of events is empty")
    if len(posted) > MAX_EVENTS:
        raise TooLarge(f"{len(posted)} events; at most {MAX_EVENTS} are taken at once")
    return [_event(item, at=f"[{index}]") for index, item in enumerate(posted)]


def _event(posted: Any, *, at: str) -> Event:
    if not isinstance(posted, dict):
        raise Invalid("an event must be an object", field=at)
    where = _namer(at)
    unknown = posted.keys() - _NAMES
    if unknown:
        name = min(unknown)
        raise Invalid("an event has no such field", field=where(name[:100]))
    for name in ("topic", "data"):
        if name not in posted:
            raise Invalid("is missing", field=where(name))
    topic = posted["topic"]
    if not isinstance(topic, str) or not _TOPIC.fullmatch(topic):
        raise Invalid("must be a string of 1 to 255 characters without blanks", field=where("topic"))
    texts = {name: _text(posted.get(name), field=where(name)) for name in ("id", "name", "time", "to")}
    try:
        data = orjson.dumps(posted["data"])
    except TypeError:
        raise Invalid("is nested too deeply", field=where("data")) from None
    if len(data) + len(topic) + sum(map(len, texts.values())) > MAX_EVENT_BYTES:
        raise TooLarge(f"the event is over {MAX_EVENT_BYTES // 1024} KB", field=where("data"))
    return Event(
        id=texts["id"] or str(uuid.uuid4()),
        topic=topic,
        data=data,
        name=texts["name"],
        time=texts["time"],
        to=texts["to"] or None,
        fields=_device_fields(topic, posted["data"], to=texts["to"], where=where),
    )


def _namer(at: str) -> Callable[[str], str]:
    return lambda name: f"{at}.{name}" if at else name


def _text(value: Any, *, field: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str) or not _PRINTABLE.fullmatch(value):
        raise Invalid(f"must be a string of 1 to {_MAX_TEXT} printable characters", field=field)
    return value


def _device_fields(topic: str, data: Any, *, to: str, where: Callable[[str], str]) -> dict[str, str] | None:
    """The values bindings look at, for topics that carry an item of a NotificationMessage."""
    if topic == events.DEVICE_NOTIFICATIONS:
        fields = _strings(data, ("ep", "path"), where)
        # Publishers and bindings may leave the first slash out; both are held with it.
        return {"ep": fields["ep"], "path": "/" + fields["path"].lstrip("/")}
    if topic in (events.DEVICE_REGISTRATIONS, events.DEVICE_REG_UPDATES):
        fields = _strings(data, ("ep",), where)
        kind = data.get("ept")
        if kind is not None and not isinstance(kind, str):
            raise Invalid("must be a string", field=where("data.ept"))
        return fields if kind is None else {**fields, "ept": kind}
    if topic in (events.DEVICE_DE_REGISTRATIONS, events.DEVICE_REGISTRATIONS_EXPIRED):
        if not isinstance(data, str) or not data:
            raise Invalid("must be the name of a device on this topic", field=where("data"))
        return {"ep": data}
    if topic == events.DEVICE_ASYNC_RESPONSES:
        if not to:
            raise Invalid("is needed: an async-response must say whom it is for", field=where("to"))
        return _strings(data, ("id",), where)
    return None


def _strings(data: Any, names: tuple[str, ...], where: Callable[[str], str]) -> dict[str, str]:
    if not isinstance(data, dict):
        raise Invalid("must be an object on this topic", field=where("data"))
    for name in names:
        if not isinstance(data.get(name), str) or not data[name]:
            raise Invalid("must be a string that is not empty", field=where(f"data.{name}"))
    return {name: data[name] for name in names}
