"""The body of GET /v1/events/{id} (docs/protocols/events.md)."""

from typing import Any

from shared.model.receipts import ChannelReceipt, Receipt
from shared.wire.times import moment_text


def receipt_body(receipt: Receipt) -> dict[str, Any]:
    """What became of an event, as JSON has it."""
    return {
        "id": receipt.event_id,
        "topic": receipt.topic,
        "published_at": moment_text(receipt.published_ms),
        "channels": [_channel(told) for told in receipt.channels],
        "channels_total": receipt.channels_total,
    }


def _channel(told: ChannelReceipt) -> dict[str, Any]:
    times = {
        "queued_at": told.queued_ms,
        "sent_at": told.sent_ms,
        "acked_at": told.acked_ms,
        "dropped_at": told.dropped_ms,
    }
    shown = {name: moment_text(ms) for name, ms in times.items() if ms is not None}
    reason = {"reason": told.reason} if told.reason else {}
    return {"channel": told.channel, "state": told.state, **shown, **reason}
