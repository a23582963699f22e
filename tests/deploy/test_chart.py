"""The chart renders objects that Kubernetes accepts and that fit the code."""

import re
from functools import cache
from typing import Any

import helm_python as helm
import kubernetes_validate
import pytest
import yaml
from kubernetes_validate import utils

from services.__main__ import _parser
from shared.runtime.settings import load_settings
from tests.deploy.chart import (
    NAMESPACE,
    VALUES,
    VALUES_KEYS,
    Json,
    component,
    deployments,
    metrics_port_of,
    named,
    objects,
    pods,
    settings_of,
)
from tests.deploy.files import CHART, PORTS, SERVICES, SETTINGS, STOPS_WITHIN_S

OLDEST, NEWEST = "1.30", kubernetes_validate.latest_version()
# Kinds of others: of the Prometheus operator, KEDA and the Gateway API. Kubernetes has no schema for them.
CUSTOM = ("PodMonitor", "PrometheusRule", "ScaledObject", "HTTPRoute")
# The default rollout; a percentage is of the replicas.
SURGES = {1, "25%"}

every_case = pytest.mark.parametrize("case", VALUES)
every_service = pytest.mark.parametrize("service", SERVICES)


@pytest.fixture(autouse=True, scope="module")
def _schemas_are_read_once() -> Any:
    read = utils.schema_contents
    utils.schema_contents = cache(read)
    yield
    utils.schema_contents = read


def container(found: Json) -> Json:
    """The service's own, beside sidecars."""
    first, *_ = found["spec"]["template"]["spec"]["containers"]
    assert first["name"] == component(found)
    return dict(first)


def set_in(each: Json) -> set[str]:
    """Our settings in a container's environment."""
    return {entry["name"] for entry in each["env"] if entry["name"].startswith("NOTIFY_")}


@every_case
def test_helm_lint_reports_nothing(case: str) -> None:
    report = helm.lint(CHART, VALUES[case], strict=True, namespace=NAMESPACE, kube_version=f"v{OLDEST}.0")
    assert report["errors"] == []
    warned = [message for message in report["messages"] if message["severity"] > 1]
    assert warned == []


@every_case
@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_kubernetes_accepts_every_object(case: str, version: str) -> None:
    checked = [found for found in objects(case) if found["kind"] not in CUSTOM]
    assert len(checked) > 15
    for found in checked:
        kubernetes_validate.validate(found, version, strict=True)


def test_the_chart_requires_the_oldest_version_tested() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["kubeVersion"] == f">={OLDEST}.0-0"


def test_a_wrong_object_would_be_noticed() -> None:
    wrong = {**named("default", "Deployment", "-gateway")}
    wrong["spec"] = {**wrong["spec"], "replcias": 2}
    with pytest.raises(kubernetes_validate.ValidationError, match="replcias"):
        kubernetes_validate.validate(wrong, NEWEST, strict=True)


@every_case
def test_names_are_unique_and_short(case: str) -> None:
    names = [(found["kind"], found["metadata"]["name"]) for found in objects(case)]
    assert len(names) == len(set(names))
    assert max(len(name) for _, name in names) <= 63


@every_case
def test_each_service_is_a_deployment_of_the_same_image(case: str) -> None:
    found = deployments(case)
    assert set(found) == set(SERVICES)
    assert len({container(each)["image"] for each in found.values()}) == 1
    for service, each in found.items():
        assert _parser().parse_args(container(each)["args"]).command == service


@every_case
def test_every_setting_exists_and_is_valid(case: str) -> None:
    shared = settings_of(case)
    assert set(shared) <= SETTINGS
    for service, found in deployments(case).items():
        own = set_in(container(found))
        assert own <= SETTINGS
        assert not own & set(shared)
        assert ("NOTIFY_ADMIN_TOKEN" in own) == (service == "gateway")
        assert "NOTIFY_REDIS_URL" in own
        source, *_ = container(found)["envFrom"]
        assert source["configMapRef"]["name"] in [c["metadata"]["name"] for c in objects(case, "ConfigMap")]
    # These files exist in the pods only.
    readable = {name: value for name, value in shared.items() if not value.startswith("/etc/notify/")}
    settings = load_settings(readable)
    assert settings.host == "0.0.0.0"
    assert settings.log_format == "json"


