"""An event is what a publisher posts; a notification is that event as pending to one channel."""

from dataclasses import dataclass
from typing import NamedTuple

DEVICE_NOTIFICATIONS = "device.notifications"
DEVICE_REGISTRATIONS = "device.registrations"
DEVICE_REG_UPDATES = "device.reg-updates"
DEVICE_DE_REGISTRATIONS = "device.de-registrations"
DEVICE_REGISTRATIONS_EXPIRED = "device.registrations-expired"
DEVICE_ASYNC_RESPONSES = "device.async-responses"

# What concerns a device as such goes to every channel of the account, subscribed or not.
TO_EVERY_CHANNEL = frozenset(
    {
        DEVICE_REGISTRATIONS,
        DEVICE_REG_UPDATES,
        DEVICE_DE_REGISTRATIONS,
        DEVICE_REGISTRATIONS_EXPIRED,
    }
)

_OF_A_DEVICE = "device."


def is_of_a_device(topic: str) -> bool:
    """Has the topic rules of its own about who gets it? No plain topic binding matches such a one."""
    return topic.startswith(_OF_A_DEVICE)


class Event(NamedTuple):
    """What a publisher posted; a tuple, since a frozen dataclass takes five times as long to make.

    `fields` are the values that bindings look at (strings only); `data` is the JSON of the event's data,
    carried as bytes because nobody between publisher and receiver needs to read it. With `receipt` the
    publisher may ask later what became of it.
    """

    id: str
    topic: str
    data: bytes
    name: str = ""
    time: str = ""
    to: str | None = None
    fields: dict[str, str] | None = None
    receipt: bool = False


@dataclass(frozen=True, slots=True)
class Trail:
    """How a notification's way is followed: by a receipt, by spans under `traceparent`, or both."""

    receipt: bool = False
    traceparent: str = ""


class Notification(NamedTuple):
    """An event as pending to one channel. `entry_id` is its place in the queue: later entries compare as newer.

    `account` tells whose event it is, where a channel may be pending those of several.
    """

    entry_id: str
    event_id: str
    topic: str
    data: bytes
    name: str = ""
    time: str = ""
    trail: Trail | None = None
    account: str = ""

    @property
    def size_bytes(self) -> int:
        return len(self.data) + len(self.topic)
