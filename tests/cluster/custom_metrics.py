"""Edges and dispatchers follow their own metrics: Prometheus, prometheus-adapter, HorizontalPodAutoscaler."""

import contextlib
from collections.abc import Iterator

from tests.cluster import metrics_api
from tests.cluster.certificates import config
from tests.cluster.monitoring import URL, monitored
from tests.cluster.places import CHART, scratch
from tests.cluster.receivers import Webhooks, receiver
from tests.cluster.release import FULL_NAME, Release

_RULES = CHART / "files" / "adapter-rules.yaml"
_BEFORE, _MOST = 2, 3
_LIMIT_S = 300
# The load holds more than twice that many sockets, and its own webhooks take no time.
_SOCKETS = 40
_SLOW_S, _SLOW_HOOKS, _REQUESTS = 10.0, 25, 5
_AUTOSCALERS = {
    "socketEdge": {"socketsPerReplica": _SOCKETS},
    "webhookDispatcher": {"callbacksPerReplica": _REQUESTS},
}
SERVICES = {"socket-edge": "notify_sockets_held", "webhook-dispatcher": "notify_callbacks_under_way"}
"""With the metric that each must scale by."""


def follow_their_metrics(release: Release) -> list[str]:
    """Two edges become three by the load's clients, and two dispatchers by webhooks that are slow."""
    with receiver(release, delay_s=_SLOW_S), monitored(release, *_options()), _adapter(release):
        hooks = Webhooks(release, count=_SLOW_HOOKS)

        def scaled() -> bool:
            # A dispatcher counts a request when it ends, so there must always be the next one.
            hooks.publish()
            return all(_has_scaled(release, service) for service in SERVICES)

        release.wait("autoscalers that add an edge and a dispatcher", scaled, within_s=_LIMIT_S)
        for service in SERVICES:
            release.wait_ready(service, count=_MOST)
        hooks.end()
    # The autoscalers went with the last upgrade of `monitored`.
    for service in SERVICES:
        release.wait_ready(service, count=_BEFORE)
    return [
        f"edges and dispatchers went from {_BEFORE} to {_MOST} and back, by what prometheus-adapter reads"
    ]


def _options() -> list[str]:
    usual = {"enabled": "true", "minReplicas": _BEFORE, "maxReplicas": _MOST}
    return [
        f"--set={service}.autoscaling.{name}={value}"
        for service, own in _AUTOSCALERS.items()
        for name, value in {**usual, **own}.items()
    ]


def _has_scaled(release: Release, service: str) -> bool:
    """By its own metric, which the autoscaler has read."""
    status = release.get("horizontalpodautoscaler", f"{FULL_NAME}-{service}").get("status", {})
    read = {each["pods"]["metric"]["name"] for each in status.get("currentMetrics") or () if "pods" in each}
    return SERVICES[service] in read and status.get("desiredReplicas") == _MOST


@contextlib.contextmanager
def _adapter(release: Release) -> Iterator[None]:
    """Beside Prometheus, and registered as the API of custom metrics."""
    who = config("metrics")
    with scratch("adapter") as folder:
        access = [f"--{use}-kubeconfig={who}" for use in ("lister", "authentication", "authorization")]
        own = [f"--secure-port={metrics_api.ADAPTER_PORT}", f"--cert-dir={folder}"]
        asks = [f"--prometheus-url={URL}", f"--config={_RULES}", "--metrics-relist-interval=10s"]
        process = release.cluster.start("prometheus-adapter", *access, *own, *asks, log="prometheus-adapter")
        try:
            metrics_api.register_adapter(release.cluster)
            yield
        finally:
            metrics_api.remove_adapter(release.cluster)
            process.terminate()
            process.wait(30)
