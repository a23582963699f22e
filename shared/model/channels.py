"""A channel is a destination with a queue; the owner of its lease delivers from it."""

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """How a channel's notifications reach the application."""

    WEBSOCKET = "websocket"
    WEBHOOK = "webhook"
    PULL = "pull"


class CloseReason(StrEnum):
    """Why a socket or poll ended. `wire.close_reasons` has the close codes."""

    TAKEN_OVER = "taken-over"
    CHANNEL_DELETED = "channel-deleted"
    KEY_REVOKED = "key-revoked"
    KEY_EXPIRED = "key-expired"
    NO_CHANNEL = "no-channel"
    BAD_KEY = "bad-key"
    STOPPING = "stopping"
    REDIS_UNAVAILABLE = "redis-unavailable"
    UNEXPECTED = "unexpected"
    STALLED = "stalled"
    CLIENT_GONE = "client-gone"
    IDLE = "idle"
    CROWDED_OUT = "crowded-out"
    OVER_BUDGET = "over-budget"
    TOO_MANY_FAILURES = "too-many-failures"
    OVER_QUOTA = "over-quota"
    PAUSED = "paused"
    TOKEN_EXPIRED = "token-expired"  # noqa: S105
    TOKEN_KEY_DELETED = "token-key-deleted"  # noqa: S105
    SIGNED_OUT = "signed-out"
    TICKET_TAKEN = "ticket-taken"
    TOO_SLOW = "too-slow"
    UNBOUND = "unbound"
    MALFORMED = "malformed"
    NOT_AUTHENTICATED = "not-authenticated"
    FORBIDDEN = "forbidden"
    LOST_WRITES = "lost-writes"


@dataclass(frozen=True, slots=True)
class ChannelState:
    """A channel as it is now.

    `pending` counts pending notifications. `dropped` counts those that were removed undelivered: expired,
    or pushed out of a full queue. `serialization` is the stored JSON.
    """

    kind: Kind
    connected: bool
    pending: int
    dropped: int = 0
    serialization: bytes = b""


@dataclass(frozen=True, slots=True)
class Failing:
    """A webhook whose deliveries fail: since when, after how many attempts, and when the next one is due
    (None: at once)."""

    since_ms: int
    failed_attempts: int
    next_attempt_ms: int | None


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to deliver from one channel's queue.

    `owner` is `replica/instance/claim`; `previous` is the owner that this claim replaced. Redis may lose the
    claim in a crash, or when an older copy of its data is restored: a channel without an owner, with
    `previous`, or with an owner that claimed before `claimed_ms` (by Redis' clock), still counts as ours.
    `is_native`: the channel is no API key's.
    """

    channel: str
    generation: str
    owner: str
    previous: str
    claimed_ms: int = 0
    is_native: bool = False


# The owner of a webhook channel without a lease: its wakeups go to every dispatcher.
ANY_DISPATCHER = "dispatchers/any"
# Wakeups to every edge: any of them may hold session sockets of an API key.
EVERY_EDGE = "edges/every"


def instance_of(owner: str) -> str:
    """The `replica/instance` of an owner: where its wakeups go."""
    return owner.rpartition("/")[0]
