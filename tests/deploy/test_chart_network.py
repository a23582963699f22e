"""Ingress and NetworkPolicies let through what they must, and nothing else."""

import ipaddress
import re
from typing import Any

import pytest
from starlette.routing import Route

from services.gateway.app import ROUTES
from services.socket_edge.app import CONNECT_PATH, JOIN_PATH, SOCKET_PATH
from services.socket_edge.long_poll import PULL_PATH
from services.socket_edge.streams.sse import STREAM_PATH
from shared.model.addresses import AddressPolicy
from tests.deploy.chart import VALUES, Json, component, deployments, metrics_port_of, named, objects, rendered
from tests.deploy.files import PORTS, SERVICES, image_settings

CALLERS = ("gateway", "webhook-dispatcher")
every_case = pytest.mark.parametrize("case", VALUES)
GATEWAY_PATHS = [re.sub(r"\{[^}]*\}", "x", route.path) for route in ROUTES if isinstance(route, Route)]


def policy(case: str, service: str) -> Json:
    [found] = [p for p in objects(case, "NetworkPolicy") if component(p) == service]
    return dict(found["spec"])


def backend(ingress: Json, path: str) -> str | None:
    """The service that gets a path: by exact match, else by the longest prefix of whole path elements."""
    rules = [p for rule in ingress["spec"]["rules"] for p in rule["http"]["paths"]]
    exact = [p for p in rules if p["pathType"] == "Exact" and p["path"] == path]
    within = [
        p for p in rules if p["pathType"] == "Prefix" and f"{path}/".startswith(p["path"].rstrip("/") + "/")
    ]
    best = exact or sorted(within, key=lambda p: -len(p["path"]))
    return (
        str(best[0]["backend"]["service"]["name"]).removeprefix("demo-notification-gateway-")
        if best
        else None
    )


def reaches(rule: Json, address: str) -> bool:
    """Whether an egress rule's address blocks contain this address."""
    there = ipaddress.ip_address(address)

    def holds(network: str) -> bool:
        return there in ipaddress.ip_network(network)

    blocks = [peer["ipBlock"] for peer in rule.get("to", ()) if "ipBlock" in peer]
    return any(holds(b["cidr"]) and not any(map(holds, b.get("except", ()))) for b in blocks)


def _picks(peer: Json, labels: Json) -> bool:
    wanted = peer.get("podSelector", {}).get("matchLabels", {})
    return bool(wanted) and wanted.items() <= labels.items()


def dns_port(case: str) -> int:
    return 5353 if case == "openshift" else 53


def to_customers(spec: Json) -> list[Json]:
    """The egress rules without a port: those for webhook requests."""
    return [rule for rule in spec["egress"] if "ports" not in rule]


@pytest.mark.parametrize("path", GATEWAY_PATHS)
def test_gateway_paths_reach_the_gateway(path: str) -> None:
    assert backend(named("everything", "Ingress", "demo-notification-gateway"), path) == "gateway"


@pytest.mark.parametrize("path", [CONNECT_PATH, JOIN_PATH, PULL_PATH, STREAM_PATH, "/v1/socket"])
def test_held_connections_reach_the_edges(path: str) -> None:
    assert backend(named("everything", "Ingress", "demo-notification-gateway"), path) == "socket-edge"


@pytest.mark.parametrize(
    "path",
    [
        *("/v1/streams", "/v1/streams/orders.paid", "/v1/stream/", "/v1/stream/x"),
        *("/v1/sockets", "/v1/socket/", "/v1/socket/x"),
    ],
)
def test_what_begins_like_a_path_of_the_edges_reaches_the_gateway(path: str) -> None:
    assert backend(named("everything", "Ingress", "demo-notification-gateway"), path) == "gateway"


@pytest.mark.parametrize("path", ["/metrics", "/livez", "/readyz", "/", "/v10/x"])
def test_no_other_path_is_exposed(path: str) -> None:
    assert backend(named("everything", "Ingress", "demo-notification-gateway"), path) is None


