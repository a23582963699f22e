"""One installation of the chart, in a namespace that enforces the strictest pod security standard."""

import base64
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.cluster.access import Cluster, Failed
from tests.cluster.places import CHART, HERE, NODE, VOLUMES

RELEASE = "notify"
FULL_NAME = f"{RELEASE}-notification-gateway"
SERVICES = ("gateway", "socket-edge", "webhook-dispatcher", "expiry-reaper")
SMALL = HERE / "values-small.yaml"
_OF = "notification-gateway-test"
"""The label of a volume that says which namespace it is for."""
_POLL_S = 0.5
_LIMIT_S = 300


@dataclass(slots=True)
class Release:
    """`values` are Helm's options of every installation and upgrade, of this chart."""

    cluster: Cluster
    namespace: str
    values: tuple[str, ...] = field(default=(f"--values={SMALL}",))
    chart: Path = CHART

    def prepare(self, *, volumes: int = 1, storage_class: str = "") -> None:
        """Creates the namespace and, in our own cluster, what a provisioner of volumes would."""
        levels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn", "audit")}
        metadata = {"name": self.namespace, "labels": levels}
        self.cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        for number in range(volumes if self.cluster.own else 0):
            path = self._folder / str(number)
            path.mkdir(parents=True, exist_ok=True)
            self.cluster.apply(_volume(self.namespace, path, storage_class))

    def remove(self) -> None:
        """The namespace with all that is in it, and its volumes: a released one fits no other claim."""
        self.cluster.kubectl("delete", "namespace", self.namespace)
        if self.cluster.own:
            self.cluster.kubectl("delete", "persistentvolume", f"--selector={_OF}={self.namespace}")
            shutil.rmtree(self._folder, ignore_errors=True)

    def install(self, *more: str) -> str:
        return self._helm("install", *more, "--wait", f"--timeout={_LIMIT_S}s")

    def upgrade(self, *more: str) -> str:
        return self._helm("upgrade", *more)

    def _helm(self, verb: str, *more: str) -> str:
        return self.cluster.helm(verb, RELEASE, str(self.chart), self._in, *self.values, *more)

    def rollback(self) -> None:
        self.cluster.helm("rollback", RELEASE, self._in)

    def history(self) -> str:
        """Every revision with its state."""
        return self.cluster.helm("history", RELEASE, self._in)

    def uninstall(self) -> None:
        self.cluster.helm("uninstall", RELEASE, self._in, "--wait", f"--timeout={_LIMIT_S}s")

    def test(self) -> str:
        """`helm test`: its output with the test pod's log."""
        return self.cluster.helm("test", RELEASE, self._in, "--logs")

    def wait_rolled_out(self) -> None:
        """Until every deployment has all its pods of the newest kind, and no other pod is left."""
        for service in SERVICES:
            self.kubectl(
                "rollout",
                "status",
                f"deployment/{FULL_NAME}-{service}",
                f"--timeout={_LIMIT_S}s",
                within_s=320,
            )
        self.wait("old pods", lambda: not any(self.terminating()))

    def restart(self, *services: str) -> None:
        """`kubectl rollout restart` of these Deployments; returns when no older pod is left."""
        self.kubectl("rollout", "restart", *(f"deployment/{FULL_NAME}-{service}" for service in services))
        self.wait_rolled_out()

    def expect_image(self, tag: str) -> None:
        """Raises Failed unless every pod of the services runs it."""
        for service in SERVICES:
            for pod in self.pods(service):
                image = pod["spec"]["containers"][0]["image"]
                if not image.endswith(f":{tag}"):
                    raise Failed(f"{pod['metadata']['name']} runs {image}, not {tag}")

    def terminating(self) -> Iterator[str]:
        for pod in self.pods():
            if "deletionTimestamp" in pod["metadata"]:
                yield str(pod["metadata"]["name"])

    def pods(self, component: str | None = None) -> list[dict[str, Any]]:
        """Of the installation itself: the pod of `helm test` has ended, stays, and is never ready again."""
        selector = f"app.kubernetes.io/instance={RELEASE}"
        if component is not None:
            selector += f",app.kubernetes.io/component={component}"
        found = self.get("pods", f"--selector={selector}")["items"]
        return [pod for pod in found if not is_hook(pod)]

    def pod(self, component: str) -> str:
        """The name of one running pod."""
        running = [pod for pod in self.pods(component) if "deletionTimestamp" not in pod["metadata"]]
        if not running:
            raise Failed(f"no pod of {component} runs")
        return str(running[0]["metadata"]["name"])

    def wait_ready(self, component: str, *, count: int | None = None) -> None:
        """Until all pods of the component, or that many, are ready, and none is ending."""

        def ready() -> bool:
            pods = self.pods(component)
            ending = any("deletionTimestamp" in pod["metadata"] for pod in pods)
            return bool(pods) and not ending and count in (None, len(pods)) and all(map(is_ready, pods))

        self.wait(f"ready pods of {component}", ready)

    def wait(self, what: str, done: Callable[[], bool], *, within_s: float = _LIMIT_S) -> None:
        deadline = time.monotonic() + within_s
        while not done():
            if time.monotonic() > deadline:
                raise Failed(f"waited {within_s:.0f} s in vain for {what} in {self.namespace}")
            time.sleep(_POLL_S)

    def kubectl(self, *arguments: str, within_s: float = _LIMIT_S) -> str:
        return self.cluster.kubectl(self._in, *arguments, within_s=within_s)

    def get(self, *arguments: str) -> Any:
        return self.cluster.get(self._in, *arguments)

    def address(self, service: str, port: int) -> str:
        """A Service's own address with a port."""
        return f"{self.get('service', f'{FULL_NAME}-{service}')['spec']['clusterIP']}:{port}"

    def admin_token(self) -> str:
        return base64.b64decode(self.get("secret", FULL_NAME)["data"]["admin-token"]).decode()

    @property
    def _folder(self) -> Path:
        return VOLUMES / self.namespace

    @property
    def _in(self) -> str:
        return f"--namespace={self.namespace}"


def is_hook(item: dict[str, Any]) -> bool:
    """Helm has made it for a moment, such as a test, and never removes it with the release."""
    return "helm.sh/hook" in item["metadata"].get("annotations", {})


def is_ready(pod: dict[str, Any]) -> bool:
    conditions = pod["status"].get("conditions", ())
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def _volume(namespace: str, path: Path, storage_class: str) -> dict[str, Any]:
    here = {"key": "kubernetes.io/hostname", "operator": "In", "values": [NODE]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"{namespace}-{path.name}", "labels": {_OF: namespace}},
        "spec": {
            "capacity": {"storage": "8Gi"},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": storage_class,
            "local": {"path": str(path)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}},
        },
    }
