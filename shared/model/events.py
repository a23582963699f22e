"""An event is what a publisher posts; a notification is an event as kept for one channel."""

from dataclasses import dataclass
from typing import NamedTuple

DEVICE_NOTIFICATIONS = "device.notifications"
DEVICE_REGISTRATIONS = "device.registrations"
DEVICE_REG_UPDATES = "device.reg-updates"
DEVICE_DE_REGISTRATIONS = "device.de-registrations"
DEVICE_REGISTRATIONS_EXPIRED = "device.registrations-expired"
DEVICE_ASYNC_RESPONSES = "device.async-responses"

# These go to every channel of the account; no binding is needed.
TO_EVERY_CHANNEL = frozenset(
    {DEVICE_REGISTRATIONS, DEVICE_REG_UPDATES, DEVICE_DE_REGISTRATIONS, DEVICE_REGISTRATIONS_EXPIRED}
)


OF_DEVICES = "device."
"""Topics that begin so have routing rules of their own; plain topic bindings never match them."""


class Event(NamedTuple):
    """What a publisher posted. A named tuple: a frozen dataclass takes five times as long to create.

    `fields` are the strings that bindings match. `data` is JSON, kept as the publisher's bytes. `to` names
    the one channel that receives it. `receipt` records the event's delivery for the publisher. With a
    `customer` only that customer's channels receive it. `attributes` is a JSON object of what a CloudEvent
    says beside (wire/cloudevents.py); empty for other events.
    """

    id: str
    topic: str
    data: bytes
    name: str = ""
    time: str = ""
    to: str | None = None
    fields: dict[str, str] | None = None
    receipt: bool = False
    customer: str | None = None
    attributes: bytes = b""


@dataclass(frozen=True, slots=True)
class Trail:
    """How delivery of a notification is recorded: in a receipt, in spans under `traceparent`, or both."""

    receipt: bool = False
    traceparent: str = ""


class Notification(NamedTuple):
    """An event as kept for one channel, under its entry id in the queue.

    `account` is the event's account, for sessions that receive events of several. `attributes` are the
    event's. `again` says why it was queued once more: `resend` or `replay`.
    """

    entry_id: str
    event_id: str
    topic: str
    data: bytes
    name: str = ""
    time: str = ""
    trail: Trail | None = None
    account: str = ""
    attributes: bytes = b""
    again: str = ""