def test_blackhole_has_its_own_host_without_health_pages() -> None:
    api = named("everything", "Ingress", "demo-notification-gateway")
    blackhole = named("everything", "Ingress", "-blackhole")
    assert [rule["host"] for rule in blackhole["spec"]["rules"]] == ["blackhole.example.com"]
    assert [rule["host"] for rule in api["spec"]["rules"]] == ["api.example.com"]
    assert backend(blackhole, "/") == backend(blackhole, SOCKET_PATH) == "socket-edge"
    assert backend(blackhole, "/metrics") is None


def test_the_ingress_is_optional() -> None:
    assert objects("default", "Ingress") == []
    assert len(objects("tls-without-autoscalers", "Ingress")) == 1


@every_case
def test_backends_exist_with_their_port(case: str) -> None:
    ports = {s["metadata"]["name"]: {p["name"] for p in s["spec"]["ports"]} for s in objects(case, "Service")}
    for ingress in objects(case, "Ingress"):
        for path in ingress["spec"]["rules"][0]["http"]["paths"]:
            service = path["backend"]["service"]
            assert service["port"]["name"] in ports[service["name"]]
        hosts = [host for tls in ingress["spec"].get("tls", ()) for host in tls["hosts"]]
        # OpenShift's router has a certificate of its own.
        assert hosts == ([] if case == "openshift" else [ingress["spec"]["rules"][0]["host"]])
    numbers = {
        s["metadata"]["name"]: {p["port"] for p in s["spec"]["ports"]} for s in objects(case, "Service")
    }
    for route in objects(case, "HTTPRoute"):
        for rule in route["spec"]["rules"]:
            [backend] = rule["backendRefs"]
            assert backend["port"] in numbers[backend["name"]]
            assert backend["port"] != metrics_port_of(case)


def paths_of(rules: list[Json]) -> dict[tuple[str, str], str]:
    """(path, its type in an Ingress): the service, of an HTTPRoute's rules"""
    kinds = {"PathPrefix": "Prefix", "Exact": "Exact"}
    return {
        (match["path"]["value"], kinds[match["path"]["type"]]): rule["backendRefs"][0]["name"]
        for rule in rules
        for match in rule["matches"]
    }


@pytest.mark.parametrize("end", ["demo-notification-gateway", "-blackhole"])
def test_the_gateway_api_routes_as_the_ingress_does(end: str) -> None:
    ingress = named("everything", "Ingress", end)
    route = named("everything", "HTTPRoute", end)
    assert route["spec"]["hostnames"] == [rule["host"] for rule in ingress["spec"]["rules"]]
    assert route["spec"]["parentRefs"] == [{"name": "public", "namespace": "gateways"}]
    routed = {
        (path["path"], path["pathType"]): path["backend"]["service"]["name"]
        for rule in ingress["spec"]["rules"]
        for path in rule["http"]["paths"]
    }
    assert paths_of(route["spec"]["rules"]) == routed
    held = [
        rule for rule in route["spec"]["rules"] if rule["backendRefs"][0]["name"].endswith("-socket-edge")
    ]
    assert [rule["timeouts"] for rule in held] == [{"request": "0s"}]


@every_case
def test_metrics_are_on_no_port_that_clients_reach(case: str) -> None:
    """Neither through an Ingress nor on the service's port, and at the image's own place."""
    port = metrics_port_of(case)
    assert port not in PORTS.values()
    assert str(port) == image_settings()["NOTIFY_METRICS_PORT"]
    for ingress in objects(case, "Ingress"):
        paths = [path for rule in ingress["spec"]["rules"] for path in rule["http"]["paths"]]
        assert {path["backend"]["service"]["port"]["name"] for path in paths} == {"http"}
    for service in SERVICES:
        *ways_in, _ = policy(case, service)["ingress"]
        assert port not in [each["port"] for way in ways_in for each in way["ports"]]


