"""What tells an event from every other one of its account, where Redis keeps something by event."""

from typing import Any

import orjson

from shared.model.events import Event, Notification


def identity_of(event: Event | Notification) -> str:
    """The event's id; of a CloudEvent with its source, as another source may give the same id."""
    id_ = event.id if isinstance(event, Event) else event.event_id
    if not event.attributes:
        return id_
    attributes: dict[str, Any] = orjson.loads(event.attributes)
    return identity(id_, attributes.get("source", ""))


def identity(event_id: str, source: str = "") -> str:
    # Neither can have a NUL, so no two pairs are one text.
    return f"{event_id}\0{source}" if source else event_id
