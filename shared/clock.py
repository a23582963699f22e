"""Redis' time, as this process keeps it. `shared/model` and `shared/wire` take `now_ms` as a parameter.

Redis stamps entries, leases and heartbeats with its own clock. Judged by another clock, new entries would
count as too old, and live channels as idle. So a process reads Redis' TIME, keeps the difference to its
monotonic clock, and goes on by that one: changes of the machine's wall clock do not reach it.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median_low

# A difference above this is named in the log, in the metrics and by /readyz. A correction below it never
# turns the clock back.
TOLERANCE_NS = 1_000_000_000
_SAMPLES = 8
# What a clock that is being slewed may drift while these samples are kept.
_DRIFT_NS = 50_000_000


@dataclass(frozen=True, slots=True)
class Sample:
    """Redis' time, read at some moment between `asked_ns` and `answered_ns` of the monotonic clock."""

    asked_ns: int
    redis_ns: int
    answered_ns: int

    @property
    def round_trip_ns(self) -> int:
        return self.answered_ns - self.asked_ns

    @property
    def offset_ns(self) -> int:
        """Redis' time minus the monotonic clock, if the reply took as long as the request."""
        return self.redis_ns - (self.asked_ns + self.answered_ns) // 2

    def fits(self, other: "Sample") -> bool:
        """Whether one offset explains both."""
        apart_ns = abs(self.offset_ns - other.offset_ns)
        return apart_ns <= (self.round_trip_ns + other.round_trip_ns) // 2 + _DRIFT_NS


@dataclass(slots=True)
class _Primary:
    """The last samples of one Redis."""

    samples: deque[Sample] = field(default_factory=lambda: deque(maxlen=_SAMPLES))

    def add(self, sample: Sample) -> None:
        if not all(map(sample.fits, self.samples)):
            # Its clock was set, or a replica with another clock has taken its place.
            self.samples.clear()
        self.samples.append(sample)

    @property
    def offset_ns(self) -> int:
        """By the sample with the shortest round trip: that one is the most exact."""
        return min(self.samples, key=lambda sample: sample.round_trip_ns).offset_ns


class Clock:
    """Redis' time. Until the first sample it is the system's time: a process that serves has sampled before.

    It never goes back, except by a whole correction of more than a second; for a smaller one it stands still.
    """

    def __init__(
        self,
        *,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
        system_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.monotonic_ns = monotonic_ns
        self._system_ns = system_ns
        self._primaries: dict[str, _Primary] = {}
        self._offset_ns: int | None = None
        self._last_ms = 0

    def now_ms(self) -> int:
        """Milliseconds since 1970."""
        if self._offset_ns is None:
            return self._system_ns() // 1_000_000
        ms = (self.monotonic_ns() + self._offset_ns) // 1_000_000
        if ms > self._last_ms:
            self._last_ms = ms
        return self._last_ms

    def learn(self, samples: Mapping[str, Sample]) -> None:
        """Takes one sample of each Redis that replied, by name, and forgets all other ones.

        Of several, as in a cluster, the median counts. Without a sample the clock goes on as before.
        """
        if not samples:
            return
        self._primaries = {name: self._primaries.get(name, _Primary()) for name in samples}
        for name, sample in samples.items():
            self._primaries[name].add(sample)
        offset_ns = median_low(primary.offset_ns for primary in self._primaries.values())
        if self._offset_ns is None or offset_ns < self._offset_ns - TOLERANCE_NS:
            self._last_ms = 0
        self._offset_ns = offset_ns

    def ahead_ns(self) -> int | None:
        """How far the system's time is ahead of Redis'; None before the first sample."""
        if self._offset_ns is None:
            return None
        return self._system_ns() - self.monotonic_ns() - self._offset_ns

    def spread_ns(self) -> int | None:
        """The largest difference between two Redis servers; None before the first sample."""
        if not self._primaries:
            return None
        offsets_ns = [primary.offset_ns for primary in self._primaries.values()]
        return max(offsets_ns) - min(offsets_ns)


PROCESS = Clock()
"""The clock of this process."""

now_ms = PROCESS.now_ms
