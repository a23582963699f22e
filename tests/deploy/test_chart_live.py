"""The chart renders by what the cluster has, and refuses what the cluster would refuse half-way."""

import copy
from typing import Any

import helm_python as helm
import pytest

from tests.deploy.chart import Json, component, named, rendered
from tests.deploy.live import rendered_live

SCALED = ("gateway", "socketEdge", "webhookDispatcher")
AUTOSCALED = {key: {"autoscaling": {"enabled": True, "minReplicas": 3, "maxReplicas": 9}} for key in SCALED}


def replicas(found: list[Json]) -> dict[str, int | None]:
    return {component(each): each["spec"].get("replicas") for each in found if each["kind"] == "Deployment"}


def live(kind: str, end: str, **spec: Any) -> Json:
    """An object as an earlier release left it, with some of its spec changed."""
    found = copy.deepcopy(named("default", kind, end))
    found["spec"] |= spec
    return found


def test_turning_autoscaling_on_keeps_the_live_replicas() -> None:
    edge = live("Deployment", "-socket-edge", replicas=6)
    assert replicas(rendered_live(AUTOSCALED, edge)) == {
        "gateway": 3,
        "socket-edge": 6,
        "webhook-dispatcher": 3,
        "expiry-reaper": 1,
    }


def test_the_first_install_begins_with_the_least_replicas() -> None:
    assert replicas(rendered_live(AUTOSCALED))["socket-edge"] == 3


def test_a_renderer_without_a_cluster_leaves_the_number_to_the_autoscaler() -> None:
    found = replicas(rendered(AUTOSCALED))
    assert found == {
        "gateway": None,
        "socket-edge": None,
        "webhook-dispatcher": None,
        "expiry-reaper": 1,
    }


def test_without_an_autoscaler_the_values_count() -> None:
    edge = live("Deployment", "-socket-edge", replicas=6)
    assert replicas(rendered_live({"socketEdge": {"replicas": 4}}, edge))["socket-edge"] == 4


def test_generated_secrets_are_kept() -> None:
    kept = named("default", "Secret")
    [again] = [each for each in rendered_live({}, kept) if each["kind"] == "Secret"]
    assert again["data"] == kept["data"]


@pytest.mark.parametrize("size", ["8Gi", "8192Mi", "8589934592"])
def test_a_volume_of_the_same_size_is_accepted(size: str) -> None:
    redis = live("StatefulSet", "-redis")
    assert rendered_live({"redis": {"own": {"storage": {"size": size}}}}, redis)


@pytest.mark.parametrize(
    ("values", "error"),
    [
        (
            {"redis": {"own": {"storage": {"size": "16Gi"}}}},
            "redis.own.storage.size cannot change from 8Gi to 16Gi",
        ),
        (
            {"redis": {"own": {"storage": {"className": "fast"}}}},
            'redis.own.storage.className cannot change from "" to "fast"',
        ),
        ({"nameOverride": "other", "fullnameOverride": "demo-notification-gateway"}, "nameOverride"),
    ],
)
def test_what_a_live_object_cannot_become_is_refused(values: Json, error: str) -> None:
    with pytest.raises(helm.HelmError) as refused:
        rendered_live(values, live("StatefulSet", "-redis"))
    assert error in str(refused.value)


def test_a_deployment_cannot_change_its_selector() -> None:
    values = {
        "nameOverride": "other",
        "fullnameOverride": "demo-notification-gateway",
        "redis": {"own": {"enabled": False}, "existingSecret": "mine"},
    }
    with pytest.raises(helm.HelmError, match="never changes a selector"):
        rendered_live(values, live("Deployment", "-gateway"))


def test_a_grown_volume_is_accepted_once_the_stateful_set_is_away() -> None:
    """The documented steps delete it without its pod; the claim is grown before."""
    values = {"redis": {"own": {"storage": {"size": "16Gi"}}}}
    [made] = [each for each in rendered_live(values) if each["kind"] == "StatefulSet"]
    [claim] = made["spec"]["volumeClaimTemplates"]
    assert claim["spec"]["resources"]["requests"]["storage"] == "16Gi"
