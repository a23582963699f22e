"""The compose file and the files it mounts fit the code and each other."""

import re
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from shared.runtime.settings import load_settings
from tests.deploy.files import DEPLOY, PORTS, SERVICES, SETTINGS, STOPS_WITHIN_S
from tests.deploy.generate import COMPOSE
from tests.deploy.rules import selectors

FILE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
CONTAINERS: dict[str, Any] = FILE["services"]
CADDYFILE = (DEPLOY / "proxy" / "Caddyfile").read_text()

OURS = {name: c for name, c in CONTAINERS.items() if c["image"] == "notification-gateway"}
# container: its service
RUNS = {name: c["command"][0] for name, c in OURS.items()}
ours = pytest.mark.parametrize("name", OURS)


def settings_of(name: str) -> dict[str, str]:
    """Its environment, with placeholders for the operator's secrets."""
    return {k: re.sub(r"\$\{.*\}", "x" * 16, v) for k, v in OURS[name]["environment"].items()}


def metrics_port_of(name: str) -> int:
    port = load_settings(settings_of(name)).metrics_port
    assert port is not None
    return port


def mounts(container: dict[str, Any]) -> list[str]:
    return [volume.split(":")[0] for volume in container.get("volumes", ())]


def test_every_service_runs_once_and_the_edge_twice() -> None:
    assert set(RUNS.values()) == set(SERVICES)
    assert list(RUNS.values()).count("socket-edge") == 2


@ours
def test_its_settings_exist_and_are_valid(name: str) -> None:
    env = settings_of(name)
    assert set(env) <= SETTINGS
    settings = load_settings(env)
    assert settings.redis_url == "redis://redis:6379/0"
    assert (settings.admin_token is not None) == (RUNS[name] == "gateway")


@ours
def test_it_has_few_privileges_and_time_to_stop(name: str) -> None:
    container = OURS[name]
    assert container["read_only"] is True
    assert container["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in container["security_opt"]
    assert "ports" not in container
    settings = load_settings(settings_of(name))
    drains_s = settings.drain_delay_s + settings.drain_window_s
    assert (drains_s > 0) == (RUNS[name] == "socket-edge")
    assert int(container["stop_grace_period"].removesuffix("s")) >= drains_s + STOPS_WITHIN_S[RUNS[name]]


@ours
def test_it_is_built_from_the_dockerfile(name: str) -> None:
    build = OURS[name]["build"]
    context = (DEPLOY / build["context"]).resolve()
    assert (context / build["dockerfile"]).samefile(DEPLOY / "Dockerfile")


def test_mounted_files_and_volumes_exist() -> None:
    for name, container in CONTAINERS.items():
        for source in mounts(container):
            if source.startswith("."):
                assert (DEPLOY / source).is_file(), (name, source)
            else:
                assert source in FILE["volumes"], (name, source)


def test_redis_persists_and_evicts_nothing() -> None:
    words = CONTAINERS["redis"]["command"]
    options = dict(zip(words[1::2], words[2::2], strict=True))
    assert options["--appendonly"] == "yes"
    assert options["--maxmemory-policy"] == "noeviction"
    assert mounts(CONTAINERS["redis"]) == ["redis"]
    assert CONTAINERS["redis"]["networks"] == ["inside"]
    assert FILE["networks"]["inside"] == {"internal": True}


def test_ports_are_published_on_this_machine_only() -> None:
    published = [port for c in CONTAINERS.values() for port in c.get("ports", ())]
    assert published
    assert [port for port in published if not port.startswith("127.0.0.1:")] == []


def test_the_proxy_listens_on_its_published_ports() -> None:
    addresses = re.findall(r"\{\$\w+_ADDRESS::(\d+)\}", CADDYFILE)
    assert sorted(addresses) == sorted(port.rsplit(":", 1)[1] for port in CONTAINERS["proxy"]["ports"])


@pytest.mark.parametrize(("variable", "service"), [("EDGES", "socket-edge"), ("GATEWAYS", "gateway")])
def test_the_proxy_knows_every_replica(variable: str, service: str) -> None:
    [defaults] = re.findall(rf"\{{\${variable}:([^}}]*)\}}", CADDYFILE)
    there = {f"{name}:{PORTS[service]}" for name, runs in RUNS.items() if runs == service}
    assert set(defaults.split()) == there


def test_only_the_proxys_network_is_trusted() -> None:
    [subnet] = [block["subnet"] for block in FILE["networks"]["outside"]["ipam"]["config"]]
    for name in OURS:
        assert [str(n) for n in load_settings(settings_of(name)).trusted_proxies] == [subnet]


@ours
def test_metrics_are_on_no_public_port(name: str) -> None:
    """The proxy leads to the services' ports, and only the proxy's are published."""
    port = metrics_port_of(name)
    assert port not in PORTS.values()
    assert f":{port}" not in CADDYFILE
    assert "ports" not in OURS[name]


def test_prometheus_scrapes_every_process_on_its_metrics_port() -> None:
    scraped = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yaml").read_text())
    jobs = {job["job_name"]: job["static_configs"][0]["targets"] for job in scraped["scrape_configs"]}
    assert {name.removeprefix("notify-") for name in jobs} == set(SERVICES)
    assert [job["static_configs"][0]["labels"] for job in scraped["scrape_configs"]] == [COMPOSE] * 4
    for service in SERVICES:
        there = {f"{name}:{metrics_port_of(name)}" for name, runs in RUNS.items() if runs == service}
        assert set(jobs[f"notify-{service}"]) == there
    targets = [volume.split(":")[1] for volume in CONTAINERS["prometheus"]["volumes"]]
    assert set(scraped["rule_files"]) <= set(targets)
    assert f"--config.file={targets[0]}" in CONTAINERS["prometheus"]["command"]


def test_rules_select_by_the_labels_of_the_targets() -> None:
    text = (DEPLOY / "prometheus" / "alerts.yaml").read_text()
    rules = [rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]
    assert len(rules) > 50
    for rule in rules:
        for selector in selectors(rule["expr"]):
            matched = {m.name: m.value for m in selector.matchers.matchers}
            assert COMPOSE.items() <= matched.items()


@ours
def test_traces_go_to_the_collectors_port(name: str) -> None:
    collector = yaml.safe_load((DEPLOY / "collector" / "collector.yaml").read_text())
    url = urlsplit(settings_of(name)["NOTIFY_OTLP_URL"])
    endpoint = collector["receivers"]["otlp"]["protocols"]["http"]["endpoint"]
    assert url.hostname == "collector"
    assert endpoint == f"0.0.0.0:{url.port}"
    pipeline = collector["service"]["pipelines"]["traces"]
    assert set(pipeline["receivers"]) <= set(collector["receivers"])
    assert set(pipeline["processors"]) <= set(collector["processors"])
    assert set(pipeline["exporters"]) <= set(collector["exporters"])


def test_grafana_finds_prometheus_and_the_dashboard() -> None:
    [source] = yaml.safe_load((DEPLOY / "grafana" / "datasources.yaml").read_text())["datasources"]
    assert urlsplit(source["url"]).hostname in CONTAINERS
    [provider] = yaml.safe_load((DEPLOY / "grafana" / "dashboards.yaml").read_text())["providers"]
    home = CONTAINERS["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    targets = [volume.split(":")[1] for volume in CONTAINERS["grafana"]["volumes"]]
    assert home in targets
    assert home.startswith(provider["options"]["path"] + "/")


def test_images_have_a_version() -> None:
    others = [c["image"] for name, c in CONTAINERS.items() if name not in OURS]
    assert [image for image in others if not re.search(r":v?\d+\.\d+", image)] == []
