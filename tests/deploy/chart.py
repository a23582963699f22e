"""The chart, rendered by Helm for the sets of values in VALUES."""

from collections.abc import Iterator
from functools import cache
from typing import Any

import helm_python as helm

from tests.deploy.files import CHART, documents

Json = dict[str, Any]
RELEASE = "demo"
NAMESPACE = "prod"
VALUES_KEYS = {
    "gateway": "gateway",
    "socket-edge": "socketEdge",
    "webhook-dispatcher": "webhookDispatcher",
    "expiry-reaper": "expiryReaper",
}

_PEER = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress-nginx"}}}
_ANY_AUTOSCALER = {"enabled": True, "minReplicas": 3, "maxReplicas": 9}

VALUES: dict[str, Json] = {
    "default": {},
    "external-redis": {
        "redis": {
            "own": {"enabled": False},
            "existingSecret": "redis-credentials",
            "key": "url",
            "keys": {"expiry-reaper": "reaper-url"},
            "jobs": {"url": "rediss://:secret@jobs.example.com:6380/1"},
            "caSecret": "redis-ca",
        },
        "adminToken": {"existingSecret": "admin", "key": "token"},
        "networkPolicy": {"redis": {"peers": [{"ipBlock": {"cidr": "192.0.2.7/32"}}], "ports": [6379, 6380]}},
    },
    "redis-cluster": {
        "redis": {
            "own": {"enabled": False},
            "url": "rediss+cluster://user:secret@node-1.example.com:6379,node-2.example.com:6379",
            "jobs": {"url": "redis+sentinel://:secret@sentinel-1.example.com,sentinel-2.example.com/jobs/0"},
        },
    },
    "own-redis": {
        "redis": {"own": {"appendfsync": "always", "maxmemory": "1gb", "storage": {"className": "fast"}}},
        "fullnameOverride": "notify",
        "settings": {"QUEUE_LIMIT_BYTES": 104857600, "ALLOW_PRIVATE_CALLBACKS": "10.1.0.0/16,fd12::/32"},
    },
    "tls-without-autoscalers": {
        "redis": {"own": {"enabled": False}, "url": "rediss://user:secret@redis.example.com:6379/0"},
        "ingress": {"enabled": True, "className": "nginx", "host": "api.example.com", "tlsSecret": "api-tls"},
        "networkPolicy": {"clients": [_PEER]},
    },
    "everything": {
        "commonLabels": {"team": "messaging"},
        "commonAnnotations": {"example.com/owner": "messaging"},
        "pods": {
            "runtimeClassName": "gvisor",
            "hostAliases": [{"ip": "192.0.2.9", "hostnames": ["redis.example.com"]}],
            "dnsConfig": {"options": [{"name": "ndots", "value": "1"}]},
            "extraEnv": [{"name": "TZ", "value": "UTC"}],
            "extraEnvFrom": [{"secretRef": {"name": "more-settings"}}],
            "initContainers": [{"name": "wait", "image": "busybox:1.37", "command": ["true"]}],
            "sidecars": [{"name": "logs", "image": "busybox:1.37", "command": ["cat"]}],
        },
        "extraObjects": [
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "{{ .Release.Name }}-more"}},
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: as-text}\n",
        ],
        "httpRoute": {
            "enabled": True,
            "host": "api.example.com",
            "parentRefs": [{"name": "public", "namespace": "gateways"}],
            "heldTimeouts": {"request": "0s"},
            "blackhole": {"host": "blackhole.example.com"},
        },
        "image": {
            "repository": "registry.example.com/notify",
            "digest": "sha256:" + "a" * 64,
            "pullSecrets": ["pull"],
        },
        "settings": {
            "OTLP_URL": "http://collector.tracing:4318",
            "ALLOW_PRIVATE_CALLBACKS": True,
            "PING_INTERVAL_S": 7.5,
        },
        "callbacks": {"clientCertificateSecret": "client-tls", "caConfigMap": "authorities"},
        "ingress": {
            "enabled": True,
            "className": "nginx",
            "annotations": {"nginx.ingress.kubernetes.io/proxy-body-size": "8m"},
            "host": "api.example.com",
            "tlsSecret": "api-tls",
            "blackhole": {"host": "blackhole.example.com", "tlsSecret": "blackhole-tls"},
        },
        "gateway": {
            "autoscaling": {**_ANY_AUTOSCALER, "cpuPercent": 60},
            "tolerations": [{"key": "dedicated", "operator": "Exists"}],
            "nodeSelector": {"kubernetes.io/arch": "amd64"},
            "priorityClassName": "high",
            "strategy": {"maxSurge": "25%", "maxUnavailable": 0},
            "extraEnv": [{"name": "SSL_CERT_FILE", "value": "/more/ca.crt"}],
            "extraVolumes": [{"name": "more", "secret": {"secretName": "more"}}],
            "extraVolumeMounts": [{"name": "more", "mountPath": "/more", "readOnly": True}],
            "serviceAnnotations": {"example.com/zone": "b"},
            "podAnnotations": {"example.com/team": "notify"},
            "podLabels": {"example.com/tier": "edge"},
        },
        "socketEdge": {
            "autoscaling": {**_ANY_AUTOSCALER, "socketsPerReplica": 2000},
            "preStopSeconds": 20,
            "drain": {"delaySeconds": 3, "windowSeconds": 120},
        },
        "webhookDispatcher": {
            "autoscaling": {**_ANY_AUTOSCALER, "dueSeconds": 45, "callbacksPerReplica": 100}
        },
        "expiryReaper": {"replicas": 2},
        "metrics": {
            "podMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
            "rules": {
                "enabled": True,
                "labels": {"release": "prometheus"},
                "runbookUrl": "https://docs.example.com/runbook.md",
            },
            "dashboard": {"enabled": True},
        },
    },
}

