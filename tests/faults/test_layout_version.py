"""Processes refuse a Redis that holds data of another release's layout, before they serve anything."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
from redis import Redis

from shared.store import keyspace
from tests.conftest import Start
from tests.harness.all_in_one import all_in_one
from tests.harness.api import Api
from tests.harness.cluster import Cluster
from tests.harness.processes import free_port, run_command
from tests.harness.sentinel import Guarded
from tests.harness.stack import RedisLike
from tests.harness.valkey import Valkey
from tests.harness.waiting import wait_until

NEWER = keyspace.LAYOUT_VERSION + 1
COMMANDS = [
    ["gateway"],
    ["socket-edge"],
    ["webhook-dispatcher"],
    ["expiry-reaper"],
    ["all"],
    ["accounts", "create", "--name", "x"],
]


def assert_refused(text: str) -> None:
    [line] = [line for line in text.strip().splitlines() if line.startswith("stopped: ")]
    assert f"'{NEWER}'" in line
    assert f"'{keyspace.LAYOUT_VERSION}'" in line
    assert "Traceback" not in text


@pytest.fixture(params=[Valkey, Cluster, Guarded], ids=["server", "cluster", "sentinel"])
def redis(request: pytest.FixtureRequest) -> Iterator[Valkey | Cluster | Guarded]:
    """A Redis with data of a newer layout."""
    make: RedisLike = request.param
    folder = Path(tempfile.mkdtemp(prefix="notify-"))
    redis = make(folder)
    try:
        redis.start()
        redis.wait_ready()
        with redis.client() as direct:
            direct.set(keyspace.LAYOUT, NEWER)
        yield redis
    finally:
        redis.close()
        shutil.rmtree(folder, ignore_errors=True)


def test_every_command_refuses_a_newer_layout(redis: Valkey | Cluster | Guarded) -> None:
    for command in COMMANDS if isinstance(redis, Valkey) else COMMANDS[:1]:
        ports = {name: free_port() for name in ("PORT", "EDGE_PORT", "DISPATCHER_PORT", "REAPER_PORT")}
        done = run_command(*command, settings={**redis.settings, **ports, "ADMIN_TOKEN": "t" * 16})

        assert done.returncode == 2, command
        assert_refused(done.stderr)
    with redis.client() as direct:
        assert direct.get(keyspace.LAYOUT) == str(NEWER).encode()
        names = list(direct.scan_iter())
    assert names == [keyspace.LAYOUT.encode()], "nothing else was written"


async def test_all_refuses_the_data_of_a_newer_release() -> None:
    with all_in_one() as service:
        service.start()
        service.wait_ready()
        url = (service.data_dir / "valkey.url").read_text().strip()
        with Redis.from_url(url) as direct:
            assert direct.get(keyspace.LAYOUT) == str(keyspace.LAYOUT_VERSION).encode()
            direct.set(keyspace.LAYOUT, NEWER)
        service.terminate()
        await wait_until(lambda: service.ended, within_s=15)

        service.start()
        await wait_until(lambda: service.ended, within_s=30)

        assert service.exit_code == 2
        assert_refused(service.stderr)
        assert service.valkeys == []


async def test_processes_that_start_together_write_the_version(start: Start) -> None:
    stack = start(gateways=2, edges=2)

    with stack.valkey.client() as direct:
        assert direct.get(keyspace.LAYOUT) == str(keyspace.LAYOUT_VERSION).encode()


async def test_running_processes_go_on_beside_one_that_refuses(
    start: Start, http: aiohttp.ClientSession
) -> None:
    stack = start(edges=0)
    with stack.valkey.client() as direct:
        direct.set(keyspace.LAYOUT, NEWER)

    late = stack.new_gateway("late")
    late.start()
    await wait_until(lambda: late.ended, within_s=30)

    assert_refused(late.stderr)
    await Api(http, stack.gateways[0].url, stack.admin_token).api_key()
    late.close()


class TestRedisIsAwayAtStart:
    """A process is live, unready, and responds with 503 until it knows the layout."""

    async def test_the_layout_is_checked_when_redis_is_back(
        self, start: Start, http: aiohttp.ClientSession
    ) -> None:
        # With everysec the kill may lose the write.
        stack = start(edges=0, appendfsync="always")
        with stack.valkey.client() as direct:
            direct.set(keyspace.LAYOUT, NEWER)
        stack.valkey.kill()
        early = [
            stack.new_gateway("gateway-early"),
            stack.new_edge("edge-early"),
            stack.new_dispatcher("dispatcher-early"),
        ]
        try:
            for service in early:
                service.start()
            for service in early:
                await wait_until(lambda: service.get("/livez") == 200, within_s=60)  # noqa: B023
                assert service.get("/readyz") == 503
            api = Api(http, early[0].url, stack.admin_token)
            refused = await api.call("POST", "/v1/events", token="ak_x", json={})
            assert (refused.status, refused.json["type"]) == (503, "service_unavailable")
            with pytest.raises(aiohttp.WSServerHandshakeError) as handshake:
                await http.ws_connect(f"{early[1].url}/v2/notification/websocket-connect")
            assert handshake.value.status == 503

            stack.valkey.start()
            await wait_until(lambda: stack.valkey.answers, within_s=60)

            for service in early:
                await wait_until(lambda: service.ended, within_s=30, what=service.name)  # noqa: B023
                assert service.exit_code == 2
                assert_refused(service.stderr)
        finally:
            for service in early:
                service.close()

    async def test_a_process_that_waits_stops_on_a_signal(self, start: Start) -> None:
        stack = start(edges=0)
        stack.valkey.kill()
        edge = stack.new_edge("edge-early")
        try:
            edge.start()
            await wait_until(lambda: edge.get("/livez") == 200, within_s=60)

            edge.terminate()

            await wait_until(lambda: edge.ended, within_s=10)
            assert edge.exit_code == 0
            assert "Traceback" not in edge.stderr
        finally:
            edge.close()
