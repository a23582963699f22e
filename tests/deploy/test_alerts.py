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
from shared.model.streams import NotRecovered
from tests.deploy.chart import NAMESPACE, RELEASE, component, deployments, named, objects
from tests.deploy.files import CHART, CHECKOUT, SERVICES
from tests.deploy.rules import (
    ALERTS,
    RECORDS,
    RULES,
    SOURCES,
    alert_of,
    groups_of,
    selectors,
)
from tests.deploy.test_chart_values import SCHEMA
from tests.harness.processes import environment

DASHBOARD: dict[str, Any] = json.loads((CHART / "files" / "dashboard.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
ADAPTER = yaml.safe_load((CHART / "files" / "adapter-rules.yaml").read_text())["rules"]
RUNBOOK = (CHECKOUT / "docs" / "runbook.md").read_text()

# Prometheus adds it to every target.
NOT_OURS = {"up"}
# Labels that Prometheus, the PodMonitor and the rules of the objectives add.
ADDED = {"job", "instance", "namespace", "pod", "le", "__name__", "release", "slo"}

_START = """
from shared import meters, telemetry
from shared.runtime.exporters import metrics_page, start_metrics
start_metrics(service="tests", replica="tests")
"""
_SHOW = "print(metrics_page()[0].decode())"
# Uses every instrument once, so that /metrics shows its name.
_USE_ALL = """
for thing in list(vars(telemetry).values()):
    if isinstance(thing, meters.Count):
        thing.add(1)
    elif isinstance(thing, meters.Distribution):
        thing.record(1)
telemetry.watch_sockets(lambda: 1)
telemetry.watch_polls(lambda: 1)
telemetry.watch_sessions(lambda dialect: 1)
telemetry.watch_draining(lambda: True)
telemetry.watch_replays(lambda: 1)
telemetry.watch_strangers(lambda: 1)
telemetry.watch_stream_readers(lambda: 1)
telemetry.watch_stream_topics(lambda: 1)
telemetry.record_oldest_pending({("pull", True): 0}, now_ms=1, every_s=10)
telemetry.record_webhook_lag(0, now_ms=1, every_s=10)
telemetry.record_memory({"": (1, 2)}, every_s=10)
telemetry.clock.PROCESS.learn({"": telemetry.clock.Sample(0, 0, 0)})
"""


def page(*, uses: str = "") -> str:
    """/metrics of a process that has done only this."""
    command = [sys.executable, "-c", _START + uses + _SHOW]
    ran = subprocess.run(command, cwd=CHECKOUT, env=environment(), capture_output=True, text=True, check=True)
    return ran.stdout


@cache
def on_the_page() -> frozenset[str]:
    """Every metric name on /metrics, after each instrument was used."""
    return frozenset(re.findall(r"^([a-z]\w+)", page(uses=_USE_ALL), flags=re.M))


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


def grouped_by(expression: str) -> set[str]:
    return {
        name.strip() for names in re.findall(r"\bby \(([^)]*)\)", expression) for name in names.split(",")
    }


EXPRESSIONS = [
    *(pytest.param(rule["expr"], id=rule.get("alert", rule.get("record"))) for rule in RULES),
    *(
        pytest.param(target["expr"], id=f"{panel['title']}, {target['legendFormat']}")
        for panel in PANELS
        for target in panel["targets"]
    ),
]


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_expressions_use_existing_metrics_and_labels(expression: str) -> None:
    for selector in selectors(expression):
        assert selector.name in on_the_page() | NOT_OURS | RECORDS
        matched = {matcher.name for matcher in selector.matchers.matchers}
        assert matched <= labels_in_the_code() | ADDED
    assert grouped_by(expression) <= labels_in_the_code() | ADDED


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.get("alert", rule.get("record")))
def test_every_rule_sees_its_own_release_only(rule: dict[str, Any]) -> None:
    """Another namespace's edge would hide that ours is gone, and two releases would double each alert."""
    for selector in selectors(rule["expr"]):
        matched = {(m.name, m.value) for m in selector.matchers.matchers if str(m.op).endswith("Equal")}
        assert {("namespace", NAMESPACE), ("release", RELEASE)} <= matched
    if "by (" in rule["expr"]:
        assert {"namespace", "release"} <= grouped_by(rule["expr"])


def test_every_metric_is_on_the_dashboard() -> None:
    shown = {
        str(s.name)
        for panel in PANELS
        for target in panel["targets"]
        for s in selectors(target["expr"])
        if not str(s.name).startswith("process_")
    }
    families = {re.sub(r"_(bucket|count|sum|created)$", "", name) for name in served()}
    assert {re.sub(r"_(bucket|count|sum)$", "", name) for name in shown - RECORDS} == families


def test_the_dashboard_tells_releases_apart() -> None:
    names = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    assert {"namespace", "release"} <= names
    for panel in PANELS:
        for target in panel["targets"]:
            for selector in selectors(target["expr"]):
                assert {"namespace", "release"} <= {m.name for m in selector.matchers.matchers}


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


every_alert = pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])


