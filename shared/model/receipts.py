"""A receipt tells a publisher what became of one event, channel by channel."""

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
    """What became of it in one channel, and when, in ms. `reason` says why it was dropped."""

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
    """What became of an event. `channels` are those that have it or had it, of the first that wanted it;
    `channels_total` counts all that wanted it."""

    event_id: str
    topic: str
    published_ms: int
    channels: list[ChannelReceipt]
    channels_total: int
