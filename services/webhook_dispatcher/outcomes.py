"""What an attempt leaves behind."""

from dataclasses import dataclass
from enum import Enum, auto

from services.webhook_dispatcher.native_failures import Failed
from shared.delivery.tracing import DeliveryTracer
from shared.model.deliveries import Delivery
from shared.wire.messages import Message


class Outcome(Enum):
    """What an attempt leaves behind, and who has the lease then."""

    NOTHING_TO_SEND = auto()
    BACKOFF = auto()
    """The time of the next attempt has not come."""
    ACCEPTED = auto()
    EMPTIED = auto()
    """Accepted, and nothing else was in the queue."""
    RELEASED = auto()
    """The lease is gone: the attempt failed and is retried later, or another owner has it."""
    CHANGED = auto()
    """The lease is released, and the next attempt is due at once: the URL or its headers have changed."""
    PACED = auto()
    """The webhook's rate allows no request for `KnownWebhook.paced_ms`."""
    PARALLEL = auto()
    """The webhook has several requests at once: nothing was sent (parallel.py)."""
    IN_ORDER = auto()
    """The webhook has one request at a time now."""
    NO_PLACE = auto()
    """Nothing is under way, and no place was free in time: another dispatcher may have the channel."""
    MOVED = auto()
    """The URL is not the one that was resolved, or was replaced during the request: to be sent again."""


@dataclass(slots=True)
class Made:
    """An attempt that was made: what was sent, what the channel keeps of it, and how it failed, if it did."""

    message: Message
    delivery: Delivery
    tracer: DeliveryTracer
    failed: Failed | None
