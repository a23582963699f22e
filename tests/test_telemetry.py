"""What travels with events, in a process that sends its spans nowhere: the publisher's own trace."""

import pytest

from shared import telemetry

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331"


@pytest.mark.parametrize(
    ("given", "travels"),
    [
        (None, ""),
        (f"{PARENT}-01", f"{PARENT}-01"),
        (f"{PARENT}-00", f"{PARENT}-00"),
        (f" {PARENT}-01 ", f"{PARENT}-01"),
        # Later versions may say more, and have more flags.
        (f"cc{PARENT[2:]}-07-more", f"{PARENT}-01"),
    ],
)
def test_the_publishers_trace_travels(given: str | None, travels: str) -> None:
    with telemetry.publish_span("account", 1, traceparent=given) as traceparent:
        assert traceparent == travels


@pytest.mark.parametrize(
    "given",
    [
        "",
        "nonsense",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{'0' * 32}-b7ad6b7169203331-01",
        f"ff{PARENT[2:]}-01",
        f"{PARENT}-1",
        f"{PARENT}-01-more",
        f"{PARENT}-01\n{PARENT}-01",
        "x" * 100_000,
    ],
)
def test_what_is_malformed_is_as_good_as_none(given: str) -> None:
    with telemetry.publish_span("account", 1, traceparent=given) as traceparent:
        assert traceparent == ""


@pytest.mark.parametrize("traceparent", ["", f"{PARENT}-00", f"{PARENT}-01"])
def test_nothing_is_recorded_that_would_go_nowhere(traceparent: str) -> None:
    assert telemetry.is_recorded(traceparent) is False