# The files for a kind of installation, which an operator starts from.
PERSONAS = {path.stem.removeprefix("values-"): path for path in sorted(CHART.glob("values-*.yaml"))}
VALUES |= {name: documents(path.read_text())[0] for name, path in PERSONAS.items()}


@cache
def _chart() -> helm.Chart:
    return helm.Chart.load(CHART)


def rendered(values: Json) -> list[Json]:
    """Every object that `helm install` would create. Raises HelmError where it would fail."""
    files = _chart().render(values, name=RELEASE, namespace=NAMESPACE)
    return [found for name, text in files.items() if name.endswith(".yaml") for found in documents(text)]


@cache
def _objects(case: str) -> tuple[Json, ...]:
    return tuple(rendered(VALUES[case]))


def objects(case: str, kind: str | None = None) -> list[Json]:
    return [found for found in _objects(case) if kind in (None, found["kind"])]


def named(case: str, kind: str, end: str = "") -> Json:
    """The only object of a kind whose name ends with `end`."""
    [found] = [found for found in objects(case, kind) if found["metadata"]["name"].endswith(end)]
    return found


def component(found: Json) -> str:
    return str(found["metadata"]["labels"].get("app.kubernetes.io/component", ""))


def deployments(case: str) -> dict[str, Json]:
    """service: its Deployment"""
    return {component(found): found for found in objects(case, "Deployment")}


def pods(case: str) -> Iterator[tuple[str, Json]]:
    """(name, spec) of every pod."""
    for found in objects(case):
        if found["kind"] == "Pod":
            yield found["metadata"]["name"], found["spec"]
        elif found["kind"] in ("Deployment", "StatefulSet"):
            yield found["metadata"]["name"], found["spec"]["template"]["spec"]


def merged(case: str) -> Json:
    """The values of this case with the chart's defaults."""
    return _chart().merge_values(VALUES[case])


def settings_of(case: str) -> Json:
    """The settings that all services share."""
    name = merged(case)["fullnameOverride"] or f"{RELEASE}-notification-gateway"
    return dict(named(case, "ConfigMap", name)["data"])


def metrics_port_of(case: str) -> int:
    return int(settings_of(case)["NOTIFY_METRICS_PORT"])