@every_alert
def test_every_alert_has_its_section_in_the_runbook(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in ("info", "warning", "critical")
    page = alert["annotations"]["runbook_url"]
    assert page == f"https://docs.example.com/runbook.md#{alert['alert'].lower()}"
    [section] = re.findall(rf"^## {alert['alert']}\n(.*?)(?=^## |\Z)", RUNBOOK, flags=re.M | re.S)
    for part in ("**Means.**", "**Look at.**", "**Do.**"):
        assert part in section, part


def test_every_section_of_the_runbook_has_its_alert() -> None:
    sections = re.findall(r"^## (Notify\w+)$", RUNBOOK, flags=re.M)
    assert sorted(sections) == sorted({alert["alert"] for alert in ALERTS})


@every_alert
def test_a_summary_uses_labels_that_the_expression_keeps(alert: dict[str, Any]) -> None:
    used = set(re.findall(r"\$labels\.(\w+)", alert["annotations"]["summary"]))
    kept = grouped_by(alert["expr"]) or {"job", "instance"}
    assert used <= kept


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source["alert"])
def test_an_alert_can_be_changed_and_left_out(source: dict[str, Any]) -> None:
    name = source["alert"]
    own: dict[str, Any] = {"for": "7m", "severity": "info"}
    if "threshold" in source:
        own["threshold"] = 0.125
    found = alert_of(name, {"alerts": {name: own}, "alertLabels": {"team": "messaging"}})
    assert (found["for"], found["labels"]) == ("7m", {"severity": "info", "team": "messaging"})
    assert ("> 0.125" in found["expr"]) == ("threshold" in source)
    rules = [r for g in groups_of({"alerts": {name: {"enabled": False}}}) for r in g["rules"]]
    assert name not in {rule.get("alert") for rule in rules}
    assert len(rules) == len(RULES) - 1


# Those that one occurrence must raise.
OF_THE_FIRST = {
    "NotifyRedisFull": {"OutOfMemoryError"},
    "NotifySocketsFail": {"unexpected", "redis-unavailable"},
    "NotifyStreamsLost": {"lost"},
    "NotifyDropped": {
        *("queue-full", "too-old", "too-long-for-client", "too-long-for-webhook", "channel-expired"),
        *("exhausted", "slow-reader"),
    },
}


def test_an_alert_of_the_first_occurrence_sees_it() -> None:
    """For `rate` and `increase` a series that begins above zero has not risen."""
    shown = page()
    assert {s["alert"] for s in SOURCES if s.get("threshold") == 0} | {"NotifyRedisFull"} == set(OF_THE_FIRST)
    for alert, values in OF_THE_FIRST.items():
        [metric] = {str(selector.name) for selector in selectors(alert_of(alert, {})["expr"])}
        series = re.findall(rf"^{metric}{{(.*)}} 0\.0$", shown, flags=re.M)
        at_zero = set(re.findall(r'\b(?:reason|error|outcome)="(.*?)"', "\n".join(series)))
        assert values <= at_zero, alert


def test_the_schema_knows_every_alert_and_its_threshold() -> None:
    rules = SCHEMA["properties"]["metrics"]["properties"]["rules"]["properties"]
    known = {name: set(each["properties"]) for name, each in rules["alerts"]["properties"].items()}
    changeable = {"enabled", "for", "severity"}
    assert known == {s["alert"]: changeable | ({"threshold"} & set(s)) for s in SOURCES}


def test_an_alert_links_to_the_runbook_only_where_it_is_published() -> None:
    """A relative path leads nowhere in a chat message."""
    assert set(alert_of("NotifyNoEdge", {})["annotations"]) == {"summary"}


def test_close_reasons_and_outcomes_exist_in_the_code() -> None:
    values = {
        (matcher.name, value)
        for alert in ALERTS
        for selector in selectors(alert["expr"])
        for matcher in selector.matchers.matchers
        for value in matcher.value.split("|")
    }
    everything = "".join(
        path.read_text() for room in ("services", "shared") for path in (CHECKOUT / room).rglob("*.py")
    )
    of_drops = set(re.findall(r'dropped\.add\([\w.]+, {"reason": "([\w-]+)"', everything))
    assert of_drops == OF_THE_FIRST["NotifyDropped"] | {"purged"}
    assert {value for name, value in values if name == "reason"} <= {*CloseReason, *of_drops}
    code = "".join(path.read_text() for path in (CHECKOUT / "services" / "socket_edge").glob("*.py"))
    outcomes = set(re.findall(r'"outcome": "([\w-]+)"', code)) | {"accepted", *NotRecovered}
    assert {value for name, value in values if name == "outcome"} <= outcomes


def test_the_chart_installs_rules_and_dashboard() -> None:
    assert named("everything", "PrometheusRule")["metadata"]["labels"]["release"] == "prometheus"
    dashboard = named("everything", "ConfigMap", "-dashboard")
    assert json.loads(dashboard["data"]["notification-gateway.json"]) == DASHBOARD
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"


def test_the_pod_monitor_selects_all_services_and_labels_what_they_show() -> None:
    """By pods, not by a Service's endpoints: those drop a pod that drains."""
    monitor = named("everything", "PodMonitor")["spec"]
    [expression] = monitor["selector"]["matchExpressions"]
    assert set(expression["values"]) == set(SERVICES)
    [endpoint] = monitor["podMetricsEndpoints"]
    assert (endpoint["port"], endpoint["path"]) == ("metrics", "/metrics")
    relabeled = {each["targetLabel"]: each for each in endpoint["relabelings"]}
    assert set(relabeled) == {"job", "release"}
    assert relabeled["job"]["replacement"] == "notify-$1"
    for service, found in deployments("everything").items():
        template = found["spec"]["template"]
        labels = template["metadata"]["labels"]
        assert monitor["selector"]["matchLabels"].items() <= labels.items()
        there = {re.sub(r"[^a-zA-Z0-9_]", "_", name): value for name, value in labels.items()}
        source = {
            target: there[each["sourceLabels"][0].removeprefix("__meta_kubernetes_pod_label_")]
            for target, each in relabeled.items()
        }
        assert source == {"job": service, "release": RELEASE}
        ports = [port["name"] for each in template["spec"]["containers"] for port in each.get("ports", ())]
        assert "metrics" in ports


def test_kinds_of_the_prometheus_operator_are_optional() -> None:
    assert objects("default", "PodMonitor") == objects("default", "PrometheusRule") == []


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
