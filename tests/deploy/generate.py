"""Writes the files that follow from the chart: `python -m tests.deploy.generate`; a test fails until it ran.

- deploy/prometheus/alerts.yaml, the rules for deploy/compose.yaml
- helm/notification-gateway/README.md, the table of all values
"""

import re
from pathlib import Path
from typing import Any

import helm_python as helm
import yaml

from tests.deploy.files import CHART, DEPLOY

RULES = DEPLOY / "prometheus" / "alerts.yaml"
README = CHART / "README.md"
_KEY = re.compile(r"^(?P<indent> *)(?P<key>[\w-]+):(?: (?P<value>.*))?$")
_RULES_HEAD = "# Written by `python -m tests.deploy.generate` from the chart's rules: change those.\n"
SERVICES_LIKE_THE_GATEWAY = ("socketEdge", "webhookDispatcher", "expiryReaper")
# deploy/prometheus/prometheus.yaml gives its targets these labels.
COMPOSE = {"namespace": "compose", "release": "notify"}


def rules_for_compose() -> str:
    """The chart's rules for a release of that name."""
    values = {"metrics": {"rules": {"enabled": True}}}
    with helm.Chart.load(CHART) as chart:
        files = chart.render(values, name=COMPOSE["release"], namespace=COMPOSE["namespace"])
    [text] = [text for name, text in files.items() if name.endswith("/prometheus-rule.yaml")]
    groups = yaml.safe_load(text)["spec"]["groups"]
    return _RULES_HEAD + yaml.safe_dump({"groups": groups}, width=110, sort_keys=False)


def value_rows(text: str) -> list[tuple[str, str, str]]:
    """(path, default, description) of each value of a values.yaml that has a comment or no keys below it."""
    rows: list[tuple[str, str, str]] = []
    path: list[tuple[int, str]] = []
    comments: list[str] = []
    lines = text.splitlines()
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        words = line.strip()
        if words.startswith("# "):
            comments.append(words[2:])
            continue
        found = _KEY.match(line)
        if words == "<<: *defaults":
            rows.append((f"{path[0][1]}.*", "", "As `gateway.*`, but for these:"))
            continue
        if found is None:
            comments = []
            continue
        indent = len(found["indent"])
        path = [step for step in path if step[0] < indent] + [(indent, found["key"])]
        value = re.sub(r"^&\w+\s*", "", found["value"] or "")
        if comments or value or following.strip().startswith("- "):
            rows.append((".".join(key for _, key in path), value, " ".join(comments)))
        comments = []
    return rows


def readme() -> str:
    """The chart's README: README.head.md and the table of values."""
    lines = [(CHART / "README.head.md").read_text().rstrip(), "", "## Values", ""]
    lines += ["| value | default | meaning |", "|---|---|---|"]
    rows = value_rows((CHART / "values.yaml").read_text())
    known = {path for path, _, _ in rows}
    for path, value, meaning in rows:
        twin = f"gateway.{path.partition('.')[2]}"
        if not meaning and twin in known - {path} and path.split(".")[0] in SERVICES_LIKE_THE_GATEWAY:
            meaning = f"As `{twin}`."
        default = f"`{value}`" if value else ""
        lines.append(f"| `{path}` | {default} | {meaning} |".replace("||", "\\|\\|"))
    return "\n".join(lines) + "\n"


def generated() -> dict[Path, str]:
    """path: what it must contain"""
    return {RULES: rules_for_compose(), README: readme()}


def write(files: dict[Path, Any]) -> None:
    for path, content in files.items():
        path.write_text(content)


if __name__ == "__main__":
    write(generated())
