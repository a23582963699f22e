"""What one run found: named figures, the count of its notifications, and what a reader must be warned of."""

import platform
import subprocess
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.harness.processes import CHECKOUT
from tests.load.latencies import Latencies, percentiles_ms
from tests.load.processes import CORES, ROLES, Window
from tests.load.sequences import Count

_CLIENT_LIMIT = 0.85
_STRANGERS_LIMIT = 0.15
_BEHIND_LIMIT_MS = 20


@dataclass(slots=True)
class Result:
    """One column of the table. Units stand at the end of each figure's name.

    The count is of the whole run, the warm-up included; the figures are of what was measured.
    """

    label: str
    figures: dict[str, float]
    count: Count
    warnings: list[str] = field(default_factory=list)
    latencies: Latencies = field(default_factory=Latencies)
    window: Window | None = None

    def line(self, arguments: dict[str, Any], machine: dict[str, Any]) -> dict[str, Any]:
        """As it is appended to the file of results."""
        return {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "label": self.label,
            "figures": self.figures,
            "count": asdict(self.count),
            "warnings": self.warnings,
            "arguments": arguments,
            "machine": machine,
        }


def latency_figures(latencies: Latencies, *, name: str = "latency") -> dict[str, float]:
    return {f"{name}_{part}_ms": value for part, value in percentiles_ms(latencies).items()}


def cpu_figures(window: Window, delivered: int) -> dict[str, float]:
    """Microseconds of CPU per delivered notification, by role and in all; none of roles that do not run."""
    running = [role for role in ROLES if any(each.role == role for each in window.watched)]
    if not running or not delivered:
        return {}
    each = {role: window.cpu_s(role) * 1e6 / delivered for role in running}
    figures = {f"cpu_{role}_us": round(value, 1) for role, value in each.items()}
    return figures | {"cpu_all_us": round(sum(each.values()), 1)}


def usage_figures(window: Window) -> dict[str, float]:
    """Shares of a core by role, memory by role, and how busy the machine was."""
    figures: dict[str, float] = {}
    for role in ROLES:
        names = [each.name for each in window.watched if each.role == role]
        if names:
            figures[f"core_{role}_%"] = round(100 * window.cpu_s(role) / window.took_s, 1)
            most = max(sum(look.rss.get(name, 0) for name in names) for look in window.looks)
            figures[f"memory_{role}_mib"] = round(most / 2**20, 1)
    figures["core_busiest_client_%"] = round(100 * window.busiest_client, 1)
    figures["machine_busy_%"] = round(100 * window.machine, 1)
    figures["machine_strangers_%"] = round(100 * window.strangers, 1)
    return figures


def client_warnings(window: Window, *, behind_p99_ms: float = 0.0) -> list[str]:
    """Whether it was the harness, or somebody else on the machine, that was measured."""
    found = []
    if window.busiest_client > _CLIENT_LIMIT:
        share = 100 * window.busiest_client
        found.append(f"the client was the bottleneck: a process of the harness used {share:.0f} % of a core")
    if behind_p99_ms > _BEHIND_LIMIT_MS:
        found.append(f"the client published late: 1 % of the requests by more than {behind_p99_ms:.0f} ms")
    if window.machine > 0.97:
        found.append("the machine had no CPU left: client and server took it from each other")
    if window.strangers > _STRANGERS_LIMIT:
        found.append(f"other programs used {100 * window.strangers:.0f} % of the machine meanwhile")
    return found


def machine() -> dict[str, Any]:
    """Where it was measured, and which code."""
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
