"""CPU time and memory of processes by /proc, and the CPU that other processes of the machine used."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from tests.load.costs import Costs, all_costs

TICKS_S = os.sysconf("SC_CLK_TCK")
CORES = len(os.sched_getaffinity(0))
ROLES = ("gateway", "edge", "dispatcher", "redis")
"""The roles whose CPU per notification is reported, in the order of the table."""


@dataclass(frozen=True, slots=True)
class Watched:
    """A process to sample. `role` is one of ROLES, or `client` for the harness's own."""

    name: str
    role: str
    pid: int


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample: CPU in seconds since each process began, memory in bytes."""

    at_s: float
    cpu_s: dict[str, float]
    rss: dict[str, int]
    busy_s: float


@dataclass(slots=True)
class Window:
    """The samples of a measurement."""

    watched: tuple[Watched, ...]
    samples: list[Sample] = field(default_factory=list)
    costs: Costs = field(default_factory=Costs)

    def take_sample(self) -> Sample:
        now = take_sample(self.watched)
        self.samples.append(now)
        return now

    @property
    def took_s(self) -> float:
        return self.samples[-1].at_s - self.samples[0].at_s

    def cpu_s(self, role: str) -> float:
        """CPU of all processes with this role that are in the first and the last sample."""
        return sum(self.spent_s(each.name) for each in self.watched if each.role == role)

    def spent_s(self, name: str) -> float:
        """CPU of one process; 0 if it is not in the first and the last sample."""
        first, last = self.samples[0].cpu_s, self.samples[-1].cpu_s
        return last[name] - first[name] if name in first and name in last else 0.0

    @property
    def busiest_client(self) -> float:
        """The share of a core that the harness's busiest process used."""
        first, last = self.samples[0].cpu_s, self.samples[-1].cpu_s
        names = [each.name for each in self.watched if each.role == "client"]
        return max(((last[name] - first[name]) / self.took_s for name in names if name in last), default=0.0)

    @property
    def machine(self) -> float:
        """The share of all cores that was in use."""
        return (self.samples[-1].busy_s - self.samples[0].busy_s) / (self.took_s * CORES)

    @property
    def others(self) -> float:
        """The share of all cores that other processes used."""
        ours = sum(self.cpu_s(role) for role in (*ROLES, "client"))
        return max(0.0, self.machine - ours / (self.took_s * CORES))


def joined(windows: Sequence[Window]) -> Window:
    """One window of several over the same processes: leaves out the time and the CPU between them."""
    costs = all_costs(window.costs for window in windows)
    whole = Window(windows[0].watched, list(windows[0].samples), costs)
    for window in windows[1:]:
        begin, end = window.samples[0], whole.samples[-1]
        whole.samples += [_continued(sample, begin, end) for sample in window.samples[1:]]
    return whole


def _continued(sample: Sample, begin: Sample, end: Sample) -> Sample:
    """The sample, as if its window had begun at the `end` of another."""
    cpu_s = {
        name: end.cpu_s[name] + value - begin.cpu_s[name]
        for name, value in sample.cpu_s.items()
        if name in begin.cpu_s and name in end.cpu_s
    }
    at_s, busy_s = end.at_s + sample.at_s - begin.at_s, end.busy_s + sample.busy_s - begin.busy_s
    return Sample(at_s, cpu_s, sample.rss, busy_s)


def take_sample(watched: tuple[Watched, ...]) -> Sample:
    cpu_s, rss = {}, {}
    for each in watched:
        try:
            cpu_s[each.name], rss[each.name] = cpu_of(each.pid), rss_of(each.pid)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return Sample(monotonic(), cpu_s, rss, _machine_busy_s())


def cpu_of(pid: int) -> float:
    """User and system seconds of all its threads. Raises FileNotFoundError if it has exited."""
    # The name in parentheses may contain blanks: count the fields after it.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_S


def rss_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _machine_busy_s() -> float:
    """Busy seconds of all cores, without I/O wait and steal."""
    user, nice, system, _idle, _io, irq, softirq = map(
        int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:8]
    )
    return (user + nice + system + irq + softirq) / TICKS_S