@every_case
@pytest.mark.parametrize("service", SERVICES)
def test_each_service_has_a_policy_for_both_directions(case: str, service: str) -> None:
    spec = policy(case, service)
    assert spec["podSelector"] == deployments(case)[service]["spec"]["selector"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    *ways_in, to_metrics = spec["ingress"]
    there = "openshift-user-workload-monitoring" if case == "openshift" else "monitoring"
    monitoring = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": there}}}
    assert to_metrics["ports"] == [{"protocol": "TCP", "port": metrics_port_of(case)}]
    assert to_metrics["from"] == [monitoring], "only monitoring may read metrics"
    assert len(ways_in) == (service in ("gateway", "socket-edge"))
    for way_in in ways_in:
        assert way_in["ports"] == [{"protocol": "TCP", "port": PORTS[service]}]
        assert monitoring not in way_in["from"]
        labels = named(case, "Pod")["metadata"]["labels"]
        assert any(_picks(peer, labels) for peer in way_in["from"]), "`helm test` may connect"


@every_case
@pytest.mark.parametrize("service", ["socket-edge", "expiry-reaper"])
def test_edges_and_reapers_connect_to_redis_dns_and_the_collector_only(case: str, service: str) -> None:
    ports = {port["port"] for rule in policy(case, service)["egress"] for port in rule["ports"]}
    allowed = {dns_port(case), 6379}
    allowed |= {6380} if case == "external-redis" else set()
    allowed |= {26379} if case == "redis-cluster" else set()
    allowed |= {4318} if case == "everything" else set()
    assert ports == allowed
    assert to_customers(policy(case, service)) == []


@every_case
@pytest.mark.parametrize("service", SERVICES)
def test_dns_works_over_udp_and_tcp(case: str, service: str) -> None:
    ports = [port for rule in policy(case, service)["egress"] for port in rule.get("ports", ())]
    dns = dns_port(case)
    assert sorted(port["protocol"] for port in ports if port["port"] == dns) == ["TCP", "UDP"]
    assert {port["protocol"] for port in ports if port["port"] != dns} == {"TCP"}


@pytest.mark.parametrize("service", CALLERS)
@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.1",
        "172.20.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "127.0.0.1",
        "fd00::1",
        "fe80::1",
    ],
)
def test_webhook_requests_reach_no_private_address(service: str, address: str) -> None:
    [rule] = to_customers(policy("default", service))
    assert AddressPolicy(()).refuses(address)
    assert not reaches(rule, address)


@pytest.mark.parametrize("service", CALLERS)
@pytest.mark.parametrize("address", ["93.184.216.34", "2606:2800:220:1::1"])
def test_webhook_requests_reach_public_addresses(service: str, address: str) -> None:
    [rule] = to_customers(policy("default", service))
    assert reaches(rule, address)


def test_networks_that_the_operator_opens_are_open() -> None:
    [some] = to_customers(policy("own-redis", "gateway"))
    assert reaches(some, "10.1.2.3")
    assert reaches(some, "fd12::1")
    assert not reaches(some, "10.2.0.1")
    [every] = to_customers(policy("everything", "gateway"))
    assert reaches(every, "10.2.0.1")
    assert not reaches(every, "169.254.169.254")


def test_an_opened_address_is_a_network_of_its_own() -> None:
    found = rendered({"settings": {"ALLOW_PRIVATE_CALLBACKS": "10.1.2.3, fd12::5"}})
    [gateway] = [each for each in found if each["kind"] == "NetworkPolicy" and component(each) == "gateway"]
    [rule] = to_customers(gateway["spec"])
    assert reaches(rule, "10.1.2.3")
    assert reaches(rule, "fd12::5")
    assert not reaches(rule, "10.1.2.4")
    blocks = [peer["ipBlock"]["cidr"] for peer in rule["to"]]
    assert all("/" in block for block in blocks), "the API server refuses an address without a length"


