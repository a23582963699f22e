"""Channels as objects of an account: their ids, their names, and what each may set for itself.

A *native* channel belongs to its account alone. The channel of an API key, which Pelion's endpoints make, is
shown beside the native ones; its id is the key's, and it ends with the key.
"""

from dataclasses import dataclass, field
from enum import StrEnum

from shared.model.api_keys import is_id
from shared.model.callbacks import Callback
from shared.model.channels import Kind
from shared.model.webhooks import DEFAULT_POLICY, Disabled, WebhookPolicy

PREFIX = "ch_"
MAX_NAME = 255
ACK_TIMEOUT_MS = 30_000
"""Of a pull channel that sets none."""


class Activity(StrEnum):
    """What a channel does. FAILING: the last attempt of its webhook failed.

    DISABLED: its webhook gets no request until it is resumed.
    """

    ACTIVE = "active"
    PAUSED = "paused"
    FAILING = "failing"
    DISABLED = "disabled"


@dataclass(frozen=True, slots=True)
class ChannelRecord:
    """Whose channel it is. `name` and `customer` are '' without one; each change of them has a `revision`."""

    id: str
    account_id: str
    is_native: bool
    name: str = ""
    customer: str = ""
    revision: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class ChannelSettings:
    """What a native channel may set for itself; None: as the installation has it, or no expiry."""

    expires_after_ms: int | None = None
    queue_bytes: int | None = None
    queue_age_ms: int | None = None
    ack_timeout_ms: int | None = None


@dataclass(frozen=True, slots=True)
class NewChannel:
    """A native channel to be made. `bindings` are in their stored form. `callback` and `policy` are a
    webhook's."""

    id: str
    account_id: str
    kind: Kind
    name: str = ""
    customer: str = ""
    bindings: bytes = b""
    settings: ChannelSettings = ChannelSettings()
    callback: Callback | None = None
    policy: WebhookPolicy = DEFAULT_POLICY


@dataclass(frozen=True, slots=True)
class AccountChannel:
    """A channel as it is now. `failing_since_ms`: since when its webhook's attempts have failed, or None.

    Of a pull channel: `fetched` notifications are out until `ack_by_ms`, which may have passed.
    """

    record: ChannelRecord
    kind: Kind
    generation: str
    created_at_ms: int
    connected: bool
    pending: int
    dropped: int
    is_paused: bool
    failing_since_ms: int | None
    settings: ChannelSettings
    callback: Callback | None
    fetched: int = 0
    ack_by_ms: int = 0
    policy: WebhookPolicy | None = None
    config_version: str = ""
    disabled: Disabled | None = None

    @property
    def state(self) -> Activity:
        if self.disabled is not None:
            return Activity.DISABLED
        if self.is_paused:
            return Activity.PAUSED
        return Activity.ACTIVE if self.failing_since_ms is None else Activity.FAILING


def shown_id(channel: str) -> str:
    """The id as its account sees it."""
    return PREFIX + channel


def id_shown(text: str) -> str | None:
    """The channel's id in such a text; None for any other text."""
    channel = text.removeprefix(PREFIX)
    return channel if text.startswith(PREFIX) and is_id(channel) else None


def name_error(name: str) -> str | None:
    """The rule that a channel's name breaks, to be put after the field's name; None for a valid one.

    A name stands in paths, and where an id may stand.
    """
    if not 1 <= len(name) <= MAX_NAME:
        return f"must have 1 to {MAX_NAME} characters"
    if not name.isprintable():
        return "must have printable characters only"
    if name in (".", ".."):
        return "must be neither . nor ..: clients take these out of paths"
    if name.startswith(PREFIX) or is_id(name):
        return f"must not look like an id: {PREFIX}… or 32 hexadecimal digits"
    return None
