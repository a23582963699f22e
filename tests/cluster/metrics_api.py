"""Makes what measures, and runs on the node, an API of the cluster, which autoscalers ask."""

from typing import Any

from tests.cluster.access import Cluster
from tests.cluster.daemons import METRICS_PORT
from tests.cluster.places import NODE_IP

_NAMESPACE = "kube-system"
ADAPTER_PORT = 4444


def register(cluster: Cluster) -> None:
    """CPU and memory, which the metrics server reads from the kubelet."""
    cluster.apply(*_objects("metrics-server", METRICS_PORT, "v1beta1.metrics.k8s.io"))


def register_adapter(cluster: Cluster) -> None:
    """What the adapter reads from Prometheus."""
    cluster.apply(*_objects("prometheus-adapter", ADAPTER_PORT, "v1beta2.custom.metrics.k8s.io"))


def remove_adapter(cluster: Cluster) -> None:
    """An API that is registered and away would keep namespaces from being deleted."""
    cluster.kubectl("delete", "apiservice", "v1beta2.custom.metrics.k8s.io")


def _objects(name: str, port: int, api: str) -> list[dict[str, Any]]:
    version, _, group = api.partition(".")
    metadata = {"name": name, "namespace": _NAMESPACE}
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {"ports": [{"name": "https", "port": 443, "targetPort": port}]},
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": f"{name}-1",
                "namespace": _NAMESPACE,
                "labels": {"kubernetes.io/service-name": name},
            },
            "addressType": "IPv4",
            "ports": [{"name": "https", "port": port}],
            "endpoints": [{"addresses": [NODE_IP], "conditions": {"ready": True}}],
        },
        {
            "apiVersion": "apiregistration.k8s.io/v1",
            "kind": "APIService",
            "metadata": {"name": api},
            "spec": {
                "service": {"name": name, "namespace": _NAMESPACE, "port": 443},
                "group": group,
                "version": version,
                "insecureSkipTLSVerify": True,
                "groupPriorityMinimum": 100,
                "versionPriority": 100,
            },
        },
    ]
