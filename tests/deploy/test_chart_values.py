"""The chart refuses values that make no sense, with an error that says what to change."""

import json
from typing import Any

import helm_python as helm
import pytest

from shared.runtime.setting_names import FORMER
from shared.runtime.settings import Settings
from tests.deploy.chart import rendered
from tests.deploy.files import CHART, SETTINGS

SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
# The chart sets these itself, from other values or not at all.
NOT_FOR_THE_OPERATOR = {
    *("REDIS_URL", "JOBS_REDIS_URL", "ADMIN_TOKEN", "REPLICA", "DATA_DIR", "HOST"),
    *("PORT", "EDGE_PORT", "DISPATCHER_PORT", "REAPER_PORT", "METRICS_PORT"),
    *("CALLBACK_CLIENT_CERT", "CALLBACK_CLIENT_KEY", "CALLBACK_CA", "EGRESS_PROXY"),
    *("DRAIN_DELAY_S", "DRAIN_WINDOW_S"),
}

EXTERNAL = {"own": {"enabled": False}, "url": "rediss://redis.example.com:6379/0"}


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"replicas": 3}, "'replicas' not allowed"),
        ({"gateway": {"replcias": 3}}, "'replcias' not allowed"),
        ({"gateway": {"replicas": 0}}, "/gateway/replicas"),
        (
            {"gateway": {"disruptionBudget": {"maxUnavailable": 0}}},
            "/gateway/disruptionBudget/maxUnavailable",
        ),
        ({"gateway": {"resources": {"limits": {"memory": None}}}}, "missing property 'memory'"),
        ({"socketEdge": {"stopSeconds": 3}}, "/socketEdge/stopSeconds': minimum"),
        ({"settings": {"LOG_LEVLE": "debug"}}, "'LOG_LEVLE' not allowed"),
        ({"settings": {"LOG_LEVEL": "loud"}}, "'debug', 'info', 'warning', 'error'"),
        ({"settings": {"PING_INTERVAL_S": 0}}, "/settings/PING_INTERVAL_S"),
        ({"settings": {"DRAIN_WINDOW_S": 60}}, "'DRAIN_WINDOW_S' not allowed"),
        ({"socketEdge": {"drain": {"windowSeconds": -1}}}, "/socketEdge/drain/windowSeconds"),
        ({"settings": {"PORT": 80}}, "'PORT' not allowed"),
        ({"settings": {"HEARTBEAT_S": 30}}, "HEARTBEAT_TTL_S (15) must be more than HEARTBEAT_S (30)"),
        ({"fullnameOverride": "1abc"}, "/fullnameOverride"),
        ({"fullnameOverride": "a.b"}, "/fullnameOverride"),
        ({"nameOverride": "a.b"}, "/nameOverride"),
        ({"listenOn": "127.0.0.1"}, "'0.0.0.0', '::'"),
        ({"redis": {"own": {"appendfsync": "no"}}}, "'always', 'everysec'"),
        ({"redis": {"own": {"maxmemory": "512Mi"}}}, "/redis/own/maxmemory"),
        ({"redis": {"own": {"enabled": False}}}, "no Redis is configured: set redis.url"),
        ({"redis": {"url": "redis://redis:6379/0"}}, "redis.own.enabled and redis.url are both set"),
        (
            {"redis": {**EXTERNAL, "existingSecret": "mine"}},
            "redis.url and redis.existingSecret are both set",
        ),
        ({"redis": {**EXTERNAL, "url": "redis+sentinel://x"}}, "/redis/url"),
        ({"redis": {**EXTERNAL, "url": "redis+nonsense://x"}}, "/redis/url"),
        ({"redis": {**EXTERNAL, "url": "redis+cluster://x"}}, "arq's jobs cannot run on one"),
        ({"redis": {**EXTERNAL, "jobs": {"url": "redis+cluster://x"}}}, "/redis/jobs/url"),
        (
            {"redis": {**EXTERNAL, "jobs": {"url": "redis://a", "existingSecret": "b"}}},
            "redis.jobs.url and redis.jobs.existingSecret are both set",
        ),
        (
            {"redis": {**EXTERNAL, "keys": {"gateway": "gateway-url"}}},
            "redis.keys are keys of redis.existingSecret, which is not set",
        ),
        ({"redis": {**EXTERNAL, "keys": {"edge": "edge-url"}}}, "'edge' not allowed"),
        ({"image": {"digest": "latest"}}, "/image/digest"),
        ({"ingress": {"enabled": True}}, "ingress.enabled needs ingress.host"),
        ({"ingress": {"host": "https://api.example.com"}}, "/ingress/host"),
        (
            {"ingress": {"enabled": True, "host": "a.example", "blackhole": {"host": "a.example"}}},
            "ingress.blackhole.host must differ",
        ),
        (
            {"gateway": {"autoscaling": {"enabled": True, "minReplicas": 5, "maxReplicas": 2}}},
            "gateway.autoscaling.maxReplicas (2) is below minReplicas (5)",
        ),
        (
            {"webhookDispatcher": {"autoscaling": {"enabled": True, "dueSeconds": 20}}},
            "autoscaling.dueSeconds (20) must be more than settings.CALLBACK_TIMEOUT_S (20)",
        ),
        (
            {"gateway": {"autoscaling": {"enabled": True, "extraTriggers": [{"type": "cpu"}]}}},
            "gateway.autoscaling.extraTriggers is for by=keda",
        ),
        (
            {"socketEdge": {"autoscaling": {"enabled": True, "by": "keda"}}},
            "socketEdge.autoscaling.by=keda needs keda.prometheusUrl",
        ),
        (
            {"gateway": {"strategy": {"maxSurge": 0}}},
            "gateway.strategy.maxSurge and maxUnavailable are both 0",
        ),
        ({"gateway": {"strategy": {"maxSurge": "300%"}}}, "/gateway/strategy/maxSurge"),
        (
            {"gateway": {"resources": {"requests": {"cpu": 2}}}},
            "gateway.resources.requests.cpu (2) is more than its limit (1)",
        ),
        (
            {"redis": {"own": {"resources": {"requests": {"memory": "2Gi"}}}}},
            "redis.own.resources.requests.memory (2Gi) is more than its limit (1Gi)",
        ),
        ({"gateway": {"resources": {"requests": {"cpu": "a lot"}}}}, "/gateway/resources/requests/cpu"),
        ({"gateway": {"podLabels": {"team": "a b"}}}, "/gateway/podLabels/team"),
        ({"commonLabels": {"a b": "c"}}, "'a b' does not match"),
        ({"pods": {"extraEnv": [{"value": "x"}]}}, "/pods/extraEnv/0"),
        ({"pods": {"dnsPolicy": "None"}}, "pods.dnsPolicy=None needs pods.dnsConfig.nameservers"),
        ({"httpRoute": {"enabled": True, "host": "a.example"}}, "httpRoute.enabled needs httpRoute.host"),
        ({"metrics": {"rules": {"alerts": {"NotifyNoEdge": {"threshold": 1}}}}}, "'threshold' not allowed"),
        ({"metrics": {"rules": {"alerts": {"NotifyNothing": {}}}}}, "'NotifyNothing' not allowed"),
        ({"metrics": {"rules": {"alertLabels": {"severity": "page"}}}}, "invalid propertyName 'severity'"),
        ({"metrics": {"rules": {"runbookUrl": "docs/runbook.md"}}}, "/metrics/rules/runbookUrl"),
        ({"metrics": {"serviceMonitor": {"enabled": True}}}, "'serviceMonitor' not allowed"),
        (
            {"networkPolicy": {"privateNetworks": {"ipv4": ["10.0.0.0"]}}},
            "/networkPolicy/privateNetworks/ipv4/0",
        ),
        ({"settings": {"EGRESS_PROXY": "http://proxy:3128"}}, "'EGRESS_PROXY' not allowed"),
        (
            {"callbacks": {"egressProxy": {"url": "http://user:secret@proxy:3128"}}},
            "/callbacks/egressProxy/url",
        ),
        (
            {"callbacks": {"egressProxy": {"url": "http://proxy:3128", "existingSecret": "proxy"}}},
            "callbacks.egressProxy.url and callbacks.egressProxy.existingSecret are both set: choose one",
        ),
        ({"settings": {"ALLOW_PRIVATE_CALLBACKS": "intranet"}}, "/settings/ALLOW_PRIVATE_CALLBACKS"),
        # The API server wants it below the progress deadline of 600 s.
        ({"gateway": {"minReadySeconds": 600}}, "/gateway/minReadySeconds"),
        ({"gateway": {"nodeSelector": {"zone": "a b"}}}, "/gateway/nodeSelector/zone"),
        ({"ingress": {"annotations": {"a b": "c"}}}, "'a b' does not match"),
        ({"networkPolicy": {"monitoring": []}}, "/networkPolicy/monitoring"),
        (
            {"settings": {"ALLOWED_ORIGINS": "none", "CORS_ORIGINS": "none"}},
            "settings.CORS_ORIGINS is the former name of settings.ALLOWED_ORIGINS",
        ),
        ({"serviceAccount": {"create": False}}, "serviceAccount.create=false needs serviceAccount.name"),
    ],
)
def test_senseless_values_are_refused(values: dict[str, Any], error: str) -> None:
    with pytest.raises(helm.HelmError) as refused:
        rendered(values)
    assert error in str(refused.value)


