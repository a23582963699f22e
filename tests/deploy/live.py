"""The chart, rendered by Helm against an API server that holds the objects a test gives it."""

import contextlib
import json
import threading
from collections.abc import Iterator
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import helm_python as helm
import yaml

from tests.deploy.chart import NAMESPACE, RELEASE, Json
from tests.deploy.files import CHART

# resource: its API group and version, and its kind
RESOURCES = {
    "secrets": ("v1", "Secret"),
    "deployments": ("apps/v1", "Deployment"),
    "statefulsets": ("apps/v1", "StatefulSet"),
}
_MISSING = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}


def _discovery(path: str) -> Json | None:
    """What a client asks before it knows the address of a kind."""
    groups = sorted({version for version, _ in RESOURCES.values()} - {"v1"})
    named = [{"groupVersion": version, "version": version.split("/")[1]} for version in groups]
    found: dict[str, Json] = {
        "/version": {"major": "1", "minor": "34", "gitVersion": "v1.34.0"},
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
        "/apis": {
            "kind": "APIGroupList",
            "apiVersion": "v1",
            "groups": [
                {"name": each["groupVersion"].split("/")[0], "versions": [each], "preferredVersion": each}
                for each in named
            ],
        },
    }
    for version in ("v1", *groups):
        found[_prefix(version)] = {
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": version,
            "resources": [
                {"name": name, "singularName": "", "namespaced": True, "kind": kind, "verbs": ["get", "list"]}
                for name, (there, kind) in RESOURCES.items()
                if there == version
            ],
        }
    return found.get(path)


def _prefix(version: str) -> str:
    return f"/api/{version}" if version == "v1" else f"/apis/{version}"


class _Server(ThreadingHTTPServer):
    """Serves the given objects, as `kubectl get` would see them."""

    def __init__(self, held: list[Json]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.held = held

    @cached_property
    def objects(self) -> dict[str, Json]:
        """path: the object or the list there"""
        found: dict[str, Json] = {}
        for name, (version, kind) in RESOURCES.items():
            items = [each for each in self.held if each["kind"] == kind]
            home = f"{_prefix(version)}/namespaces/{NAMESPACE}/{name}"
            found[home] = {"kind": f"{kind}List", "apiVersion": version, "metadata": {}, "items": items}
            found |= {f"{home}/{each['metadata']['name']}": each for each in items}
        return found


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        found = _discovery(path) or self.server.objects.get(path)
        body = json.dumps(found or _MISSING).encode()
        self.send_response(200 if found else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing: a test's output is the test's."""


@contextlib.contextmanager
def _cluster(held: list[Json]) -> Iterator[helm.Config]:
    server = _Server(held)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield helm.Config(
            kubeconfig_content="apiVersion: v1\nkind: Config\n",
            kube_apiserver=f"http://127.0.0.1:{server.server_port}",
            namespace=NAMESPACE,
            storage_driver="memory",
        )
    finally:
        server.shutdown()
        server.server_close()


def rendered_live(values: Json, *held: Json) -> list[Json]:
    """Every object that `helm upgrade` would apply where the cluster holds these. Raises HelmError."""
    with _cluster(list(held)) as config, helm.Chart.load(CHART) as chart:
        files = config.render(chart, values, name=RELEASE, namespace=NAMESPACE, is_upgrade=bool(held))
    return [
        found
        for name, text in files.items()
        if name.endswith(".yaml")
        for found in yaml.safe_load_all(text)
        if found is not None
    ]
