"""What processes use, by /proc: CPU time and memory; and how much of the machine strangers used."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

TICKS_S = os.sysconf("SC_CLK_TCK")
CORES = len(os.sched_getaffinity(0))
ROLES = ("gateway", "edge", "dispatcher", "redis")
"""Those of ours whose CPU is counted for every notification, in the order of the table."""


@dataclass(frozen=True, slots=True)
class Watched:
    """A process that is looked at. `role` is one of ROLES, or `client` for the harness's own."""

    name: str
    role: str
    pid: int


@dataclass(frozen=True, slots=True)
class Look:
    """What was used up to one moment. CPU in seconds since each process began, memory in bytes."""

    at_s: float
    cpu_s: dict[str, float]
    rss: dict[str, int]
    busy_s: float


@dataclass(slots=True)
class Window:
    """What was used between two looks, and the looks in between."""

    watched: tuple[Watched, ...]
    looks: list[Look] = field(default_factory=list)

    def look(self) -> Look:
        now = look(self.watched)
        self.looks.append(now)
        return now

    @property
    def took_s(self) -> float:
        return self.looks[-1].at_s - self.looks[0].at_s

    def cpu_s(self, role: str) -> float:
        """CPU of all processes with this role that were there at both ends."""
        first, last = self.looks[0].cpu_s, self.looks[-1].cpu_s
        names = [each.name for each in self.watched if each.role == role]
        return sum(last[name] - first[name] for name in names if name in first and name in last)

    @property
    def busiest_client(self) -> float:
        """The share of a core that the busiest process of the harness used."""
        first, last = self.looks[0].cpu_s, self.looks[-1].cpu_s
        names = [each.name for each in self.watched if each.role == "client"]
        return max(((last[name] - first[name]) / self.took_s for name in names if name in last), default=0.0)

    @property
    def machine(self) -> float:
        """The share of all cores that was in use, by anybody."""
        return (self.looks[-1].busy_s - self.looks[0].busy_s) / (self.took_s * CORES)

    @property
    def strangers(self) -> float:
        """The share of all cores that neither we nor what we measure used."""
        ours = sum(self.cpu_s(role) for role in (*ROLES, "client"))
        return max(0.0, self.machine - ours / (self.took_s * CORES))


def look(watched: tuple[Watched, ...]) -> Look:
    cpu_s, rss = {}, {}
    for each in watched:
        try:
            cpu_s[each.name], rss[each.name] = cpu_of(each.pid), rss_of(each.pid)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return Look(monotonic(), cpu_s, rss, _machine_busy_s())


def cpu_of(pid: int) -> float:
    """User and system seconds of all its threads. Raises FileNotFoundError when it is gone."""
    # The name in parentheses may hold blanks: the fields are counted from behind it.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_S


def rss_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _machine_busy_s() -> float:
    """Seconds that all cores spent on something; waiting for a disk and what the host took are not ours."""
    user, nice, system, _idle, _io, irq, softirq = map(
        int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:8]
    )
    return (user + nice + system + irq + softirq) / TICKS_S
