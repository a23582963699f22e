"""Makes the metrics server, which runs on the node, an API of the cluster: autoscalers on CPU ask it."""

from typing import Any

from tests.cluster.access import Cluster
from tests.cluster.daemons import METRICS_PORT
from tests.cluster.places import NODE_IP

_NAME = "metrics-server"
_NAMESPACE = "kube-system"

OBJECTS: list[dict[str, Any]] = [
    {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": _NAME, "namespace": _NAMESPACE},
        "spec": {"ports": [{"name": "https", "port": 443, "targetPort": METRICS_PORT}]},
    },
    {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{_NAME}-1",
            "namespace": _NAMESPACE,
            "labels": {"kubernetes.io/service-name": _NAME},
        },
        "addressType": "IPv4",
        "ports": [{"name": "https", "port": METRICS_PORT}],
        "endpoints": [{"addresses": [NODE_IP], "conditions": {"ready": True}}],
    },
    {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": "v1beta1.metrics.k8s.io"},
        "spec": {
            "service": {"name": _NAME, "namespace": _NAMESPACE, "port": 443},
            "group": "metrics.k8s.io",
            "version": "v1beta1",
            "insecureSkipTLSVerify": True,
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
        },
    },
]


def register(cluster: Cluster) -> None:
    cluster.apply(*OBJECTS)
