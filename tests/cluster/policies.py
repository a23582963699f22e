"""The chart's network policies, as enforced: what they allow is open, and nothing else."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.cluster.access import Cluster, Failed
from tests.cluster.places import NODE_IP, scratch
from tests.cluster.release import Release
from tests.deploy.files import PORTS

_REDIS_PORT, _METRICS_PORT, _STRANGERS_PORT = 6379, 9090, 8099
_STRANGERS = "notify-strangers"
_CALLERS = ("gateway", "webhook-dispatcher")
_CONNECT_S = 2
_CONNECT = """
import json, socket, sys
found = {}
for target in sys.argv[1:]:
    host, port = target.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), SECONDS).close()
        found[target] = True
    except OSError:
        found[target] = False
print(json.dumps(found))
""".replace("SECONDS", str(_CONNECT_S))


@dataclass(frozen=True, slots=True)
class Way:
    """A connection from one pod to another's port. Names are the chart's components, or strangers' pods."""

    source: str
    target: str
    port: int
    is_open: bool


WAYS = (
    # Without a policy of its own, a pod's port is open: else nothing below would show anything.
    Way("caller", "listener", _STRANGERS_PORT, is_open=True),
    Way("caller", "gateway", PORTS["gateway"], is_open=True),
    Way("caller", "socket-edge", PORTS["socket-edge"], is_open=True),
    *(Way("caller", name, _METRICS_PORT, is_open=False) for name in PORTS),
    Way("caller", "redis", _REDIS_PORT, is_open=False),
    *(Way(name, "redis", _REDIS_PORT, is_open=True) for name in PORTS),
    # A webhook's URL must not reach into the cluster, nor a service another one.
    *(Way(name, "listener", _STRANGERS_PORT, is_open=False) for name in PORTS),
    Way("expiry-reaper", "gateway", PORTS["gateway"], is_open=False),
    # settings.ALLOW_PRIVATE_CALLBACKS opens the node's address, for those that call webhooks.
    *(Way(name, "node", _STRANGERS_PORT, is_open=name in _CALLERS) for name in PORTS),
)


def network_policies(release: Release) -> list[str]:
    with _strangers(release) as strangers, _listener_on_the_node(release.cluster):
        addresses = {way.target: _address(release, strangers, way.target) for way in WAYS}
        wrong = []
        for source in dict.fromkeys(way.source for way in WAYS):
            ways = [way for way in WAYS if way.source == source]
            targets = {way: f"{addresses[way.target]}:{way.port}" for way in ways}
            found = _connect(release, strangers, source, list(targets.values()))
            wrong += [
                f"{way.source} to {way.target}:{way.port} is {'closed' if way.is_open else 'open'}"
                for way in ways
                if found[targets[way]] != way.is_open
            ]
    if wrong:
        raise Failed("; ".join(wrong))
    return []


def _connect(release: Release, strangers: Release, source: str, targets: list[str]) -> dict[str, bool]:
    where, pod = (strangers, source) if source == "caller" else (release, release.pod(source))
    # The image of Redis has Python here, but not everywhere, so it is only a target.
    said = where.kubectl("exec", pod, "--", "python", "-c", _CONNECT, *targets)
    found: dict[str, bool] = json.loads(said)
    return found


def _address(release: Release, strangers: Release, name: str) -> str:
    if name == "node":
        return NODE_IP
    pod = strangers.get("pod", name) if name == "listener" else release.get("pod", release.pod(name))
    return str(pod["status"]["podIP"])


@contextmanager
def _listener_on_the_node(cluster: Cluster) -> Iterator[None]:
    with scratch("empty") as folder:
        where = (f"--bind={NODE_IP}", f"--directory={folder}", str(_STRANGERS_PORT))
        server = cluster.start(sys.executable, "-m", "http.server", *where, log="listener")
        try:
            again = ("--retry", "20", "--retry-connrefused", "--retry-delay", "1")
            cluster.run("curl", "--silent", *again, f"http://{NODE_IP}:{_STRANGERS_PORT}/")
            yield
        finally:
            server.terminate()
            server.wait(10)


@contextmanager
def _strangers(release: Release) -> Iterator[Release]:
    """Two pods of another owner: one that connects, and one that listens."""
    cluster: Cluster = release.cluster
    strangers = Release(cluster, _STRANGERS)
    image = release.get("pod", release.pod("gateway"))["spec"]["containers"][0]["image"]
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": _STRANGERS}})
    try:
        for name in ("caller", "listener"):
            cluster.apply(_pod(name, image))
        strangers.kubectl("wait", "pod/caller", "pod/listener", "--for=condition=Ready", "--timeout=60s")
        yield strangers
    finally:
        cluster.kubectl("delete", "namespace", _STRANGERS, "--wait=false")


def _pod(name: str, image: str) -> dict[str, object]:
    command = ["python", "-m", "http.server", str(_STRANGERS_PORT)]
    probe = {"tcpSocket": {"port": _STRANGERS_PORT}, "periodSeconds": 1}
    container = {"name": name, "image": image, "command": command, "readinessProbe": probe}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": _STRANGERS},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 0},
    }
