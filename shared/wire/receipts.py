"""The body of GET /v1/events/{id} (docs/protocols/events.md)."""

from typing import Annotated

from msgspec import UNSET, Meta, UnsetType

from shared.model.receipts import ChannelReceipt, Receipt, State
from shared.wire.models import Closed, Count, Moment
from shared.wire.times import moment_or_none, moment_text


class ChannelReceiptBody(Closed):
    channel: Annotated[
        str,
        Meta(pattern=r"^(ch_)?[0-9a-f]{32}\Z", description="An API key, or a native channel."),
    ]
    state: State
    queued_at: Moment
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
    channels = [_channel(each) for each in receipt.channels]
    published_at = moment_text(receipt.published_ms)
    return ReceiptBody(receipt.event_id, receipt.topic, published_at, channels, receipt.channels_total)


def _channel(receipt: ChannelReceipt) -> ChannelReceiptBody:
    return ChannelReceiptBody(
        receipt.channel,
        receipt.state,
        queued_at=moment_text(receipt.queued_ms),
        sent_at=moment_or_none(receipt.sent_ms) or UNSET,
        acked_at=moment_or_none(receipt.acked_ms) or UNSET,
        dropped_at=moment_or_none(receipt.dropped_ms) or UNSET,
        reason=receipt.reason or UNSET,
    )
