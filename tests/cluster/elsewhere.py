"""Installations beside the stories' own one, each in a namespace of its own, that stories happen to."""

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import certificates, images
from tests.cluster.places import CHART, NODE_IP, scratch
from tests.cluster.redis_cluster import Servers, ports, servers, urls
from tests.cluster.release import SMALL, Release

_CA_SECRET, _CA = "redis-ca", "/etc/notify/redis-ca/ca.crt"
_DOWN_S = 5


@dataclass(slots=True)
class OnRedisCluster(Release):
    """A release with its Redis Cluster."""

    redis: Servers | None = None


@contextlib.contextmanager
def on_redis_cluster(release: Release) -> Iterator[Release]:
    with servers(release.cluster) as redis, scratch("values") as folder:
        url, jobs = urls(_CA)
        values = Path(folder, "values.json")
        values.touch(mode=0o600)
        own = {"own": {"enabled": False}, "url": url, "jobs": {"url": jobs}, "caSecret": _CA_SECRET}
        values.write_text(json.dumps({"redis": own, "networkPolicy": {"redis": {"ports": ports()}}}))
        chosen = (f"--values={SMALL}", f"--values={values}")
        other = OnRedisCluster(release.cluster, "notify-redis-cluster", chosen, redis=redis)
        with installed(other, volumes=0):
            yield other


def kill_a_primary(release: Release) -> list[str]:
    """A third of all channels is away for some seconds; the others must not notice."""
    assert isinstance(release, OnRedisCluster)
    assert release.redis is not None
    release.redis.kill(0)
    time.sleep(_DOWN_S)
    release.redis.start(0)
    release.redis.ask("wait")
    return []


@contextlib.contextmanager
def on_a_small_node(release: Release) -> Iterator[Release]:
    """As the chart's values-small.yaml has it, and nothing else but the way to the load's webhooks."""
    open_way = f"--set-string=settings.ALLOW_PRIVATE_CALLBACKS={NODE_IP}"
    other = Release(release.cluster, "notify-small", (f"--values={CHART}/values-small.yaml", open_way))
    with installed(other, volumes=1):
        yield other


def upgrade_a_small_one(release: Release) -> list[str]:
    release.upgrade(f"--set=image.tag={images.UPGRADE_TAG}")
    release.wait_rolled_out()
    return [f"requests of all pods: {_requested(release)}"]


def _requested(release: Release) -> str:
    """CPU in thousandths of a core."""
    containers = [each for pod in release.pods() for each in pod["spec"]["containers"]]
    cpus = [each["resources"].get("requests", {}).get("cpu", "0m") for each in containers]
    return f"{sum(int(cpu.removesuffix('m')) for cpu in cpus)}m"


@contextlib.contextmanager
def installed(
    release: Release, *, volumes: int, with_test: bool = True, storage_class: str = ""
) -> Iterator[None]:
    """Installed and tested; the namespace goes at the end."""
    release.prepare(volumes=volumes, storage_class=storage_class)
    try:
        release.cluster.apply(_authority(release.namespace))
        release.install()
        if with_test:
            release.test()
        yield
        release.uninstall()
    finally:
        release.remove()


def _authority(namespace: str) -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": _CA_SECRET, "namespace": namespace},
        "stringData": {"ca.crt": Path(certificates.pem("ca")).read_text()},
    }
