"""Counts lost, duplicated and out-of-order readings.

A reading is identified by its device and text. Order is per device, by the first arrival of each reading: a
repetition counts as a duplicate, not as out of order.
"""

import math
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Verdict:
    """The counts of a run. Latencies are in milliseconds, sorted."""

    sent: int
    received: int
    lost: int
    duplicated: int
    out_of_order: int
    unknown: int
    latencies_ms: list[float]
    undisturbed_ms: list[float]

    @property
    def passed(self) -> bool:
        """Duplicates are allowed: delivery is at least once."""
        return not (self.lost or self.out_of_order or self.unknown)


@dataclass(slots=True)
class _Sent:
    position: int
    at_s: float
    received_at_s: float | None = None


@dataclass(slots=True)
class Tally:
    """Records sent and received readings. Times are seconds of one clock."""

    _readings: dict[tuple[str, str], _Sent] = field(default_factory=dict)
    _sent_by: dict[str, int] = field(default_factory=dict)
    _newest: dict[str, int] = field(default_factory=dict)
    _disconnected: list[tuple[float, float]] = field(default_factory=list)
    received: int = 0
    duplicated: int = 0
    out_of_order: int = 0
    unknown: int = 0

    @property
    def sent(self) -> int:
        return len(self._readings)

    def note_sent(self, device: str, text: str, *, at_s: float) -> None:
        """Call this before the publish request: the reading may arrive before the response."""
        position = self._sent_by.get(device, 0)
        self._sent_by[device] = position + 1
        self._readings[device, text] = _Sent(position, at_s)

    def note_received(self, device: str, text: str, *, at_s: float) -> None:
        sent = self._readings.get((device, text))
        if sent is None:
            self.unknown += 1
            return
        if sent.received_at_s is not None:
            self.duplicated += 1
            return
        sent.received_at_s = at_s
        self.received += 1
        if sent.position < self._newest.get(device, -1):
            self.out_of_order += 1
        self._newest[device] = max(sent.position, self._newest.get(device, -1))

    def note_disconnected(self, from_s: float, to_s: float) -> None:
        """Excludes readings of this time, without a socket, from `undisturbed_ms`."""
        self._disconnected.append((from_s, to_s))

    def verdict(self) -> Verdict:
        arrived = [
            (sent.at_s, sent.received_at_s)
            for sent in self._readings.values()
            if sent.received_at_s is not None
        ]
        return Verdict(
            sent=self.sent,
            received=self.received,
            lost=self.sent - self.received,
            duplicated=self.duplicated,
            out_of_order=self.out_of_order,
            unknown=self.unknown,
            latencies_ms=sorted((to_s - from_s) * 1000 for from_s, to_s in arrived),
            undisturbed_ms=sorted(
                (to_s - from_s) * 1000 for from_s, to_s in arrived if not self._was_disconnected(from_s, to_s)
            ),
        )

    def _was_disconnected(self, from_s: float, to_s: float) -> bool:
        return any(from_s <= end_s and to_s >= begin_s for begin_s, end_s in self._disconnected)


def percentile(ordered: list[float], percent: float) -> float:
    """The value that `percent` of the ordered values do not exceed; NaN without values."""
    if not ordered:
        return math.nan
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]
