"""Counters and histograms that cost little: they are read at each scrape.

The SDK's own take tens of microseconds for each value, and a notification needs several.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from opentelemetry.metrics import CallbackOptions, Observation

Labels = Mapping[str, str | int]
_Values = tuple[tuple[str, str | int], ...]
_NO_LABELS: Labels = MappingProxyType({})

BOUNDS_S = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
    *(300.0, 1800.0, 7200.0, 43_200.0),
)
"""The buckets of every distribution: from one Redis call to half a day in a queue."""


@dataclass(slots=True)
class Series:
    """The sum of one set of labels: the hot path adds to `total` without a call."""

    total: int = 0


class Count:
    """A counter, by labels."""

    def __init__(self) -> None:
        self._series: dict[_Values, Series] = {}

    def series(self, attributes: Labels = _NO_LABELS) -> Series:
        """Where to add what has these labels."""
        return self._series.setdefault(tuple(attributes.items()), Series())

    def add(self, amount: int, attributes: Labels = _NO_LABELS) -> None:
        labels = tuple(attributes.items())
        series = self._series.get(labels)
        if series is None:
            series = self._series[labels] = Series()
        series.total += amount

    def observe(self, _: CallbackOptions) -> Iterable[Observation]:
        return [Observation(series.total, dict(labels)) for labels, series in self._series.items()]


@dataclass(slots=True)
class Spread:
    """How many values fell into each bucket, the last of which has no bound, and their sum."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_S) + 1))
    sum_s: float = 0.0


class Distribution:
    """A histogram of seconds; `runtime.exporters` reads it, since OpenTelemetry has none of this kind."""

    def __init__(self, name: str, *, description: str) -> None:
        self.name = name
        self.description = description
        self.spreads: dict[_Values, Spread] = {}

    def record(self, took_s: float, attributes: Labels = _NO_LABELS, *, times: int = 1) -> None:
        labels = tuple(attributes.items()) if attributes else ()
        spread = self.spreads.get(labels)
        if spread is None:
            spread = self.spreads[labels] = Spread()
        spread.counts[bisect_left(BOUNDS_S, took_s)] += times
        spread.sum_s += took_s * times
