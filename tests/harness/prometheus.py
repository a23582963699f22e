"""A real Prometheus, which `make prometheus` builds, with targets as the chart's PodMonitor finds them."""

import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp

from tests.harness.processes import Process, environment, free_port

Json = dict[str, Any]
# Labels that the Prometheus operator adds to what a PodMonitor finds.
_BY_THE_OPERATOR = (
    {"source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace"},
    {"source_labels": ["__meta_kubernetes_pod_name"], "target_label": "pod"},
)


def prometheus() -> str | None:
    """The path of Prometheus, or None."""
    beside = Path(sys.executable).with_name("prometheus")
    return os.environ.get("PROMETHEUS") or (str(beside) if beside.exists() else shutil.which("prometheus"))


class Prometheus(Process):
    """One server that scrapes and evaluates once a second."""

    def __init__(self, folder: Path, *, scrape: Json, groups: Sequence[Json]) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        rules, config = folder / "rules.json", folder / "prometheus.json"
        each_second = [{**group, "interval": "1s"} for group in groups]
        rules.write_text(json.dumps({"groups": each_second}))
        # JSON is YAML.
        config.write_text(
            json.dumps(
                {
                    "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
                    "rule_files": [str(rules)],
                    "scrape_configs": [scrape],
                }
            )
        )
        command = [
            prometheus() or "prometheus",
            f"--config.file={config}",
            f"--storage.tsdb.path={folder / 'prometheus-data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
        ]
        super().__init__("prometheus", command, folder=folder, env=environment())

    async def is_ready(self, http: aiohttp.ClientSession) -> bool:
        assert self.alive, self.tail
        try:
            async with http.get(f"{self.url}/-/ready") as response:
                return response.status == 200
        except aiohttp.ClientError:
            return False

    async def ask(self, http: aiohttp.ClientSession, path: str, **parameters: Any) -> Any:
        """The data of a successful response of the API. Raises AssertionError with its error."""
        async with http.post(f"{self.url}/api/v1/{path}", data=parameters) as response:
            answer = await response.json()
        assert answer["status"] == "success", f"{parameters}: {answer}"
        return answer["data"]


def scrape_by(monitor: Json, *, namespace: str, release: str, targets: Mapping[str, Sequence[str]]) -> Json:
    """What the operator makes of this PodMonitor, for pods of each service at these addresses."""
    [endpoint] = monitor["spec"]["podMetricsEndpoints"]
    names = {"sourceLabels": "source_labels", "targetLabel": "target_label"}
    relabelings = [
        {names.get(name, name): value for name, value in each.items()} for each in endpoint["relabelings"]
    ]
    groups = [
        {
            "targets": [address],
            "labels": {
                "__meta_kubernetes_namespace": namespace,
                "__meta_kubernetes_pod_name": f"{release}-{service}-{number}",
                "__meta_kubernetes_pod_label_app_kubernetes_io_component": service,
                "__meta_kubernetes_pod_label_app_kubernetes_io_instance": release,
            },
        }
        for service, addresses in targets.items()
        for number, address in enumerate(addresses)
    ]
    return {
        "job_name": f"podMonitor/{namespace}/{monitor['metadata']['name']}",
        "metrics_path": endpoint["path"],
        "static_configs": groups,
        "relabel_configs": [*_BY_THE_OPERATOR, *relabelings],
    }