def test_numbers_keep_their_form() -> None:
    own = named("own-redis", "ConfigMap", "notify")["data"]
    assert own["NOTIFY_QUEUE_LIMIT_BYTES"] == "104857600"
    everything = named("everything", "ConfigMap", "-gateway")["data"]
    assert everything["NOTIFY_PING_INTERVAL_S"] == "7.5"
    assert everything["NOTIFY_ALLOW_PRIVATE_CALLBACKS"] == "1"


@every_case
@every_service
def test_ports_and_probes_match_the_services(case: str, service: str) -> None:
    found = container(deployments(case)[service])
    metrics_port = metrics_port_of(case)
    ports = {"http": PORTS[service], "metrics": metrics_port}
    assert {port["name"]: port["containerPort"] for port in found["ports"]} == ports
    assert metrics_port not in PORTS.values()
    probed = {name: found[name]["httpGet"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert {get["port"] for get in probed.values()} == {"http"}
    paths = {name: get["path"] for name, get in probed.items()}
    assert paths == {"startupProbe": "/livez", "livenessProbe": "/livez", "readinessProbe": "/readyz"}
    [there] = [s for s in objects(case, "Service") if component(s) == service]
    assert {p["targetPort"]: p["port"] for p in there["spec"]["ports"]} == ports
    assert (
        there["spec"]["selector"].items()
        <= deployments(case)[service]["spec"]["template"]["metadata"]["labels"].items()
    )


@every_case
@every_service
def test_the_grace_period_covers_draining_and_stopping(case: str, service: str) -> None:
    spec = deployments(case)[service]["spec"]["template"]["spec"]
    found = container(deployments(case)[service])
    sleeps = found.get("lifecycle", {"preStop": {"sleep": {"seconds": 0}}})["preStop"]["sleep"]["seconds"]
    own = {entry["name"]: entry["value"] for entry in found["env"] if "value" in entry}
    own = {name: value for name, value in own.items() if name in SETTINGS}
    settings = load_settings(own)
    drains_s = settings.drain_delay_s + settings.drain_window_s
    assert bool(own) == (service == "socket-edge")
    assert spec["terminationGracePeriodSeconds"] >= sleeps + drains_s + STOPS_WITHIN_S[service]


def test_edges_close_their_sockets_over_a_window() -> None:
    for case, window_s in (("default", "30"), ("everything", "120")):
        env = {e["name"]: e.get("value") for e in container(deployments(case)["socket-edge"])["env"]}
        assert env["NOTIFY_DRAIN_WINDOW_S"] == window_s


@every_service
def test_the_schema_leaves_every_service_time_to_stop(service: str) -> None:
    schema = helm.Chart.load(CHART).schema
    assert schema is not None
    least = schema["properties"][VALUES_KEYS[service]]["properties"]["stopSeconds"]["minimum"]
    assert least >= STOPS_WITHIN_S[service]


@every_case
def test_a_rollout_keeps_all_replicas(case: str) -> None:
    for service, found in deployments(case).items():
        strategy = found["spec"]["strategy"]["rollingUpdate"]
        assert strategy["maxUnavailable"] == 0
        assert strategy["maxSurge"] in SURGES
        assert found["spec"]["minReadySeconds"] >= 5
        [budget] = [b for b in objects(case, "PodDisruptionBudget") if component(b) == service]
        assert budget["spec"]["maxUnavailable"] == 1
        assert budget["spec"]["selector"] == found["spec"]["selector"]


@every_case
def test_an_autoscaler_alone_sets_the_replicas(case: str) -> None:
    kinds = [*objects(case, "HorizontalPodAutoscaler"), *objects(case, "ScaledObject")]
    scaled = {each["spec"]["scaleTargetRef"]["name"] for each in kinds}
    assert len(kinds) == len(scaled) == (3 if case in ("everything", "production", "keda") else 0)
    for found in objects(case, "Deployment"):
        assert ("replicas" in found["spec"]) != (found["metadata"]["name"] in scaled), "no cluster to look at"


@every_case
def test_every_pod_has_few_privileges(case: str) -> None:
    seen = list(pods(case))
    assert len(seen) >= 5
    for name, spec in seen:
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["enableServiceLinks"] is False, name
        security = spec["securityContext"]
        assert security["runAsNonRoot"] is True
        # OpenShift refuses a user that is not of the namespace's range.
        assert ("runAsUser" in security) == ("fsGroup" in security) == (case != "openshift")
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        for each in spec["containers"]:
            if each["name"] == "logs":
                continue
            assert each["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            for bound in ("requests", "limits"):
                assert set(each["resources"][bound]) == {"cpu", "memory", "ephemeral-storage"}
    accounts = objects(case, "ServiceAccount")
    assert [account["automountServiceAccountToken"] for account in accounts] == [False]
    assert {spec["serviceAccountName"] for _, spec in seen} == {accounts[0]["metadata"]["name"]}


@every_case
def test_replicas_spread_over_zones_and_nodes(case: str) -> None:
    for found in objects(case, "Deployment"):
        spread = found["spec"]["template"]["spec"]["topologySpreadConstraints"]
        assert [s["topologyKey"] for s in spread] == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]
        assert all(s["labelSelector"] == found["spec"]["selector"] for s in spread)


@every_case
def test_volumes_and_secret_keys_exist(case: str) -> None:
    """Each mount has its volume; each key that is read from the chart's Secret is in it."""
    keys = {found["metadata"]["name"]: set(found["data"]) for found in objects(case, "Secret")}
    external = {"redis-credentials", "admin", "notify-admin"}
    for name, spec in pods(case):
        volumes = {volume["name"] for volume in spec.get("volumes", ())} | {"data"}
        for each in spec["containers"]:
            assert {mount["name"] for mount in each.get("volumeMounts", ())} <= volumes, name
            for entry in each.get("env", ()):
                source = entry.get("valueFrom", {}).get("secretKeyRef")
                if source is not None and source["name"] not in external:
                    assert source["key"] in keys[source["name"]], (name, entry["name"])


def test_existing_secrets_are_read_and_not_created() -> None:
    [made] = objects("external-redis", "Secret")
    assert set(made["data"]) == {"jobs-redis-url"}
    env = {e["name"]: e["valueFrom"] for e in container(deployments("external-redis")["gateway"])["env"]}
    assert env["NOTIFY_REDIS_URL"] == {"secretKeyRef": {"name": "redis-credentials", "key": "url"}}
    of_reaper = container(deployments("external-redis")["expiry-reaper"])["env"]
    [url] = [each for each in of_reaper if each["name"] == "NOTIFY_REDIS_URL"]
    assert url["valueFrom"] == {"secretKeyRef": {"name": "redis-credentials", "key": "reaper-url"}}
    assert env["NOTIFY_ADMIN_TOKEN"] == {"secretKeyRef": {"name": "admin", "key": "token"}}
    assert env["NOTIFY_JOBS_REDIS_URL"]["secretKeyRef"]["key"] == "jobs-redis-url"


def test_certificates_are_mounted_where_webhook_requests_are_made() -> None:
    paths = {
        service: {mount["mountPath"] for mount in container(found).get("volumeMounts", ())} - {"/more"}
        for service, found in deployments("everything").items()
    }
    calling = {"/etc/notify/callback", "/etc/notify/callback-ca"}
    assert paths["gateway"] == paths["webhook-dispatcher"] == calling
    shared = named("everything", "ConfigMap", "-gateway")["data"]
    files = [value for value in shared.values() if value.startswith("/etc/notify/")]
    assert len(files) == 3
    assert all(file.rsplit("/", 1)[0] in calling for file in files)


def test_changed_settings_replace_the_pods() -> None:
    def sums(case: str) -> dict[str, str]:
        found = deployments(case)["socket-edge"]["spec"]["template"]["metadata"]["annotations"]
        return {key: value for key, value in found.items() if key.startswith("checksum/")}

    assert sums("default")["checksum/settings"] != sums("everything")["checksum/settings"]
    assert sums("default")["checksum/redis"] != sums("tls-without-autoscalers")["checksum/redis"]


@every_case
def test_a_new_chart_version_alone_restarts_nothing(case: str) -> None:
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["version"]
    for found in [*objects(case, "Deployment"), *objects(case, "StatefulSet")]:
        labels = found["spec"]["template"]["metadata"]["labels"]
        assert not [value for value in labels.values() if version in value]


def test_notes_name_existing_objects() -> None:
    with helm.Chart.load(CHART) as chart:
        notes = chart.render({}, name="demo", namespace=NAMESPACE)["notification-gateway/templates/NOTES.txt"]
    names = re.findall(r"deploy/(\S+)", notes)
    assert names
    assert set(names) <= {found["metadata"]["name"] for found in objects("default", "Deployment")}
