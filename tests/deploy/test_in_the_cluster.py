"""What the chart runs besides our services works: `helm test` and the small Redis."""

import asyncio
import base64
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis as redis_client

from tests.deploy.chart import named
from tests.deploy.files import SETTINGS
from tests.harness.processes import Process, environment, free_port
from tests.harness.stack import Stack
from tests.harness.valkey import server_binary
from tests.harness.waiting import block_until

TEST_POD = named("default", "Pod")
[CONTAINER] = TEST_POD["spec"]["containers"]


async def run_test_pod(tmp_path: Path, *urls: str, admin_token: str) -> tuple[int | None, str]:
    """Runs the command of the test pod with the chart's script: its exit code and output."""
    script = named("default", "ConfigMap", "-test")["data"]["publish_and_receive.py"]
    (tmp_path / "publish_and_receive.py").write_text(script)
    assert CONTAINER["command"] == ["python", "/test/publish_and_receive.py"]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(tmp_path / "publish_and_receive.py"),
        *urls,
        env=environment(ADMIN_TOKEN=admin_token),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    return process.returncode, said.decode()


async def test_helm_test_publishes_and_receives(tmp_path: Path, stack: Stack) -> None:
    code, said = await run_test_pod(
        tmp_path, stack.gateways[0].url, stack.edges[0].url, admin_token=stack.admin_token
    )
    assert "received the published event" in said, said
    assert code == 0
    assert "/v1/api-keys/" in said.splitlines()[-1], "the API key is deleted at the end"


async def test_helm_test_fails_without_the_admin_token(tmp_path: Path, stack: Stack) -> None:
    code, said = await run_test_pod(
        tmp_path, stack.gateways[0].url, stack.edges[0].url, admin_token="not the token"
    )
    assert code == 1
    assert "returned 401" in said


def test_helm_test_calls_existing_services() -> None:
    hosts = [
        "http://demo-notification-gateway-gateway:8000",
        "http://demo-notification-gateway-socket-edge:8001",
    ]
    assert CONTAINER["args"] == hosts
    for host in hosts:
        name, port = host.removeprefix("http://").split(":")
        service = named("default", "Service", name)
        assert int(port) in [p["port"] for p in service["spec"]["ports"] if p["name"] == "http"]
    assert {entry["name"] for entry in CONTAINER["env"]} <= SETTINGS
    assert TEST_POD["metadata"]["annotations"]["helm.sh/hook"] == "test"


def test_the_log_of_helm_test_can_be_read_after_success() -> None:
    """`helm test --logs` reads it when all hooks have ended; `hook-succeeded` deletes the pod before."""
    policy = TEST_POD["metadata"]["annotations"]["helm.sh/hook-delete-policy"]
    assert policy == "before-hook-creation"
    # What the pod needs is part of the release, so that the uninstall removes it.
    for kind in ("ConfigMap", "NetworkPolicy"):
        assert "annotations" not in named("default", kind, "-test")["metadata"]


@pytest.fixture
def own_redis() -> Iterator[Any]:
    """A Valkey with the configuration of the chart's own Redis, in temporary folders."""
    folder = Path(tempfile.mkdtemp(prefix="notify-own-"))
    port = free_port()
    mounts = {"/data": folder / "data", "/etc/valkey-auth": folder / "auth"}
    for path in mounts.values():
        path.mkdir()
    secret = named("default", "Secret")["data"]
    (folder / "auth" / "auth.conf").write_bytes(base64.b64decode(secret["auth.conf"]))
    conf = named("default", "ConfigMap", "-redis")["data"]["valkey.conf"]
    for mounted, path in mounts.items():
        conf = conf.replace(mounted, str(path))
    (folder / "valkey.conf").write_text(f"{conf}\nbind 127.0.0.1\nport {port}\n")
    url = base64.b64decode(secret["redis-url"]).decode()
    there = url.replace("demo-notification-gateway-redis:6379", f"127.0.0.1:{port}")
    assert there != url
    process = Process("own", [server_binary(), str(folder / "valkey.conf")], folder=folder, env=environment())
    client = redis_client.Redis.from_url(there, decode_responses=True)
    try:
        process.start()
        block_until(lambda: _answers(client), what=lambda: process.tail)
        yield client
    finally:
        client.close()
        process.close()
        shutil.rmtree(folder, ignore_errors=True)


def _answers(client: Any) -> bool:
    try:
        return bool(client.ping())
    except redis_client.ConnectionError:
        return False


def test_the_charts_own_redis_persists_and_evicts_nothing(own_redis: Any) -> None:
    """Connects by the URL that the services get, with its password."""
    wanted = {"appendonly": "yes", "appendfsync": "everysec", "maxmemory-policy": "noeviction"}
    found = {name: own_redis.config_get(name)[name] for name in wanted}
    assert found == wanted
    assert own_redis.config_get("maxmemory")["maxmemory"] == str(512 * 1024 * 1024)


def test_the_charts_own_redis_requires_its_password(own_redis: Any) -> None:
    port = own_redis.connection_pool.connection_kwargs["port"]
    stranger = redis_client.Redis(port=port)
    with pytest.raises(redis_client.AuthenticationError):
        stranger.ping()
    stranger.close()


def test_the_charts_own_redis_keeps_its_volume() -> None:
    spec = named("own-redis", "StatefulSet")["spec"]
    [claim] = spec["volumeClaimTemplates"]
    assert claim["spec"]["storageClassName"] == "fast"
    assert spec["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}
    [container] = spec["template"]["spec"]["containers"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts[claim["metadata"]["name"]] == "/data"
    assert named("own-redis", "Secret")["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
