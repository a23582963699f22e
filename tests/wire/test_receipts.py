"""Receipts show only what has happened so far."""

import msgspec
import pytest

from shared.model.receipts import ChannelReceipt, Receipt
from shared.wire.receipts import receipt_body

QUEUED = {"channel": "c", "queued_at": "1970-01-01T00:00:01.000Z"}
SENT = {"sent_at": "1970-01-01T00:00:02.500Z"}


@pytest.mark.parametrize(
    ("channel", "shown"),
    [
        (ChannelReceipt("c", 1000), {"state": "queued"}),
        (ChannelReceipt("c", 1000, sent_ms=2500), {"state": "sent", **SENT}),
        (
            ChannelReceipt("c", 1000, sent_ms=2500, acked_ms=3000),
            {"state": "acked", **SENT, "acked_at": "1970-01-01T00:00:03.000Z"},
        ),
        (
            ChannelReceipt("c", 1000, acked_ms=3000),
            {"state": "acked", "acked_at": "1970-01-01T00:00:03.000Z"},
        ),
        (
            ChannelReceipt("c", 1000, sent_ms=2500, dropped_ms=4000, reason="too-old"),
            {"state": "dropped", **SENT, "dropped_at": "1970-01-01T00:00:04.000Z", "reason": "too-old"},
        ),
    ],
    ids=["queued", "sent", "acked", "acked unsent", "dropped"],
)
def test_a_channel_shows_how_far_the_event_got(channel: ChannelReceipt, shown: dict[str, str]) -> None:
    receipt = Receipt(event_id="e", topic="t", published_ms=500, channels=[channel], channels_total=3)

    assert msgspec.to_builtins(receipt_body(receipt)) == {
        "id": "e",
        "topic": "t",
        "published_at": "1970-01-01T00:00:00.500Z",
        "channels": [QUEUED | shown],
        "channels_total": 3,
    }
