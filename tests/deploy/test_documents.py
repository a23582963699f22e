"""What operations.md and runbook.md name is there: settings, metrics, files, commands, times."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from services.__main__ import _parser
from tests.deploy.files import CHART, CHECKOUT, SETTINGS, STOPS_WITHIN_S

DOCS = CHECKOUT / "docs"
OPERATIONS = (DOCS / "operations.md").read_text()
RUNBOOK = (DOCS / "runbook.md").read_text()
# What prometheus-adapter makes of them.
ADAPTED = {
    rule["name"]["as"]
    for rule in yaml.safe_load((CHART / "files" / "adapter-rules.yaml").read_text())["rules"]
}
both = pytest.mark.parametrize("text", [OPERATIONS, RUNBOOK], ids=["operations", "runbook"])


@both
def test_settings_are_the_codes(text: str) -> None:
    named = set(re.findall(r"NOTIFY_[A-Z_]+[A-Z]", text))
    assert named
    assert named <= SETTINGS


@both
def test_metrics_are_the_codes(text: str) -> None:
    declared = (CHECKOUT / "shared" / "telemetry.py").read_text()
    names = {name.replace(".", "_") for name in re.findall(r'"(notify\.[a-z.]+)"', declared)}
    for metric in re.findall(r"\bnotify_[a-z_]+", text):
        assert metric.removesuffix("_total").removesuffix("_seconds") in names | ADAPTED


@both
def test_links_lead_somewhere(text: str) -> None:
    links = [link.split("#")[0] for link in re.findall(r"\]\(([^)]+)\)", text)]
    assert links
    assert [link for link in links if not (DOCS / link).exists()] == []


@both
def test_events_in_the_log_are_the_codes(text: str) -> None:
    code = "".join(
        path.read_text() for top in ("services", "shared") for path in Path(CHECKOUT / top).rglob("*.py")
    )
    known = set(re.findall(r'logger\.\w+\(\s*(?:level, )?"([a-z.-]+)"', code))
    events = set(re.findall(r"`([a-z]+\.[a-z-]+)`", text)) - {"dump.rdb", "ca.crt"}
    assert events <= known


def test_commands_are_taken() -> None:
    commands = re.findall(r"python -m services ([^`)\n]+)", OPERATIONS + RUNBOOK)
    assert commands
    for command in commands:
        _parser().parse_args(shlex.split(command))


def test_the_times_to_stop_are_the_codes() -> None:
    rows = re.findall(r"^\| ([a-z, -]+) \| [^|]+ \| (\d+) s \|$", OPERATIONS, flags=re.M)
    told = {service: float(seconds) for names, seconds in rows for service in names.split(", ")}
    assert told == STOPS_WITHIN_S
