"""Events as a publisher posts them, with numbers that show a receiver what is missing."""

import base64
from typing import Any

Event = dict[str, Any]

NOTIFICATIONS = "device.notifications"


def payload(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def reading(
    number: int, *, to: str | None = None, ep: str = "sensor-1", path: str = "/3303/0/5700", padding: int = 0
) -> Event:
    """A device notification with `number` as its payload; `to` (an API key's id) needs no subscription.

    `padding` adds about so many bytes.
    """
    item = {
        "ep": ep,
        "path": path,
        "ct": "text/plain",
        "payload": payload(str(number) + " " * (padding * 3 // 4)),
        "max-age": 60,
    }
    event: Event = {"topic": NOTIFICATIONS, "data": item}
    return event if to is None else event | {"to": to}


def readings(numbers: range, *, to: str | None = None, padding: int = 0) -> list[Event]:
    return [reading(number, to=to, padding=padding) for number in numbers]


def number_of(item: dict[str, Any]) -> int:
    """The number of a `reading`."""
    return int(base64.b64decode(item["payload"]))


def registration(ep: str, *, ept: str | None = None, topic: str = "device.registrations") -> Event:
    data: dict[str, Any] = {"ep": ep, "q": False, "resources": [{"path": "/3303/0/5700", "obs": True}]}
    return {"topic": topic, "data": data if ept is None else data | {"ept": ept}}
