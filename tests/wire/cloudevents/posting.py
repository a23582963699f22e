"""CloudEvents as a publisher posts them, and what the gateway makes of them."""

from collections.abc import Callable, Sequence
from typing import Any

import orjson
import pytest

from shared.model.errors import Invalid
from shared.model.events import Event
from shared.wire.events import Form
from shared.wire.posted_cloudevents import cloudevents_in

LEAST = {"specversion": "1.0", "id": "e1", "source": "/shop", "type": "orders.paid"}
KEPT = {"source": "/shop"}
Headers = Sequence[tuple[bytes, bytes]]


def posted(*events: Any, form: Form = Form.STRUCTURED) -> list[Event]:
    text = orjson.dumps(events[0] if form is Form.STRUCTURED else events)
    return list(cloudevents_in(text, form=form))


def headers_of(attributes: dict[str, str]) -> Headers:
    return [(f"ce-{name}".encode(), value.encode()) for name, value in attributes.items()]


def binary(headers: Headers, body: bytes = b"1", content_type: str = "application/json") -> Event:
    [event] = cloudevents_in(body, form=Form.BINARY, headers=headers, content_type=content_type)
    return event


def kept(event: Event) -> dict[str, Any]:
    attributes: dict[str, Any] = orjson.loads(event.attributes)
    return attributes


def refusal(call: Callable[[], object]) -> tuple[str | None, str]:
    """The name and the rule of the Invalid that this raises."""
    with pytest.raises(Invalid) as raised:
        call()
    return named(raised.value)


def named(error: Invalid) -> tuple[str | None, str]:
    return error.fields[0] if error.fields else (None, error.message)
