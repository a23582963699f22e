"""The body of GET /v1/events/{id} (docs/protocols/events.md)."""

from typing import Annotated

from msgspec import UNSET, Meta, UnsetType

from shared.model.receipts import ChannelReceipt, Receipt, State
from shared.wire.models import Closed, Count, Id, Moment
from shared.wire.times import moment_text


class ChannelReceiptBody(Closed):
    channel: Id
    state: State
    queued_at: Moment | UnsetType = UNSET
    sent_at: Moment | UnsetType = UNSET
    acked_at: Moment | UnsetType = UNSET
    dropped_at: Moment | UnsetType = UNSET
    reason: str | UnsetType = UNSET


class ReceiptBody(Closed):
    """What became of an event in each channel."""

    id: str
    topic: str
    published_at: Moment
    channels: Annotated[list[ChannelReceiptBody], Meta(max_length=1000)]
    channels_total: Count


def receipt_body(receipt: Receipt) -> ReceiptBody:
    return ReceiptBody(
        id=receipt.event_id,
        topic=receipt.topic,
        published_at=moment_text(receipt.published_ms),
        channels=[_channel(channel) for channel in receipt.channels],
        channels_total=receipt.channels_total,
    )


def _channel(receipt: ChannelReceipt) -> ChannelReceiptBody:
    return ChannelReceiptBody(
        channel=receipt.channel,
        state=receipt.state,
        queued_at=_moment(receipt.queued_ms),
        sent_at=_moment(receipt.sent_ms),
        acked_at=_moment(receipt.acked_ms),
        dropped_at=_moment(receipt.dropped_ms),
        reason=receipt.reason or UNSET,
    )


def _moment(ms: int | None) -> str | UnsetType:
    return UNSET if ms is None else moment_text(ms)
