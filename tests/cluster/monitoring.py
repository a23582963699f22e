"""A Prometheus beside the release that scrapes and alerts by the chart's PodMonitor and PrometheusRule."""

import contextlib
import json
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.cluster.access import Cluster, Failed
from tests.cluster.places import ADMIN_CONFIG, scratch
from tests.cluster.release import FULL_NAME, SERVICES, Release

Json = dict[str, Any]
_PORT = 9099
URL = f"http://127.0.0.1:{_PORT}"
_GROUP = "monitoring.coreos.com"
_POD = "__meta_kubernetes_pod"
_POLL_S = 0.5
_WITHIN_S = 240
# The reaper's rounds are six seconds apart.
_WINDOW = "30s"
_FOR = "5s"
_NO_SCHEMA = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}


class Monitoring:
    """A running Prometheus."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def query(self, expression: str) -> list[Json]:
        """The series of an instant query."""
        asked = [
            "curl",
            "--silent",
            "--get",
            "--data-urlencode",
            f"query={expression}",
            f"{URL}/api/v1/query",
        ]
        answer = json.loads(self._cluster.run(*asked))
        if answer["status"] != "success":
            raise Failed(f"Prometheus refuses {expression}: {answer['error']}")
        return list(answer["data"]["result"])

    def firing(self) -> set[str]:
        return {each["metric"]["alertname"] for each in self.query('ALERTS{alertstate="firing"}')}

    def wait_firing(self, alerts: set[str]) -> set[str]:
        """Until all of these fire; returns what else does. Raises Failed."""
        found: set[str] = set()
        deadline = time.monotonic() + _WITHIN_S
        while not alerts <= (found := self.firing()):
            if time.monotonic() > deadline:
                raise Failed(f"{', '.join(sorted(alerts - found))} did not fire within {_WITHIN_S} s")
            time.sleep(_POLL_S)
        return found - alerts

    def wait_calm(self) -> None:
        """Until no alert fires. Raises Failed."""
        deadline = time.monotonic() + _WITHIN_S
        while found := self.firing():
            if time.monotonic() > deadline:
                raise Failed(f"{', '.join(sorted(found))} fires, and the cause is gone since {_WITHIN_S} s")
            time.sleep(_POLL_S)

    def wait_scraped(self, release: Release) -> None:
        """Until the newest scrape of every pod of the services has succeeded."""

        def scraped() -> bool:
            pods = {pod["metadata"]["name"] for name in SERVICES for pod in release.pods(name)}
            return pods == {each["metric"]["pod"] for each in self.query("up == 1")}

        release.wait("a scrape of every pod", scraped)


@contextlib.contextmanager
def monitored(
    release: Release, *options: str, alerts: Mapping[str, Json] | None = None
) -> Iterator[Monitoring]:
    """The release with its PodMonitor and its rules, and a Prometheus that carries them out.

    `options` are more of the upgrade, and the end takes them back; `alerts`: values of metrics.rules.alerts.
    """
    _define_kinds(release.cluster)
    with scratch("prometheus") as folder:
        values = Path(folder, "values.json")
        rules = {"enabled": True, "alerts": alerts or {}}
        values.write_text(json.dumps({"metrics": {"podMonitor": {"enabled": True}, "rules": rules}}))
        release.upgrade(f"--values={values}", *options)
        release.wait_rolled_out()
        process = release.cluster.start("prometheus", *_arguments(release, Path(folder)), log="prometheus")
        try:
            again = ("--retry", "60", "--retry-connrefused", "--retry-delay", "1")
            release.cluster.run("curl", "--silent", "--fail", *again, f"{URL}/-/ready")
            monitoring = Monitoring(release.cluster)
            monitoring.wait_scraped(release)
            yield monitoring
        finally:
            process.terminate()
            process.wait(30)
            release.upgrade()


def _arguments(release: Release, folder: Path) -> list[str]:
    monitor, rule = (
        release.get(f"{kind}.{_GROUP}", FULL_NAME) for kind in ("podmonitors", "prometheusrules")
    )
    rules, config = folder / "rules.json", folder / "prometheus.json"
    rules.write_text(json.dumps({"groups": [_quick(group) for group in rule["spec"]["groups"]]}))
    every = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    # JSON is YAML.
    config.write_text(
        json.dumps({"global": every, "rule_files": [str(rules)], "scrape_configs": [scrape_of(monitor)]})
    )
    return [
        f"--config.file={config}",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{_PORT}",
    ]


def _quick(group: Json) -> Json:
    """The group with windows of minutes made short; those of the objectives are longer, and stay."""
    rules = [
        rule | {"expr": re.sub(r"\[(5|10|15)m\]", f"[{_WINDOW}]", rule["expr"])} for rule in group["rules"]
    ]
    return group | {"interval": "1s", "rules": rules}


def soon(*alerts: str, **thresholds: float) -> dict[str, Json]:
    """Values by which these fire after seconds, and some of them beyond another threshold."""
    made: dict[str, Json] = {alert: {"for": _FOR} for alert in alerts}
    for alert, threshold in thresholds.items():
        made[alert] = {"for": _FOR, "threshold": threshold}
    return made


def scrape_of(monitor: Json) -> Json:
    """What the Prometheus operator makes of a PodMonitor."""
    [endpoint] = monitor["spec"]["podMetricsEndpoints"]
    selector = monitor["spec"]["selector"]
    wanted = dict(selector["matchLabels"])
    for each in selector["matchExpressions"]:
        assert each["operator"] == "In", each
        wanted[each["key"]] = "|".join(each["values"])
    names = {"sourceLabels": "source_labels", "targetLabel": "target_label"}
    own = [{names.get(name, name): value for name, value in each.items()} for each in endpoint["relabelings"]]
    namespaces = {"names": monitor["spec"]["namespaceSelector"]["matchNames"]}
    return {
        "job_name": f"podMonitor/{monitor['metadata']['name']}",
        "metrics_path": endpoint["path"],
        "kubernetes_sd_configs": [
            {"role": "pod", "kubeconfig_file": str(ADMIN_CONFIG), "namespaces": namespaces}
        ],
        "relabel_configs": [
            {"action": "drop", "source_labels": [f"{_POD}_phase"], "regex": "(Failed|Succeeded)"},
            *(_keep(_label(name), f"({value})") for name, value in wanted.items()),
            _keep(f"{_POD}_container_port_name", endpoint["port"]),
            {"source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace"},
            {"source_labels": [f"{_POD}_name"], "target_label": "pod"},
            *own,
        ],
    }


def _keep(label: str, regex: str) -> Json:
    return {"action": "keep", "source_labels": [label], "regex": regex}


def _label(name: str) -> str:
    return f"{_POD}_label_" + re.sub(r"[^a-zA-Z0-9_]", "_", name)


def _define_kinds(cluster: Cluster) -> None:
    """The operator's kinds, without the operator."""
    kinds = {"podmonitors": "PodMonitor", "prometheusrules": "PrometheusRule"}
    for plural, kind in kinds.items():
        names = {"kind": kind, "plural": plural, "singular": kind.lower()}
        version = {"name": "v1", "served": True, "storage": True, "schema": _NO_SCHEMA}
        cluster.apply(
            {
                "apiVersion": "apiextensions.k8s.io/v1",
                "kind": "CustomResourceDefinition",
                "metadata": {"name": f"{plural}.{_GROUP}"},
                "spec": {"group": _GROUP, "names": names, "scope": "Namespaced", "versions": [version]},
            }
        )
    crds = [f"crd/{plural}.{_GROUP}" for plural in kinds]
    cluster.kubectl("wait", *crds, "--for=condition=Established", "--timeout=60s")
