"""A channel is a destination with a queue; whoever holds its lease may drain that queue."""

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """How a channel's notifications reach the application."""

    WEBSOCKET = "websocket"
    WEBHOOK = "webhook"
    PULL = "pull"


class CloseReason(StrEnum):
    """Why a socket is over. Each dialect maps it to its own close code."""

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


@dataclass(frozen=True, slots=True)
class ChannelState:
    """What is true of a channel now.

    `queue_size` counts the notifications it is still pending, `dropped` those it was pending and will not get:
    too old, or pushed out by newer ones. `serialization` is how it wants them, as it was stored.
    """

    kind: Kind
    connected: bool
    queue_size: int
    dropped: int = 0
    serialization: bytes = b""


@dataclass(frozen=True, slots=True)
class Failing:
    """How long a webhook has not taken what waits for it: since when, after how many failed attempts, and when the
    next one is (None: at once)."""

    since_ms: int
    failed_attempts: int
    next_attempt_ms: int | None


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to drain one channel's queue, as one socket has claimed it.

    `owner` is `replica/instance/claim`; `previous` is the owner this claim replaced. Redis may have lost the
    claim in a crash: then nobody or `previous` stands there, and the lease is still ours.
    """

    channel: str
    generation: str
    owner: str
    previous: str


# Stands for an owner where a webhook channel has none: every dispatcher hears its wakeups.
ANY_DISPATCHER = "dispatchers/any"
# Every edge hears its wakeups: any may hold sockets of an API key's sessions.
EVERY_EDGE = "edges/every"


def instance_of(owner: str) -> str:
    """The `replica/instance` of an owner: the name under which its process hears wakeups."""
    return owner.rpartition("/")[0]
