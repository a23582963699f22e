"""What operators add: containers, variables, labels, autoscalers by KEDA, a pace of rollouts."""

import re
from typing import Any

import helm_python as helm
import pytest

from tests.deploy.chart import (
    NAMESPACE,
    PERSONAS,
    RELEASE,
    VALUES,
    VALUES_KEYS,
    Json,
    component,
    deployments,
    named,
    objects,
    rendered,
)
from tests.deploy.files import CHART, SERVICES
from tests.deploy.rules import selectors
from tests.deploy.test_alerts import served

every_service = pytest.mark.parametrize("service", SERVICES)


def pod(service: str, case: str = "everything") -> Json:
    return dict(deployments(case)[service]["spec"]["template"]["spec"])


@every_service
def test_what_all_services_get_is_in_each_pod(service: str) -> None:
    spec = pod(service)
    main, sidecar = spec["containers"]
    assert (main["name"], sidecar["name"]) == (service, "logs")
    assert [each["name"] for each in spec["initContainers"]] == ["wait"]
    assert {"name": "TZ", "value": "UTC"} in main["env"]
    assert {"secretRef": {"name": "more-settings"}} in main["envFrom"]
    assert spec["runtimeClassName"] == "gvisor"
    assert spec["hostAliases"][0]["hostnames"] == ["redis.example.com"]
    assert spec["dnsConfig"]["options"][0]["name"] == "ndots"


@every_service
def test_what_one_service_gets_is_in_no_other(service: str) -> None:
    spec = pod(service)
    main = spec["containers"][0]
    is_there = service == "gateway"
    assert ({"name": "SSL_CERT_FILE", "value": "/more/ca.crt"} in main["env"]) == is_there
    assert ("/more" in [mount["mountPath"] for mount in main.get("volumeMounts", ())]) == is_there
    assert ("more" in [volume["name"] for volume in spec.get("volumes", ())]) == is_there


def test_common_labels_and_annotations_are_on_every_object_and_pod() -> None:
    own = [
        found
        for found in objects("everything")
        if not found["metadata"]["name"].endswith(("more", "as-text"))
    ]
    templates = [found["spec"]["template"] for found in own if "template" in found.get("spec", {})]
    assert len(templates) == len(SERVICES) + 1
    for found in own + templates:
        assert found["metadata"]["labels"]["team"] == "messaging"
        if found in templates and component(found) == "redis":
            continue
        assert found["metadata"]["annotations"]["example.com/owner"] == "messaging"


def test_common_labels_select_nothing() -> None:
    """Selectors cannot change, so a label that the operator adds later must not be in one."""
    for found in objects("everything"):
        assert "messaging" not in str(found.get("spec", {}).get("selector", ""))


def test_the_charts_own_labels_win() -> None:
    mine = {"app.kubernetes.io/component": "mine", "team": "a"}
    found = rendered({"commonLabels": mine, "gateway": {"podLabels": mine}})
    [gateway] = [each for each in found if each["kind"] == "Deployment" and component(each) == "gateway"]
    labels = gateway["spec"]["template"]["metadata"]["labels"]
    assert labels["app.kubernetes.io/component"] == "gateway"
    assert labels["team"] == "a"


def test_extra_objects_are_rendered() -> None:
    names = {found["metadata"]["name"] for found in objects("everything", "ConfigMap")}
    assert {f"{RELEASE}-more", "as-text"} <= names


def test_annotations_of_one_service() -> None:
    service = named("everything", "Service", "-gateway-gateway")
    assert service["metadata"]["annotations"]["example.com/zone"] == "b"


def triggers(service: str) -> list[Json]:
    [found] = [each for each in objects("keda", "ScaledObject") if component(each) == service]
    assert found["spec"]["scaleTargetRef"]["name"] == f"{RELEASE}-notification-gateway-{service}"
    assert found["spec"]["minReplicaCount"] >= 1, "edges hold sockets, and nothing would wake a dispatcher"
    return list(found["spec"]["triggers"])


def test_keda_scales_by_the_metrics_of_this_release() -> None:
    edge = triggers("socket-edge")
    dispatcher = triggers("webhook-dispatcher")
    for trigger in edge + dispatcher:
        query = trigger["metadata"]["query"]
        assert trigger["metadata"]["serverAddress"] == "http://prometheus-operated.monitoring:9090"
        for selector in selectors(query):
            matched = {m.name: m.value for m in selector.matchers.matchers}
            assert {"namespace": NAMESPACE, "release": RELEASE}.items() <= matched.items()
            assert set(matched.get("__name__", selector.name or "").split("|")) <= served()
    assert [each["metadata"]["threshold"] for each in edge] == ["5000"]
    assert [(each["metricType"], each["metadata"]["threshold"]) for each in dispatcher] == [
        ("Value", "30"),
        ("AverageValue", "200"),
    ]


