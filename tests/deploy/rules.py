"""Prometheus' rules as the chart renders them, and promtool, which runs them over made-up series."""

import json
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import promql_parser

from tests.deploy.chart import NAMESPACE, RELEASE, Json, named, rendered
from tests.deploy.files import CHART, documents

SOURCES: list[Json] = documents((CHART / "files" / "alerts.yaml").read_text())[0]["alerts"]
"""The alerts as the chart has them, before their placeholders are replaced."""
GROUPS: list[Json] = named("everything", "PrometheusRule")["spec"]["groups"]
RULES: list[Json] = [rule for group in GROUPS for rule in group["rules"]]
ALERTS: list[Json] = [rule for rule in RULES if "alert" in rule]
RECORDS = {rule["record"] for rule in RULES if "record" in rule}


def groups_of(rules: Json) -> list[Json]:
    """The groups for these values under metrics.rules."""
    metrics = {"metrics": {"rules": {"enabled": True, **rules}}}
    [made] = [found for found in rendered(metrics) if found["kind"] == "PrometheusRule"]
    return list(made["spec"]["groups"])


def alert_of(name: str, rules: Json) -> Json:
    """The only alert of this name for these values."""
    [found] = [r for group in groups_of(rules) for r in group["rules"] if r.get("alert") == name]
    return dict(found)


def selectors(expression: str) -> list[promql_parser.VectorSelector]:
    """Every selector in a PromQL expression. Raises ValueError when it is malformed."""
    plain = expression.replace("$__rate_interval", "5m")
    plain = plain.replace("$namespace", ".*").replace("$release", ".*")
    found: list[promql_parser.VectorSelector] = []

    def visit(node: promql_parser.Expr) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            found.append(node)
        elif isinstance(node, promql_parser.MatrixSelector):
            found.append(node.vector_selector)

    promql_parser.walk(promql_parser.parse(plain), visit)
    assert found, expression
    return found


@cache
def promtool() -> str | None:
    """The path of promtool, which .ci/run builds, or None."""
    beside = Path(sys.executable).with_name("promtool")
    return os.environ.get("PROMTOOL") or (str(beside) if beside.exists() else shutil.which("promtool"))


def run_promtool(folder: Path, *words: str, **files: Any) -> str:
    """Runs promtool in a folder with these files; its output. Raises AssertionError with it when it fails."""
    found = promtool()
    assert found is not None
    for name, content in files.items():
        (folder / f"{name}.yaml").write_text(json.dumps(content))
    ran = subprocess.run([found, *words], cwd=folder, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def of_release(series: str, *, namespace: str = NAMESPACE, release: str = RELEASE) -> str:
    """A series with the labels that the PodMonitor adds."""
    name, _, labels = series.partition("{")
    own = f'namespace="{namespace}",release="{release}"'
    return f"{name}{{{own},{labels}" if labels else f"{name}{{{own}}}"
