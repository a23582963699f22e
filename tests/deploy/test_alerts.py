"""Alerts, dashboard and autoscalers use existing metrics; each alert has its section in the runbook."""

import ast
import json
import re
import subprocess
import sys
from functools import cache
from typing import Any

import promql_parser
import pytest
import yaml

from shared.model.channels import CloseReason
from tests.deploy.chart import component, named, objects
from tests.deploy.files import CHART, CHECKOUT, SERVICES
from tests.harness.processes import environment

ALERTS: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())["groups"]
    for rule in group["rules"]
]
DASHBOARD: dict[str, Any] = json.loads((CHART / "files" / "dashboard.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
ADAPTER = yaml.safe_load((CHART / "files" / "adapter-rules.yaml").read_text())["rules"]
RUNBOOK = (CHECKOUT / "docs" / "runbook.md").read_text()

# Prometheus adds it to every target.
NOT_OURS = {"up"}
# Labels that Prometheus and the cluster add.
ADDED = {"job", "instance", "namespace", "pod", "le", "__name__"}

# Uses every instrument once, so that /metrics shows its name.
_USE_ALL = """
from shared import telemetry
from shared.runtime.exporters import metrics_page, start_metrics
start_metrics(service="tests", replica="tests")
for thing in list(vars(telemetry).values()):
    if isinstance(thing, telemetry.Count):
        thing.add(1)
    elif isinstance(thing, telemetry.Distribution):
        thing.record(1)
telemetry.watch_sockets(lambda: 1)
telemetry.watch_polls(lambda: 1)
telemetry.watch_sessions(lambda dialect: 1)
telemetry.watch_draining(lambda: True)
telemetry.watch_strangers(lambda: 1)
telemetry.record_oldest_pending({("pull", True): 0}, now_ms=1, every_s=10)
telemetry.record_webhook_lag(0, now_ms=1, every_s=10)
telemetry.record_memory({"": (1, 2)}, every_s=10)
telemetry.clock.PROCESS.learn({"": telemetry.clock.Sample(0, 0, 0)})
print(metrics_page()[0].decode())
"""


@cache
def on_the_page() -> frozenset[str]:
    """Every metric name on /metrics, after each instrument was used."""
    command = [sys.executable, "-c", _USE_ALL]
    ran = subprocess.run(command, cwd=CHECKOUT, env=environment(), capture_output=True, text=True, check=True)
    return frozenset(re.findall(r"^([a-z]\w+)", ran.stdout, flags=re.M))


def served() -> frozenset[str]:
    """Those of ours: the Prometheus library adds some for the process."""
    return frozenset(name for name in on_the_page() if name.startswith("notify_"))


@cache
def labels_in_the_code() -> frozenset[str]:
    """Every string that is a key of a dict in the code: a superset of the labels' names."""
    found = set()
    for path in [p for top in ("services", "shared") for p in (CHECKOUT / top).rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Dict):
                found |= {key.value for key in node.keys if isinstance(key, ast.Constant)}
    return frozenset(str(name) for name in found)


def selectors(expression: str) -> list[promql_parser.VectorSelector]:
    """Every selector in a PromQL expression. Raises ValueError when it is malformed."""
    plain = expression.replace("$__rate_interval", "5m").replace("$namespace", ".*")
    found: list[promql_parser.VectorSelector] = []

    def visit(node: promql_parser.Expr) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            found.append(node)
        elif isinstance(node, promql_parser.MatrixSelector):
            found.append(node.vector_selector)

    promql_parser.walk(promql_parser.parse(plain), visit)
    assert found, expression
    return found


def grouped_by(expression: str) -> set[str]:
    return {
        name.strip() for names in re.findall(r"\bby \(([^)]*)\)", expression) for name in names.split(",")
    }


EXPRESSIONS = [
    *(pytest.param(alert["expr"], id=alert["alert"]) for alert in ALERTS),
    *(
        pytest.param(target["expr"], id=f"{panel['title']}, {target['legendFormat']}")
        for panel in PANELS
        for target in panel["targets"]
    ),
]


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_expressions_use_existing_metrics_and_labels(expression: str) -> None:
    for selector in selectors(expression):
        assert selector.name in on_the_page() | NOT_OURS
        matched = {matcher.name for matcher in selector.matchers.matchers}
        assert matched <= labels_in_the_code() | ADDED
    assert grouped_by(expression) <= labels_in_the_code() | ADDED


def test_every_metric_is_on_the_dashboard() -> None:
    shown = {
        str(s.name)
        for panel in PANELS
        for target in panel["targets"]
        for s in selectors(target["expr"])
        if not str(s.name).startswith("process_")
    }
    families = {re.sub(r"_(bucket|count|sum|created)$", "", name) for name in served()}
    assert {re.sub(r"_(bucket|count|sum)$", "", name) for name in shown} == families


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_every_panel_says_what_it_shows(panel: dict[str, Any]) -> None:
    assert panel["description"].endswith(".")


def test_no_two_panels_overlap() -> None:
    cells = [
        (place["x"] + column, place["y"] + line)
        for place in (panel["gridPos"] for panel in DASHBOARD["panels"])
        for column in range(place["w"])
        for line in range(place["h"])
    ]
    assert len(cells) == len(set(cells))


def test_every_metric_is_in_the_operators_table() -> None:
    rows = re.findall(
        r"^\| (`notify_[^|]+) \|", (CHECKOUT / "docs" / "operations.md").read_text(), flags=re.M
    )
    listed = {name for row in rows for name in re.findall(r"notify_\w+", row)}
    families = {re.sub(r"_(bucket|count|sum|created)$", "", name) for name in served()}
    adapted = {rule["name"]["as"] for rule in ADAPTER}
    assert listed - adapted == families - adapted


def test_a_missing_metric_would_be_noticed() -> None:
    assert "notify_published_total" in served()
    assert "notify_publish_total" not in served()


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_every_alert_has_its_section_in_the_runbook(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in ("info", "warning", "critical")
    page = alert["annotations"]["runbook_url"]
    assert page == f"docs/runbook.md#{alert['alert'].lower()}"
    [section] = re.findall(rf"^## {alert['alert']}\n(.*?)(?=^## |\Z)", RUNBOOK, flags=re.M | re.S)
    for part in ("**Means.**", "**Look at.**", "**Do.**"):
        assert part in section, part


def test_every_section_of_the_runbook_has_its_alert() -> None:
    sections = re.findall(r"^## (Notify\w+)$", RUNBOOK, flags=re.M)
    assert sorted(sections) == sorted(alert["alert"] for alert in ALERTS)


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_a_summary_uses_labels_that_the_expression_keeps(alert: dict[str, Any]) -> None:
    used = set(re.findall(r"\$labels\.(\w+)", alert["annotations"]["summary"]))
    kept = grouped_by(alert["expr"]) or {"job", "instance"}
    assert used <= kept


def test_close_reasons_and_outcomes_exist_in_the_code() -> None:
    values = {
        (matcher.name, value)
        for alert in ALERTS
        for selector in selectors(alert["expr"])
        for matcher in selector.matchers.matchers
        for value in matcher.value.split("|")
    }
    assert {value for name, value in values if name == "reason"} <= {
        close_reason.value for close_reason in CloseReason
    }
    code = "".join(path.read_text() for path in (CHECKOUT / "services" / "socket_edge").glob("*.py"))
    outcomes = set(re.findall(r'"outcome": "([\w-]+)"', code)) | {"accepted"}
    assert {value for name, value in values if name == "outcome"} <= outcomes


def test_the_chart_installs_alerts_and_dashboard_unchanged() -> None:
    rule = named("everything", "PrometheusRule")
    assert [r for group in rule["spec"]["groups"] for r in group["rules"]] == ALERTS
    assert rule["metadata"]["labels"]["release"] == "prometheus"
    dashboard = named("everything", "ConfigMap", "-dashboard")
    assert json.loads(dashboard["data"]["notification-gateway.json"]) == DASHBOARD
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"


def test_the_service_monitor_selects_all_services_and_names_their_jobs() -> None:
    monitor = named("everything", "ServiceMonitor")["spec"]
    [expression] = monitor["selector"]["matchExpressions"]
    assert set(expression["values"]) == set(SERVICES)
    [endpoint] = monitor["endpoints"]
    assert (endpoint["port"], endpoint["path"]) == ("metrics", "/metrics")
    [relabeled] = endpoint["relabelings"]
    assert (relabeled["targetLabel"], relabeled["replacement"]) == ("job", "notify-$1")
    label = relabeled["sourceLabels"][0].removeprefix("__meta_kubernetes_service_label_")
    for service in objects("everything", "Service"):
        if service["metadata"]["labels"].get("app.kubernetes.io/component") in SERVICES:
            assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
            assert label in {re.sub(r"[^a-zA-Z0-9_]", "_", name) for name in service["metadata"]["labels"]}


def test_kinds_of_the_prometheus_operator_are_optional() -> None:
    assert objects("default", "ServiceMonitor") == objects("default", "PrometheusRule") == []


def test_autoscalers_use_the_metrics_that_the_adapter_provides() -> None:
    given = {rule["name"]["as"] for rule in ADAPTER}
    asked = {
        metric["pods"]["metric"]["name"]
        for scaler in objects("everything", "HorizontalPodAutoscaler")
        for metric in scaler["spec"]["metrics"]
        if metric["type"] == "Pods"
    }
    assert asked == given
    [dispatchers] = [
        s for s in objects("everything", "HorizontalPodAutoscaler") if component(s) == "webhook-dispatcher"
    ]
    targets = {m["pods"]["metric"]["name"]: m["pods"]["target"] for m in dispatchers["spec"]["metrics"]}
    assert targets["notify_webhook_delivery_lag_seconds"] == {"type": "AverageValue", "averageValue": "45"}
    named_in_rules = {name for rule in ADAPTER for name in re.findall(r"notify_\w+", rule["metricsQuery"])}
    assert named_in_rules <= served()
    for rule in ADAPTER:
        query = rule["metricsQuery"].replace("<<.LabelMatchers>>", 'pod="x"').replace("<<.GroupBy>>", "pod")
        promql_parser.parse(query)
        assert re.match(r"\w+", rule["seriesQuery"])[0] in served()  # type: ignore[index]
