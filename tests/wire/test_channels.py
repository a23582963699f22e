"""Our own view of channels, as JSON."""

from dataclasses import replace
from typing import Any

import msgspec

from shared.model.channels import ChannelState, Failing, Kind
from shared.model.deliveries import AttemptOutcome, Delivery, exchange
from shared.wire.channels import channel_body, deliveries_body, one_delivery_body

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
    failure, success = AttemptOutcome.FAILURE, AttemptOutcome.SUCCESS
    failed = Delivery(AT_MS, "msg_1", 7, None, "timed-out", 20_000, AT_MS, id="4-0", outcome=failure)
    taken = Delivery(
        *(AT_MS, "msg_1", 7, 204, "", 3),
        url="https://example.com/?a",
        method="POST",
        events=("e-1",),
        id="5-0",
        outcome=success,
    )

    shown = msgspec.to_builtins(deliveries_body([taken, failed], "3-0"))

    common = {"at": AT, "webhook_id": "msg_1", "batch": 7, "again": None}
    assert shown["next_after"] == "3-0"
    assert shown["deliveries"] == [
        {
            **common,
            "id": "5-0",
            "outcome": "success",
            "method": "POST",
            "url": "https://example.com/?a",
            "events": ["e-1"],
            "status": 204,
            "error": "",
            "detail": "",
            "took_ms": 3,
            "next_attempt_at": None,
        },
        {
            **common,
            "id": "4-0",
            "outcome": "failure",
            "method": None,
            "url": None,
            "events": [],
            "status": None,
            "error": "timed-out",
            "detail": "",
            "took_ms": 20_000,
            "next_attempt_at": AT,
        },
    ]


def test_a_failure_shows_what_was_sent_and_answered() -> None:
    found = exchange({"A": "b"}, b'{"n": 1}', b"\xff", answer_headers={"server": "x"})
    failed = Delivery(AT_MS, "msg_1", 1, 500, "", 3, id="1-0", outcome=AttemptOutcome.FAILURE, exchange=found)

    shown = msgspec.to_builtins(one_delivery_body(failed))

    assert shown["request"] == {
        "headers": {"A": "b"},
        "body": {"text": '{"n": 1}', "encoding": "utf-8"},
        "body_bytes": 8,
    }
    assert shown["response"] == {
        "headers": {"server": "x"},
        "body": {"text": "/w==", "encoding": "base64"},
    }
    without = msgspec.to_builtins(one_delivery_body(replace(failed, status=None)))
    assert (without["request"], without["response"]) == (shown["request"], None)
    forgotten = msgspec.to_builtins(one_delivery_body(replace(failed, exchange=None)))
    assert (forgotten["request"], forgotten["response"]) == (None, None)
