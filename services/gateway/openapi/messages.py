"""The NotificationMessage, for the document only: `shared.wire.pelion.messages` writes it piece by piece."""

from typing import Any

from msgspec import UNSET, Struct, UnsetType

from shared.wire.models import Closed


class DeviceItem(Struct, rename="kebab"):
    ep: str
    original_ep: str | UnsetType = UNSET
    ept: str | UnsetType = UNSET


class NotificationItem(Struct):
    ep: Any
    path: Any


class AsyncResponseItem(Struct):
    id: Any


class EventItem(Struct):
    id: str
    topic: str
    name: str | None
    time: str
    data: Any


_Gone = str | DeviceItem


class NotificationMessage(Closed, rename="kebab"):
    """The sections that are not empty, each an array of items."""

    async_responses: list[AsyncResponseItem] | UnsetType = UNSET
    registrations: list[DeviceItem] | UnsetType = UNSET
    reg_updates: list[DeviceItem] | UnsetType = UNSET
    de_registrations: list[_Gone] | UnsetType = UNSET
    registrations_expired: list[_Gone] | UnsetType = UNSET
    notifications: list[NotificationItem] | UnsetType = UNSET
    events: list[EventItem] | UnsetType = UNSET