def test_keda_scales_gateways_by_cpu_and_replaces_the_autoscalers() -> None:
    assert triggers("gateway") == [{"type": "cpu", "metricType": "Utilization", "metadata": {"value": "70"}}]
    assert objects("keda", "HorizontalPodAutoscaler") == []


def test_an_autoscaler_takes_metrics_and_behavior_of_the_operator() -> None:
    metric = {"type": "Resource", "resource": {"name": "memory"}}
    behavior = {"scaleDown": {"policies": [{"type": "Pods", "value": 2, "periodSeconds": 60}]}}
    scaling = {"enabled": True, "extraMetrics": [metric], "behavior": behavior}
    found = rendered({"socketEdge": {"autoscaling": scaling}})
    [scaler] = [each for each in found if each["kind"] == "HorizontalPodAutoscaler"]
    assert scaler["spec"]["metrics"][-1] == metric
    down = scaler["spec"]["behavior"]["scaleDown"]
    assert down["policies"] == behavior["scaleDown"]["policies"]
    assert down["stabilizationWindowSeconds"] == 600


def test_the_operators_own_spreading_replaces_the_charts() -> None:
    mine = {
        "maxSkew": 2,
        "topologyKey": "example.com/rack",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app.kubernetes.io/component": "socket-edge"}},
    }
    found = rendered({"socketEdge": {"topologySpreadConstraints": [mine]}})
    spread = {
        component(each): each["spec"]["template"]["spec"]["topologySpreadConstraints"]
        for each in found
        if each["kind"] == "Deployment"
    }
    assert spread["socket-edge"] == [mine]
    assert len(spread["gateway"]) == 2


def notes(values: Json) -> str:
    with helm.Chart.load(CHART) as chart:
        files = chart.render(values, name=RELEASE, namespace=NAMESPACE)
    return files["notification-gateway/templates/NOTES.txt"]


@pytest.mark.parametrize(
    ("edge", "seconds"),
    [
        ({"replicas": 36}, 432),
        ({"replicas": 36, "strategy": {"maxSurge": "25%"}}, 48),
        ({"replicas": 36, "strategy": {"maxSurge": 0, "maxUnavailable": "10%"}}, 144),
        ({"replicas": 37, "strategy": {"maxSurge": 4, "maxUnavailable": 2}}, 84),
        ({"autoscaling": {"enabled": True, "maxReplicas": 20}}, 240),
    ],
)
def test_the_notes_say_how_long_a_rollout_takes(edge: Json, seconds: int) -> None:
    said = notes({"socketEdge": edge})
    assert f"A rollout takes about {seconds} s: socket-edge" in said
    timeouts = re.findall(r"--timeout (\d+)m", said)
    assert bool(timeouts) == (seconds > 240), "Helm's own five minutes are enough"
    assert all(int(minutes) * 60 > seconds for minutes in timeouts)


def _cores(quantity: Any) -> float:
    text = str(quantity)
    return float(text.removesuffix("m")) / 1000 if text.endswith("m") else float(text)


def test_the_values_for_a_small_node_leave_room_for_a_rollout() -> None:
    """On 2 cores, of which the cluster's own pods take up to one; each service adds one pod in a rollout."""
    pods = {
        each["metadata"]["name"]: each["spec"]
        for each in objects("small")
        if each["kind"] in ("Deployment", "StatefulSet")
    }
    requested = {
        name: _cores(spec["template"]["spec"]["containers"][0]["resources"]["requests"]["cpu"])
        * spec["replicas"]
        for name, spec in pods.items()
    }
    assert len(requested) == len(SERVICES) + 1
    assert sum(requested.values()) * 2 <= 0.6


def test_each_file_of_values_says_what_it_is_for() -> None:
    assert set(PERSONAS) == {"keda", "openshift", "production", "small"}
    for name, path in PERSONAS.items():
        first = path.read_text().splitlines()[0]
        assert first.startswith("# ")
        assert VALUES[name]


def test_values_of_an_older_chart_are_refused() -> None:
    """`helm upgrade --reuse-values` takes no new defaults, and templates would fail on what is missing."""
    schema = helm.Chart.load(CHART).schema
    assert schema is not None
    assert {"pods", "keda", "httpRoute", "commonLabels"} <= set(schema["required"])
    for key in VALUES_KEYS.values():
        assert {"strategy", "extraEnv", "sidecars"} <= set(schema["properties"][key]["required"])
