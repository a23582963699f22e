"""Our own view of channels, as JSON."""

from shared.model.channels import ChannelState, Failing, Kind
from shared.model.deliveries import Delivery
from shared.wire.channels import channel_body, deliveries_body

AT_MS = 1_800_000_000_000
AT = "2027-01-15T08:00:00.000Z"


def test_only_what_an_application_holds_open_is_connected() -> None:
    for kind in Kind:
        body = channel_body(ChannelState(kind, connected=True, queue_size=2, dropped=1), None)
        assert body.get("connected") is (None if kind is Kind.WEBHOOK else True)
        assert (body["kind"], body["queue_size"], body["dropped"]) == (kind.value, 2, 1)
        assert "failing_since" not in body


def test_a_webhook_that_fails_says_since_when_and_until_when() -> None:
    state = ChannelState(Kind.WEBHOOK, connected=False, queue_size=2)

    later = channel_body(state, Failing(since_ms=AT_MS, failed_attempts=3, next_attempt_ms=AT_MS + 1))
    now = channel_body(state, Failing(since_ms=AT_MS, failed_attempts=3, next_attempt_ms=None))

    assert (later["failing_since"], later["failed_attempts"]) == (AT, 3)
    assert later["next_attempt_at"] == "2027-01-15T08:00:00.001Z"
    assert "next_attempt_at" not in now


def test_a_delivery() -> None:
    failed = Delivery(AT_MS, "msg_1", 7, None, "timed-out", 20_000, AT_MS)
    taken = Delivery(AT_MS, "msg_1", 7, 204, "", 3)

    told = deliveries_body([taken, failed])["deliveries"]

    common = {"at": AT, "webhook_id": "msg_1", "batch": 7}
    assert told[0] == {**common, "status": 204, "error": "", "took_ms": 3, "next_attempt_at": None}
    assert told[1] == {
        **common,
        "status": None,
        "error": "timed-out",
        "took_ms": 20_000,
        "next_attempt_at": AT,
    }
