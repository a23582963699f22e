"""Settings come from the environment: listed with default and meaning, checked at the start."""

import json

import pytest

from tests.conftest import Listen
from tests.harness.api import Api, ApiKey
from tests.harness.processes import free_port, run_command
from tests.harness.stack import Stack
from tests.harness.waiting import wait_until

DEFAULTS = {
    "DATA_DIR": ".data",
    "HOST": "127.0.0.1",
    "PORT": "8000",
    "EDGE_PORT": "8001",
    "PING_INTERVAL_S": "20",
    "PING_TIMEOUT_S": "20",
    "HEARTBEAT_S": "5",
    "HEARTBEAT_TTL_S": "15",
    "REDIS_OUTAGE_LIMIT_S": "120",
    "BATCH_LIMIT": "10000",
    "FRAME_LIMIT_BYTES": "49152",
    "IN_FLIGHT_LIMIT": "1000",
    "IN_FLIGHT_BYTES": "1048576",
    "PELION_CLOSE_CODES": "2019",
    "CORS_ORIGINS": "*",
}
WITHOUT_A_FIXED_DEFAULT = ("REDIS_URL", "ADMIN_TOKEN", "REPLICA", "LOG_FORMAT")


def test_each_is_listed_with_its_default_and_meaning() -> None:
    done = run_command("settings")

    assert done.returncode == 0, done.stderr
    for name in (*DEFAULTS, *WITHOUT_A_FIXED_DEFAULT):
        lines = [line for line in done.stdout.splitlines() if line.startswith(f"NOTIFY_{name} ")]
        assert len(lines) == 1, f"{name}: {lines}"
        words = lines[0].split()
        assert len(words) >= 4, f"no meaning: {lines[0]}"
        if name in DEFAULTS:
            assert DEFAULTS[name] in words, lines[0]


@pytest.mark.parametrize(
    ("command", "name", "value"),
    [
        ("gateway", "PORT", "eighty"),
        ("gateway", "PORT", "70000"),
        ("gateway", "REDIS_URL", "http://nowhere"),
        ("gateway", "LOG_FORMAT", "morse"),
        ("gateway", "ADMIN_TOKEN", "short"),
        ("gateway", "CORS_ORIGINS", "app.example"),
        ("socket-edge", "EDGE_PORT", "-1"),
        ("socket-edge", "PING_INTERVAL_S", "-1"),
        ("socket-edge", "HEARTBEAT_TTL_S", "5"),
        ("socket-edge", "PELION_CLOSE_CODES", "2018"),
        ("socket-edge", "FRAME_LIMIT_BYTES", "0"),
    ],
)
def test_a_wrong_value_stops_the_start_with_one_line_that_names_it(
    stack: Stack, command: str, name: str, value: str
) -> None:
    settings = {"REDIS_URL": stack.redis.url, "ADMIN_TOKEN": "t" * 16, name: value}
    _assert_refused(f"NOTIFY_{name}", command, **settings)


@pytest.mark.parametrize(
    ("command", "missing"),
    [("gateway", "REDIS_URL"), ("socket-edge", "REDIS_URL"), ("gateway", "ADMIN_TOKEN")],
)
def test_what_a_service_cannot_do_without(stack: Stack, command: str, missing: str) -> None:
    settings = {"REDIS_URL": stack.redis.url, "ADMIN_TOKEN": "t" * 16}
    del settings[missing]
    _assert_refused(f"NOTIFY_{missing}", command, **settings)


@pytest.mark.parametrize("command", ["all", "webhook-dispatcher", "expiry-reaper"])
def test_jobs_do_not_go_into_a_cluster(command: str) -> None:
    """Said at the start, and why; who has no jobs starts."""
    cluster = {"REDIS_URL": "redis+cluster://127.0.0.1:1", "ADMIN_TOKEN": "t" * 16}

    _assert_refused("NOTIFY_JOBS_REDIS_URL", command, **cluster)


def test_an_unknown_command_is_explained() -> None:
    done = run_command("gatevay")

    assert done.returncode != 0
    assert "gateway" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_name_warns_and_starts(stack: Stack) -> None:
    with stack.more_edges("edge-warned", PING_INTERVALL_S=3) as [edge]:
        warnings = [line for line in edge.stderr.splitlines() if "NOTIFY_PING_INTERVALL_S" in line]
        assert len(warnings) == 1
        assert edge.get("/readyz") == 200


async def test_logs_can_be_one_object_a_line(api: Api, channel: ApiKey, stack: Stack, listen: Listen) -> None:
    with stack.more_edges("edge-json", LOG_FORMAT="json") as [edge]:
        receiver = await listen(channel, edge.url)
        await receiver.close()
        await api.until(channel, status="disconnected")
        await wait_until(lambda: "socket.closed" in edge.stderr)
        lines = [json.loads(line) for line in edge.stderr.splitlines()]
        assert any(channel.id in line.values() for line in lines)


def _assert_refused(names: str, command: str, **settings: object) -> None:
    port = {"PORT": free_port(), "EDGE_PORT": free_port()}
    done = run_command(command, settings=port | settings)
    assert done.returncode not in (0, None)
    lines = (done.stdout + done.stderr).strip().splitlines()
    assert len(lines) == 1, lines
    assert names in lines[0]
