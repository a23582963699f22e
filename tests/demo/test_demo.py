"""The demo counts correctly, has real readings, and passes on a small scale."""

import base64
import math
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.demo.readings import readings, text_in
from tests.demo.tally import Tally, percentile

CHECKOUT = Path(__file__).parents[2]


def tally_of(sent: str, received: str, *, device: str = "seattle") -> Tally:
    """A run in which each character is a reading; all are sent at once and received 10 ms later."""
    tally = Tally()
    for text in sent:
        tally.note_sent(device, text, at_s=1.0)
    for text in received:
        tally.note_received(device, text, at_s=1.01)
    return tally


@pytest.mark.parametrize(
    ("received", "lost", "duplicated", "out_of_order", "unknown", "passed"),
    [
        ("abcd", 0, 0, 0, 0, True),
        ("abd", 1, 0, 0, 0, False),
        ("abc", 1, 0, 0, 0, False),
        ("", 4, 0, 0, 0, False),
        ("abbcd", 0, 1, 0, 0, True),
        ("acbd", 0, 0, 1, 0, False),
        ("dabc", 0, 0, 3, 0, False),
        ("abcabcd", 0, 3, 0, 0, True),
        ("abxcd", 0, 0, 0, 1, False),
    ],
    ids=[
        "all well",
        "one lost",
        "last lost",
        "all lost",
        "doubled",
        "swapped",
        "late",
        "sent again",
        "strange",
    ],
)
def test_counts_by_received_readings(
    received: str, lost: int, duplicated: int, out_of_order: int, unknown: int, passed: bool
) -> None:
    verdict = tally_of("abcd", received).verdict()
    assert (verdict.lost, verdict.duplicated, verdict.out_of_order, verdict.unknown, verdict.passed) == (
        lost,
        duplicated,
        out_of_order,
        unknown,
        passed,
    )


def test_order_is_per_device() -> None:
    tally = tally_of("ab", "")
    tally.note_sent("san-francisco", "a", at_s=1.0)
    for device, text in [("san-francisco", "a"), ("seattle", "a"), ("seattle", "b")]:
        tally.note_received(device, text, at_s=2.0)
    assert tally.verdict().passed


def test_latency_excludes_readings_during_a_disconnection() -> None:
    tally = tally_of("ab", "")
    tally.note_received("seattle", "a", at_s=1.01)
    tally.note_disconnected(1.5, 2.0)
    tally.note_received("seattle", "b", at_s=2.1)
    verdict = tally.verdict()
    assert verdict.latencies_ms == pytest.approx([10, 1100])
    assert verdict.undisturbed_ms == pytest.approx([10])


def test_percentiles_are_values_that_occurred() -> None:
    ordered = [float(number) for number in range(1, 101)]
    assert (percentile(ordered, 50), percentile(ordered, 99), percentile([7.0], 50)) == (50, 99, 7)
    assert math.isnan(percentile([], 50))


def test_the_readings_are_real() -> None:
    everything = readings()
    assert len(everything) == 17_518
    assert [(reading.device, reading.text) for reading in everything[:4]] == [
        ("seattle", "2010-01-01T00:00 39.4"),
        ("san-francisco", "2010-01-01T00:00 47.8"),
        ("seattle", "2010-01-01T01:00 39.2"),
        ("san-francisco", "2010-01-01T01:00 47.4"),
    ]
    assert len({(reading.device, reading.text) for reading in everything}) == len(everything)


def test_a_reading_becomes_a_device_notification() -> None:
    event = readings()[0].event
    assert event["topic"] == "device.notifications"
    assert event["data"] == {
        "ep": "seattle",
        "path": "/3303/0/5700",
        "ct": "text/plain",
        "payload": base64.b64encode(b"2010-01-01T00:00 39.4").decode(),
        "max-age": 0,
    }
    assert text_in(event["data"]) == "2010-01-01T00:00 39.4"


def test_a_small_run_with_its_own_gateway() -> None:
    command = [sys.executable, "-m", "tests.demo", "--readings", "400"]
    with subprocess.Popen(
        command, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as demo:
        try:
            output, _ = demo.communicate(timeout=90)
        except subprocess.TimeoutExpired:
            # SIGTERM: the demo must stop its gateway.
            demo.send_signal(signal.SIGTERM)
            output, _ = demo.communicate(timeout=30)
    assert demo.returncode == 0, output
    counts = {
        name: int(count)
        for name, count in (line.strip().rsplit(maxsplit=1) for line in output.splitlines() if "   " in line)
        if count.isdigit()
    }
    assert (counts["sent"], counts["received"], counts["lost"], counts["out of order"]) == (400, 400, 0, 0)
    assert "without a close frame" in output
