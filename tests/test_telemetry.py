"""Trace headers of publishers without a collector, and metrics that cost little."""

import time
from dataclasses import dataclass
from itertools import groupby, pairwise
from types import SimpleNamespace

import pytest
from opentelemetry.metrics import CallbackOptions

from shared import meters, telemetry
from shared.runtime.exporters import Distributions

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331"


@pytest.mark.parametrize(
    ("given", "passed_on"),
    [
        (None, ""),
        (f"{PARENT}-01", f"{PARENT}-01"),
        (f"{PARENT}-00", f"{PARENT}-00"),
        (f" {PARENT}-01 ", f"{PARENT}-01"),
        # Later versions may have more fields and flags.
        (f"cc{PARENT[2:]}-07-more", f"{PARENT}-01"),
    ],
)
def test_the_publishers_trace_is_passed_on(given: str | None, passed_on: str) -> None:
    assert telemetry.PublishSpan("account", 1, traceparent=given).traceparent == passed_on


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
def test_a_malformed_header_counts_as_absent(given: str) -> None:
    assert telemetry.PublishSpan("account", 1, traceparent=given).traceparent == ""


@pytest.mark.parametrize("traceparent", ["", f"{PARENT}-00", f"{PARENT}-01"])
def test_without_a_collector_nothing_is_recorded(traceparent: str) -> None:
    assert telemetry.is_recorded(traceparent) is False


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> meters.Distribution:
    """The only distribution, with nothing recorded."""
    made = meters.Distribution("notify.test", description="test")
    monkeypatch.setattr(telemetry, "distributions", [made])
    return made


@dataclass
class Point:
    attributes: dict[str, str]
    bucket_counts: list[float]
    count: float
    sum: float


def points() -> list[Point]:
    """The histograms on /metrics, one for each set of labels."""
    samples = [sample for family in Distributions().collect() for sample in family.samples]
    labels = [{name: value for name, value in each.labels.items() if name != "le"} for each in samples]
    found = []
    for attributes, group in groupby(zip(labels, samples, strict=True), key=lambda pair: pair[0]):
        *buckets, count, total = [sample.value for _, sample in group]
        counts = [upper - lower for lower, upper in pairwise([0.0, *buckets])]
        found.append(Point(attributes, counts, count, total))
    return found


def test_a_value_counts_in_the_first_bucket_that_holds_it(
    measured: meters.Distribution,
) -> None:
    low, high = meters.BOUNDS_S[0], meters.BOUNDS_S[-1]
    for took_s in (0.0, low, low * 1.01, high, high + 1):
        measured.record(took_s)

    [point] = points()
    counts = [*point.bucket_counts]
    assert (counts[0], counts[1], counts[-2], counts[-1]) == (2, 1, 1, 1)
    assert len(counts) == len(meters.BOUNDS_S) + 1
    assert point.count == sum(counts) == 5
    assert point.sum == pytest.approx(2 * high + 1 + low * 2.01)


def test_each_set_of_labels_has_its_own_buckets(measured: meters.Distribution) -> None:
    measured.record(1, {"dialect": "kazoo"}, times=3)
    measured.record(1, {"dialect": "pelion"})

    found = {str(point.attributes["dialect"]): (point.count, point.sum) for point in points()}
    assert found == {"kazoo": (3, 3.0), "pelion": (1, 1.0)}


def test_an_empty_distribution_is_not_exported(measured: meters.Distribution) -> None:
    assert points() == []


@pytest.mark.parametrize(("ago_ms", "least_s"), [(90_000, 90), (-90_000, 0)], ids=["waited", "a clock ahead"])
def test_an_ack_records_the_delivery_time(
    measured: meters.Distribution, monkeypatch: pytest.MonkeyPatch, ago_ms: int, least_s: int
) -> None:
    monkeypatch.setattr(telemetry, "_delivery_s", measured)
    queued_ms = time.time_ns() // 1_000_000 - ago_ms

    telemetry.record_acked(f"{queued_ms}-3", 20)
    telemetry.record_acked("0-0", 0)

    [point] = points()
    assert point.count == 20
    assert point.sum >= 20 * least_s
    assert point.bucket_counts[-1] == 0, "acking nothing records nothing"


def test_ages_are_shown_until_the_next_scan_is_overdue(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 1000.0
    monkeypatch.setattr(telemetry, "time", SimpleNamespace(monotonic=lambda: now_s))
    ages = telemetry.Readings("notify.test.oldest", unit="s", description="test")

    def shown() -> list[tuple[float, object]]:
        return [(each.value, dict(each.attributes or {})) for each in ages._observe(CallbackOptions())]

    assert shown() == []
    ages.set([(7.5, {"kind": "pull"}), (-1.0, {"kind": "webhook"})], every_s=10)
    now_s += 59
    assert shown() == [(7.5, {"kind": "pull"}), (0.0, {"kind": "webhook"})]
    now_s += 1
    assert shown() == []
