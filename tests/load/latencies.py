"""Latencies: every value, grouped by the half second in which it was measured."""

import math
import sys
import time
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

SLOT_US = 500_000
_LONGEST_US = 2**32 - 1
PERCENTS = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "max": 100.0}


def now_us() -> int:
    """Microseconds of the monotonic clock, which all processes of a machine share."""
    return time.monotonic_ns() // 1000


@dataclass(slots=True)
class Latencies:
    """Durations in µs. Workers create them and send them to the parent."""

    slots: dict[int, "array[int]"] = field(default_factory=dict)

    def slot(self, at_us: int) -> "array[int]":
        """The array for values measured now; append only `bounded` ones."""
        slot = self.slots.get(at_us // SLOT_US)
        if slot is None:
            slot = self.slots[at_us // SLOT_US] = array("I")
        return slot

    def add(self, took_us: int, *, at_us: int) -> None:
        self.slot(at_us).append(bounded(took_us))

    def __len__(self) -> int:
        return sum(map(len, self.slots.values()))

    def ordered(self) -> "array[int]":
        every = array("I")
        for slot in self.slots.values():
            every.extend(slot)
        return array("I", sorted(every))


def bounded(took_us: int) -> int:
    return min(max(took_us, 0), _LONGEST_US)


def merged(parts: Iterable[Latencies]) -> Latencies:
    whole = Latencies()
    for part in parts:
        for number, slot in part.slots.items():
            whole.slots.setdefault(number, array("I")).extend(slot)
    return whole


def percentile(ordered: Sequence[int | float], percent: float) -> float:
    """The value that `percent` of the ordered values do not exceed; NaN when there are none."""
    if not ordered:
        return math.nan
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


def percentiles_ms(latencies: Latencies) -> dict[str, float]:
    """p50, p90, p99 and max in milliseconds; empty without values."""
    ordered = latencies.ordered()
    if not ordered:
        return {}
    return {name: round(percentile(ordered, percent) / 1000, 3) for name, percent in PERCENTS.items()}


assert array("I").itemsize == 4, f"an unsigned int of 4 bytes is needed, not on {sys.platform}"
