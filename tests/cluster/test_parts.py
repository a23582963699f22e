"""The parts of the cluster's tests that need no cluster."""

import json
import struct
import urllib.error
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster import debian, faults, front, monitoring, names, programs, requirements, volumes
from tests.cluster.bounds import CRASH, PRIMARY_AWAY, REDIS_AWAY, ROLLOUT, Bounds, Outcome, judge, table
from tests.cluster.daemons import options
from tests.cluster.release import SMALL
from tests.cluster.requirements import Missing
from tests.cluster.stories import STORIES
from tests.deploy.chart import named
from tests.deploy.files import CHART
from tests.deploy.rules import SOURCES

GOOD = {
    "count": {"published": 500, "lost": 0, "duplicated": 0, "out_of_order": 0, "unknown": 0},
    "figures": {
        "gap_max_ms": 40.0,
        "reconnects_per_socket": 1.04,
        "repeated_more_than_once": 0,
        "away_at_the_end": 0,
        "session_published": 80,
        "session_received": 78,
        "session_lost": 0,
        "session_missed": 2,
        "session_reconnects_per_socket": 1.1,
        "session_gap_max_ms": 20.0,
        "session_away_at_the_end": 0,
    },
    "warnings": ["5 sockets were closed with 1001"],
}


def line(**changes: float) -> dict[str, Any]:
    """GOOD with other counts and figures."""
    made = json.loads(json.dumps(GOOD))
    for name, value in changes.items():
        made["count" if name in made["count"] else "figures"][name] = value
    return dict(made)


def problems(bounds: Bounds, **changes: float) -> list[str]:
    outcome = Outcome("story")
    judge(outcome, line(**changes), bounds)
    return outcome.problems


@pytest.mark.parametrize("bounds", [ROLLOUT, CRASH])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("published", 0),
        ("lost", 1),
        ("out_of_order", 1),
        ("unknown", 1),
        ("away_at_the_end", 1),
        ("reconnects_per_socket", 1.26),
        ("gap_max_ms", 15_001),
        ("session_gap_max_ms", 15_001),
        ("session_reconnects_per_socket", 1.26),
        ("session_away_at_the_end", 1),
    ],
)
def test_what_no_story_allows_is_a_problem(bounds: Bounds, name: str, value: float) -> None:
    assert problems(bounds) == []
    assert len(problems(bounds, **{name: value})) == 1


@pytest.mark.parametrize(
    ("name", "value"), [("gap_max_ms", 1001), ("repeated_more_than_once", 1), ("session_lost", 1)]
)
def test_a_rollout_costs_less_than_a_crash(name: str, value: float) -> None:
    assert len(problems(ROLLOUT, **{name: value})) == 1
    assert problems(CRASH, **{name: value}) == []


def test_the_table_shows_figures_problems_and_notes() -> None:
    fine, bad = Outcome("upgrade", 75.4), Outcome("install", 20.0, problems=["no pod is ready"])
    judge(fine, line(), ROLLOUT)
    shown = table([fine, bad]).splitlines()
    assert shown[1].split() == ["upgrade", "500", "0", "0", "0.04", "s", "1.04", "0", "75"]
    assert shown[2].split() == ["✗", "install", "20"]
    assert shown[3:] == [
        "  ✗ install: no pod is ready",
        "  ! upgrade: sessions got 78 of 80, lost 0 while open, missed 2 while away; 1.1 reconnects each, "
        "longest gap 0.02 s",
        "  ! upgrade: 5 sockets were closed with 1001",
    ]


def test_a_redis_that_is_away_closes_no_socket() -> None:
    for bounds in (REDIS_AWAY, PRIMARY_AWAY):
        assert problems(bounds, reconnects_per_socket=0, session_reconnects_per_socket=0) == []
        assert len(problems(bounds, reconnects_per_socket=0.01, session_reconnects_per_socket=0)) == 1


def test_stories_are_in_an_order_in_which_they_can_run() -> None:
    assert next(iter(STORIES)) == "install"
    assert [*STORIES][-1] == "uninstall"


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("sources.list", "deb http://one.test/debian bookworm main\n", "http://one.test/debian"),
        ("sources.list", "# deb http://no.test/debian\ndeb [signed-by=/k] http://two.test/debian b main\n", "http://two.test/debian"),
        ("sources.list.d/a.sources", "Types: deb\nURIs: http://three.test/debian\n", "http://three.test/debian"),
        (
            "sources.list.d/b.sources",
            "URIs: http://x.test/debian-security\nURIs: http://four.test/debian\n",
            "http://four.test/debian",
        ),
    ],
)  # fmt: skip
def test_the_mirror_is_the_machines_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str, found: str
) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(text)
    monkeypatch.setattr(debian, "_LISTS", tmp_path)
    assert debian.mirror() == found


