"""Models of bodies that other code reads and writes piece by piece: for the OpenAPI document only."""

from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType

from shared.wire.models import Closed, Id


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


class NotificationMessage(Closed, rename="kebab"):
    """The sections that are not empty, each an array of items."""

    async_responses: list[AsyncResponseItem] | UnsetType = UNSET
    registrations: list[DeviceItem] | UnsetType = UNSET
    reg_updates: list[DeviceItem] | UnsetType = UNSET
    de_registrations: list[str | DeviceItem] | UnsetType = UNSET
    registrations_expired: list[str | DeviceItem] | UnsetType = UNSET
    notifications: list[NotificationItem] | UnsetType = UNSET
    events: list[EventItem] | UnsetType = UNSET


class Socket(Closed):
    """An open socket of the Kazoo dialect."""

    bindings: list[str]
    websocket_session_id: Id
    timestamp: Annotated[int, Meta(description="When it was opened, in seconds since the year 0.")]
    destination: Annotated[str, Meta(description="The edge that holds it.")]
    source: Annotated[str, Meta(description="The client's address.")]
    name: str | UnsetType = UNSET
    metadata: Any = UNSET


class AccountOfToken(Struct):
    account_id: Id
    account_name: str


class NewTokenData(Struct):
    api_key: Annotated[str, Meta(min_length=64)]


class NewToken(Struct):
    data: NewTokenData
