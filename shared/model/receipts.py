"""A receipt records the delivery of one event, channel by channel, for its publisher."""

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """How far an event got in one channel."""

    QUEUED = "queued"
    SENT = "sent"
    ACKED = "acked"
    DROPPED = "dropped"


@dataclass(frozen=True, slots=True)
class ChannelReceipt:
    """Delivery to one channel, with times in ms. `reason` says why the event was dropped."""

    channel: str
    queued_ms: int
    sent_ms: int | None = None
    acked_ms: int | None = None
    dropped_ms: int | None = None
    reason: str = ""

    @property
    def state(self) -> State:
        if self.acked_ms is not None:
            return State.ACKED
        if self.dropped_ms is not None:
            return State.DROPPED
        return State.QUEUED if self.sent_ms is None else State.SENT


@dataclass(frozen=True, slots=True)
class Receipt:
    """Delivery of one event. `channels` holds the first channels that it was queued for, `channels_total`
    counts all that matched."""

    event_id: str
    topic: str
    published_ms: int
    channels: list[ChannelReceipt]
    channels_total: int