def test_a_machine_without_a_mirror_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list.d" / "off.sources.disabled").write_text("URIs: http://off.test/debian\n")
    monkeypatch.setattr(debian, "_LISTS", tmp_path)
    with pytest.raises(Missing, match="no mirror of Debian"):
        debian.mirror()


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirements, "SEARCH", str(tmp_path))
    monkeypatch.setattr(requirements, "PLUGINS", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    for program in requirements.PACKAGES:
        if program != "podman":
            (tmp_path / program).write_text("")
            (tmp_path / program).chmod(0o755)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    with pytest.raises(Missing) as error:
        requirements.check(go=False)
    assert str(error.value) == "packages are missing: apt-get install containernetworking-plugins podman"


def test_without_root_no_cluster_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(Missing, match="needs root"):
        requirements.check(go=False)


def test_the_version_is_that_of_the_go_module() -> None:
    assert programs.version().startswith("v1.")


def test_options_are_written_as_kubernetes_reads_them() -> None:
    assert options(data_dir="x", port=1) == ["--data-dir=x", "--port=1"]


def test_the_small_values_are_values_of_the_chart() -> None:
    """A misspelt one would leave the default, and a roll-out's pods would find no room."""
    chart = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())
    chart["settings"] = schema["properties"]["settings"]["properties"]

    def unknown(values: dict[str, Any], known: dict[str, Any], path: str = "") -> list[str]:
        found = []
        for name, value in values.items():
            if name not in known:
                found.append(path + name)
            elif isinstance(value, dict) and known[name]:
                found += unknown(value, known[name], f"{path}{name}.")
        return found

    assert unknown(yaml.safe_load(SMALL.read_text()), chart) == []


def test_each_fault_is_that_of_an_alert_of_the_chart() -> None:
    names = [name for group in faults.FAULTS for name in group]
    assert len(names) == len(set(names))
    assert set(names) < {alert["alert"] for alert in SOURCES}


def test_pods_are_found_as_the_operator_finds_them() -> None:
    scrape = monitoring.scrape_of(named("everything", "PodMonitor"))
    kept = {
        rule["source_labels"][0].removeprefix("__meta_kubernetes_pod_"): rule["regex"]
        for rule in scrape["relabel_configs"]
        if rule.get("action") == "keep"
    }
    component = kept.pop("label_app_kubernetes_io_component")
    assert component == "(expiry-reaper|gateway|socket-edge|webhook-dispatcher)"
    assert kept == {
        "label_app_kubernetes_io_name": "(notification-gateway)",
        "label_app_kubernetes_io_instance": "(demo)",
        "container_port_name": "metrics",
    }
    assert scrape["kubernetes_sd_configs"][0]["namespaces"] == {"names": ["prod"]}


@pytest.mark.parametrize("kind", front.KINDS)
def test_every_proxy_sends_what_is_held_to_the_edges(kind: str) -> None:
    text = front.configuration(kind, "/folder", edges="10.0.0.1:8001", gateways="10.0.0.2:8000")
    held = [line for line in text.splitlines() if "/v2/notification/websocket-connect" in line]
    assert held
    for path in front.HELD:
        assert path in text
    if kind != "caddy":
        assert "10.0.0.1:8001" in text
        assert "10.0.0.2:8000" in text


def test_the_steps_to_grow_a_volume_are_those_of_the_documentation() -> None:
    patch, watch, delete, upgrade = volumes.documented()
    assert "16Gi" in patch
    assert "-w" in watch
    assert "--cascade=orphan" in delete
    assert "--set redis.own.storage.size=16Gi" in upgrade


def query(name: str, kind: int = 1) -> bytes:
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    return struct.pack("!HHHHHH", 7, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", kind, 1)


SLICES = {
    "items": [
        {
            "endpoints": [
                {"addresses": ["10.0.0.1"], "conditions": {"ready": True}},
                {"addresses": ["10.0.0.2"], "conditions": {"ready": False}},
            ]
        }
    ]
}


def ask(path: str) -> Any:
    if path.endswith("/services/plain"):
        return {"spec": {"clusterIP": "10.1.2.3"}}
    if path.endswith("/services/headless"):
        return {"spec": {"clusterIP": "None"}}
    if "endpointslices" in path:
        return SLICES
    if path.endswith("/services/broken"):
        raise OSError("the API server is away")
    raise urllib.error.HTTPError(path, 404, "no such Service", Message(), None)


@pytest.mark.parametrize(
    ("name", "kind", "code", "addresses"),
    [
        ("plain.space.svc.cluster.local", 1, 0, ["10.1.2.3"]),
        ("PLAIN.space.svc.cluster.local", 1, 0, ["10.1.2.3"]),
        ("headless.space.svc.cluster.local", 1, 0, ["10.0.0.1"]),
        # IPv6 is asked for too: the name exists and has no such address.
        ("plain.space.svc.cluster.local", 28, 0, []),
        ("other.space.svc.cluster.local", 1, 3, []),
        ("example.com", 1, 3, []),
        ("broken.space.svc.cluster.local", 1, 2, []),
    ],
)
def test_names_are_those_of_services(
    monkeypatch: pytest.MonkeyPatch, name: str, kind: int, code: int, addresses: list[str]
) -> None:
    monkeypatch.setattr(names, "_ask", ask)
    asked = query(name, kind)
    answer = names.response(asked)
    number, flags, questions, records = struct.unpack_from("!HHHH", answer)
    assert (number, flags & 0xF, questions, records) == (7, code, 1, len(addresses))
    assert answer[12 : len(asked)] == asked[12:]
    found = [".".join(map(str, answer[-4:]))] if records else []
    assert found == addresses