@pytest.mark.parametrize("release", ["1abc", "a.b"])
def test_a_release_whose_services_would_be_refused_is_refused_first(release: str) -> None:
    """Helm accepts these names; the API server refuses them for a Service, after it has made Deployments."""
    with helm.Chart.load(CHART) as chart:
        with pytest.raises(helm.HelmError, match="Set fullnameOverride"):
            chart.render({}, name=release, namespace="prod")
        assert chart.render({"fullnameOverride": "notify"}, name=release, namespace="prod")


def test_every_setting_can_be_set_in_the_chart() -> None:
    """A new setting goes into values.schema.json, or into NOT_FOR_THE_OPERATOR."""
    in_schema = SCHEMA["properties"]["settings"]["properties"]
    wanted = {name.removeprefix("NOTIFY_") for name in SETTINGS} - NOT_FOR_THE_OPERATOR
    former = {name.removeprefix("NOTIFY_"): field.upper() for field, name in FORMER.items()}
    assert set(in_schema) == wanted | set(former)
    for name in wanted:
        assert in_schema[name]["description"] == Settings.model_fields[name.lower()].description
    for name, present in former.items():
        assert in_schema[name]["description"] == f"the former name of {present}"
        assert in_schema[name]["type"] == in_schema[present]["type"]


def test_every_value_has_a_place_in_the_schema() -> None:
    """The schema checks every value in values.yaml."""

    def unchecked(values: dict[str, Any], schema: dict[str, Any], path: str) -> list[str]:
        if "properties" not in schema:
            return []
        found = [f"{path}.{key}" for key in values if key not in schema["properties"]]
        for key, value in values.items():
            if isinstance(value, dict) and key in schema["properties"]:
                found += unchecked(value, schema["properties"][key], f"{path}.{key}")
        return found

    with helm.Chart.load(CHART) as chart:
        assert unchecked(chart.values, SCHEMA, "") == []
