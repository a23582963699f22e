"""Settings: read from the environment, listed by `settings`, checked at start."""

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
    "BATCH_LIMIT": "384",
    "FRAME_LIMIT_BYTES": "49152",
    "IN_FLIGHT_LIMIT": "1000",
    "IN_FLIGHT_BYTES": "1048576",
    "PELION_CLOSE_CODES": "2019",
    "ALLOWED_ORIGINS": "*",
}
WITHOUT_A_FIXED_DEFAULT = ("REDIS_URL", "ADMIN_TOKEN", "REPLICA", "LOG_FORMAT")


def test_settings_lists_defaults_and_meanings() -> None:
    done = run_command("settings")

    assert done.returncode == 0, done.stderr
    for name in (*DEFAULTS, *WITHOUT_A_FIXED_DEFAULT):
        lines = [line for line in done.stdout.splitlines() if line.startswith(f"NOTIFY_{name} ")]
        assert len(lines) == 1, f"{name}: {lines}"
        columns = lines[0].split()
        assert len(columns) >= 4, f"no description: {lines[0]}"
        if name in DEFAULTS:
            assert DEFAULTS[name] in columns, lines[0]


@pytest.mark.parametrize(
    ("command", "name", "value"),
    [
        ("gateway", "PORT", "eighty"),
        ("gateway", "ADMIN_TOKEN", "short"),
        ("socket-edge", "HEARTBEAT_TTL_S", "5"),
    ],
)
def test_an_invalid_value_refuses_the_start_in_one_line_that_names_it(
    stack: Stack, command: str, name: str, value: str
) -> None:
    settings = {"REDIS_URL": stack.redis.url, "ADMIN_TOKEN": "t" * 16, name: value}
    _assert_refused(f"NOTIFY_{name}", command, **settings)


@pytest.mark.parametrize(
    ("command", "missing"),
    [("gateway", "REDIS_URL"), ("socket-edge", "REDIS_URL"), ("gateway", "ADMIN_TOKEN")],
)
def test_a_missing_required_setting_refuses_the_start(stack: Stack, command: str, missing: str) -> None:
    settings = {"REDIS_URL": stack.redis.url, "ADMIN_TOKEN": "t" * 16}
    del settings[missing]
    _assert_refused(f"NOTIFY_{missing}", command, **settings)


@pytest.mark.parametrize("command", ["all", "webhook-dispatcher", "expiry-reaper"])
def test_a_cluster_needs_a_separate_redis_for_jobs(command: str) -> None:
    """Services without jobs start without it."""
    cluster = {"REDIS_URL": "redis+cluster://127.0.0.1:1", "ADMIN_TOKEN": "t" * 16}

    _assert_refused("NOTIFY_JOBS_REDIS_URL", command, **cluster)


def test_an_unknown_command_lists_the_known_ones() -> None:
    done = run_command("gatevay")

    assert done.returncode != 0
    assert "gateway" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_setting_is_a_warning(stack: Stack) -> None:
    with stack.more_edges("edge-warned", PING_INTERVALL_S=3) as [edge]:
        warnings = [line for line in edge.stderr.splitlines() if "NOTIFY_PING_INTERVALL_S" in line]
        assert len(warnings) == 1
        assert edge.get("/readyz") == 200


async def test_logs_can_be_json_lines(api: Api, channel: ApiKey, stack: Stack, listen: Listen) -> None:
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
