"""Our own view of channels, as JSON."""

from typing import Any

import msgspec

from shared.model.channels import ChannelState, Failing, Kind
from shared.model.deliveries import Delivery
from shared.wire.channels import channel_body, deliveries_body

AT_MS = 1_800_000_000_000
AT = "2027-01-15T08:00:00.000Z"


def test_webhook_has_no_connected_field() -> None:
    for kind in Kind:
        state = ChannelState(kind, connected=True, pending=2, dropped=1)
        body = msgspec.to_builtins(channel_body(state, None))
        assert body.get("connected") is (None if kind is Kind.WEBHOOK else True)
        assert (body["kind"], body["pending"], body["dropped"]) == (kind.value, 2, 1)
        assert "failing_since" not in body


def test_failing_webhook_shows_since_when_and_the_next_attempt() -> None:
    state = ChannelState(Kind.WEBHOOK, connected=False, pending=2)

    def shown(next_attempt_ms: int | None) -> Any:
        failing = Failing(since_ms=AT_MS, failed_attempts=3, next_attempt_ms=next_attempt_ms)
        return msgspec.to_builtins(channel_body(state, failing))

    later, now = shown(AT_MS + 1), shown(None)

    assert (later["failing_since"], later["failed_attempts"]) == (AT, 3)
    assert later["next_attempt_at"] == "2027-01-15T08:00:00.001Z"
    assert "next_attempt_at" not in now


def test_delivery() -> None:
    failed = Delivery(AT_MS, "msg_1", 7, None, "timed-out", 20_000, AT_MS)
    taken = Delivery(AT_MS, "msg_1", 7, 204, "", 3)

    shown = msgspec.to_builtins(deliveries_body([taken, failed]))["deliveries"]

    common = {"at": AT, "webhook_id": "msg_1", "batch": 7}
    assert shown[0] == {**common, "status": 204, "error": "", "took_ms": 3, "next_attempt_at": None}
    assert shown[1] == {
        **common,
        "status": None,
        "error": "timed-out",
        "took_ms": 20_000,
        "next_attempt_at": AT,
    }