@pytest.mark.parametrize(
    "proxy", [{"url": "http://proxy.example:3128"}, {"existingSecret": "proxy", "key": "url"}]
)
def test_with_an_egress_proxy_receivers_are_reached_by_it_alone(proxy: dict[str, str]) -> None:
    peers = [{"ipBlock": {"cidr": "10.3.0.0/24"}}]
    values = {
        "callbacks": {"egressProxy": proxy},
        "networkPolicy": {"egressProxy": {"peers": peers, "ports": [3128]}},
    }
    found = rendered(values)
    policies = {component(each): each["spec"] for each in found if each["kind"] == "NetworkPolicy"}
    for service in SERVICES:
        rules = policies[service]["egress"]
        ways_out = [rule for rule in rules if reaches(rule, "93.184.215.14")]
        to_proxy = [rule for rule in rules if rule.get("to") == peers]
        assert ways_out == []
        assert len(to_proxy) == (service in ("gateway", "webhook-dispatcher"))
    for each in found:
        if each["kind"] != "Deployment" or component(each) not in SERVICES:
            continue
        env = {entry["name"]: entry for entry in each["spec"]["template"]["spec"]["containers"][0]["env"]}
        is_from_secret = "existingSecret" in proxy and component(each) in ("gateway", "webhook-dispatcher")
        assert ("NOTIFY_EGRESS_PROXY" in env) == is_from_secret
    [shared] = [
        each["data"]
        for each in found
        if each["kind"] == "ConfigMap" and "NOTIFY_HOST" in each.get("data", {})
    ]
    assert shared.get("NOTIFY_EGRESS_PROXY", "") == proxy.get("url", "")


def test_only_the_services_reach_the_charts_redis() -> None:
    spec = policy("default", "redis")
    [way_in] = spec["ingress"]
    [peer] = way_in["from"]
    [components] = peer["podSelector"]["matchExpressions"]
    assert set(components["values"]) == set(SERVICES)
    assert spec["egress"] == []
    redis = named("default", "StatefulSet")
    assert spec["podSelector"] == redis["spec"]["selector"]
    for service in SERVICES:
        peers: list[Any] = [p for rule in policy("default", service)["egress"] for p in rule.get("to", ())]
        assert {"podSelector": redis["spec"]["selector"]} in peers


def test_helm_test_works_where_everything_is_denied_by_default() -> None:
    spec = policy("default", "test")
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert spec["ingress"] == []
    labels = named("default", "Pod")["metadata"]["labels"]
    assert spec["podSelector"]["matchLabels"].items() <= labels.items()
    dns, *others = spec["egress"]
    assert {port["port"] for port in dns["ports"]} == {53}
    reached = {
        rule["to"][0]["podSelector"]["matchLabels"]["app.kubernetes.io/component"]: rule["ports"]
        for rule in others
    }
    called = ("gateway", "socket-edge")
    assert reached == {name: [{"protocol": "TCP", "port": PORTS[name]}] for name in called}


def test_dns_pods_may_listen_on_other_ports() -> None:
    """A policy sees the port of the pod, after the Service's translation."""
    found = rendered({"networkPolicy": {"dnsPorts": [53, 5353]}})
    policies = [each for each in found if each["kind"] == "NetworkPolicy" and component(each) != "redis"]
    assert len(policies) == len(SERVICES) + 1
    for each in policies:
        ports = {
            (port["protocol"], port["port"])
            for rule in each["spec"]["egress"]
            for port in rule.get("ports", ())
        }
        assert {("UDP", 53), ("TCP", 53), ("UDP", 5353), ("TCP", 5353)} <= ports


def test_sidecars_may_have_destinations_of_their_own() -> None:
    mine = {"to": [{"ipBlock": {"cidr": "192.0.2.5/32"}}], "ports": [{"protocol": "TCP", "port": 24224}]}
    found = rendered({"networkPolicy": {"extraEgress": [mine]}})
    having = {
        component(each)
        for each in found
        if each["kind"] == "NetworkPolicy" and mine in each["spec"]["egress"]
    }
    assert having == set(SERVICES)


def test_network_policies_are_optional() -> None:
    assert [o for o in rendered({"networkPolicy": {"enabled": False}}) if o["kind"] == "NetworkPolicy"] == []
