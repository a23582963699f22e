"""Counting the commands that Redis executes."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.cluster import Cluster, running_cluster
from tests.harness.valkey import Valkey
from tests.load.redis_work import RedisWork, total, work_of

SCRIPT = "for n = 1, 3 do redis.call('INCR', KEYS[1]) end return redis.call('GET', KEYS[1])"


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    server = Valkey(Path(tmp_path_factory.mktemp("valkey")), tcp=True)
    try:
        server.start()
        server.wait_ready()
        yield server
    finally:
        server.close()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with running_cluster(primaries=2) as running:
        yield running


def test_commands_inside_a_script_count_and_the_script_counts_apart(valkey: Valkey) -> None:
    with valkey.client() as client:
        sha = client.script_load(SCRIPT)
        before = work_of(valkey)
        for _ in range(5):
            assert client.evalsha(sha, 1, "counter")
        client.set("other", 1)
    done = work_of(valkey).since(before)
    assert done.calls == {"incr": 15, "evalsha": 5, "get": 5, "set": 1}
    assert (done.commands, done.scripts) == (21, 5)
    assert next(iter(done.calls)) == "incr"


def test_the_harness_and_health_checks_do_not_count(valkey: Valkey) -> None:
    before = work_of(valkey)
    with valkey.client() as client:
        client.ping()
        client.config_get("maxmemory")
        client.client_list()
        client.info()
        work_of(valkey)
    assert work_of(valkey).since(before).calls == {}


def test_subcommands_count_by_their_full_name(valkey: Valkey) -> None:
    before = work_of(valkey)
    with valkey.client() as client:
        client.xgroup_create("stream", "group", mkstream=True)
    assert work_of(valkey).since(before).calls == {"xgroup|create": 1}


def test_all_primaries_of_a_cluster_count(cluster: Cluster) -> None:
    before = work_of(cluster)
    by_primary = {cluster.primary_of(key).name: key for key in ("a", "b", "c", "d")}
    assert len(by_primary) == 2
    with cluster.client() as client:
        for key in by_primary.values():
            client.set(key, 1)
    assert work_of(cluster).since(before).calls == {"set": 2}


def test_figures_are_per_delivered_notification() -> None:
    work = total([RedisWork({"evalsha": 10, "xadd": 20}, 5), RedisWork({"xadd": 10, "del": 3}, 5)])
    assert work == RedisWork({"evalsha": 10, "xadd": 30, "del": 3}, 10)
    assert work.figures(10) == {
        "redis_commands_per_notification": 3.3,
        "redis_scripts_per_notification": 1.0,
        "redis_reads_per_notification": 1.0,
    }
    assert work.figures(0) == {}
