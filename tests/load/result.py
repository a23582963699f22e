"""The result of a run: named figures, counts, and warnings."""

import platform
import subprocess
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.harness.processes import CHECKOUT
from tests.load.costs import functions
from tests.load.latencies import Latencies, percentiles_ms
from tests.load.processes import CORES, ROLES, Window
from tests.load.redis_work import RedisWork
from tests.load.sequences import Count

_CLIENT_LIMIT = 0.85
_OTHERS_LIMIT = 0.15
_BEHIND_LIMIT_MS = 20
_FUNCTIONS = 40


@dataclass(slots=True)
class Result:
    """One column of the table. Each figure's name ends with its unit.

    The count covers the whole run with its warm-up, the figures only the measurement.
    """

    label: str
    figures: dict[str, float]
    count: Count
    warnings: list[str] = field(default_factory=list)
    latencies: Latencies = field(default_factory=Latencies)
    window: Window | None = None
    redis: RedisWork | None = None
    delivered: int = 0
    """What the costs are divided by: notifications in the measured time, or new sockets."""

    def line(self, arguments: dict[str, Any], machine: dict[str, Any]) -> dict[str, Any]:
        """The object that is appended to the file of results."""
        return {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "label": self.label,
            "figures": self.figures,
            "count": asdict(self.count),
            "redis_calls": dict(self.redis.calls) if self.redis is not None else {},
            **_costs(self.window),
            "warnings": self.warnings,
            "arguments": arguments,
            "machine": machine,
        }


def _costs(window: Window | None) -> dict[str, Any]:
    """What the probes have counted, if they were wanted: calls, and each function's own and total share."""
    found: dict[str, Any] = {}
    if window is not None and window.costs.system_calls:
        found["system_calls"] = {
            name: dict(calls.most_common()) for name, calls in window.costs.system_calls.items()
        }
    if window is not None and window.costs.stacks:
        found["functions"] = {
            name: [
                [each.name, round(each.own, 4), round(each.total, 4)]
                for each in functions(stacks)[:_FUNCTIONS]
            ]
            for name, stacks in window.costs.stacks.items()
        }
    return found


def system_call_figures(window: Window, delivered: int) -> dict[str, float]:
    """System calls per delivered notification, by role."""
    figures: dict[str, float] = {}
    for role in ROLES if delivered else ():
        names = [each.name for each in window.watched if each.role == role]
        counts = [window.costs.system_calls[name] for name in names if name in window.costs.system_calls]
        if counts:
            calls = sum(each.total() for each in counts)
            figures[f"system_calls_{role}_per_notification"] = round(calls / delivered, 2)
    return figures


def latency_figures(latencies: Latencies, *, name: str = "latency") -> dict[str, float]:
    return {f"{name}_{part}_ms": value for part, value in percentiles_ms(latencies).items()}


def cpu_figures(window: Window, delivered: int) -> dict[str, float]:
    """Microseconds of CPU per delivered notification, by running role and in total."""
    running = [role for role in ROLES if any(each.role == role for each in window.watched)]
    if not running or not delivered:
        return {}
    each = {role: window.cpu_s(role) * 1e6 / delivered for role in running}
    figures = {f"cpu_{role}_us": round(value, 1) for role, value in each.items()}
    return figures | {"cpu_all_us": round(sum(each.values()), 1)}


def usage_figures(window: Window) -> dict[str, float]:
    """CPU and memory by role, and the load of the machine."""
    figures: dict[str, float] = {}
    for role in ROLES:
        names = [each.name for each in window.watched if each.role == role]
        if names:
            figures[f"core_{role}_%"] = round(100 * window.cpu_s(role) / window.took_s, 1)
            most = max(sum(sample.rss.get(name, 0) for name in names) for sample in window.samples)
            figures[f"memory_{role}_mib"] = round(most / 2**20, 1)
    figures["core_busiest_client_%"] = round(100 * window.busiest_client, 1)
    figures["machine_busy_%"] = round(100 * window.machine, 1)
    figures["other_processes_%"] = round(100 * window.others, 1)
    return figures


def client_warnings(window: Window, *, behind_p99_ms: float = 0.0) -> list[str]:
    """Warnings if the harness or other processes limited the measurement."""
    found = list(window.costs.left_out)
    if window.busiest_client > _CLIENT_LIMIT:
        share = 100 * window.busiest_client
        found.append(f"the harness was the bottleneck: one of its processes used {share:.0f} % of a core")
    if behind_p99_ms > _BEHIND_LIMIT_MS:
        found.append(f"the harness published late: 1 % of the requests by more than {behind_p99_ms:.0f} ms")
    if window.machine > 0.97:
        found.append("the machine had no CPU left: harness and services competed for it")
    if window.others > _OTHERS_LIMIT:
        found.append(f"other processes used {100 * window.others:.0f} % of the machine")
    return found


def machine() -> dict[str, Any]:
    """The machine and the commit."""
    return {
        "cores": CORES,
        "cpu": _cpu_model(),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "commit": _git("rev-parse", "--short=12", "HEAD"),
        "changed": bool(_git("status", "--porcelain", "--", "services", "shared")),
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=CHECKOUT, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip()
