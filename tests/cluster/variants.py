"""Installations other than the usual one: on an external Redis, and with autoscalers."""

import contextlib
from collections.abc import Iterator

from tests.cluster import metrics_api
from tests.cluster.access import Failed
from tests.cluster.outside_redis import outside_redis
from tests.cluster.places import LOGS
from tests.cluster.release import FULL_NAME, SMALL, Release

_GATEWAYS = f"{FULL_NAME}-gateway"
_ONE_EACH = "gateway.replicas=1,socketEdge.replicas=1,webhookDispatcher.replicas=1"


def external_redis(release: Release) -> list[str]:
    """A second installation, in a namespace of its own, on a Redis that is not the cluster's."""
    with outside_redis(release.cluster) as url:
        values = (f"--values={SMALL}", f"--set=redis.own.enabled=false,redis.url={url},{_ONE_EACH}")
        other = Release(release.cluster, "notify-external", values)
        try:
            other.prepare(volumes=0)
            other.install()
            other.test()
            other.uninstall()
            claims = other.get("persistentvolumeclaims")["items"]
        finally:
            other.remove()
    return [f"a claim is left: {claim['metadata']['name']}" for claim in claims]


def autoscaling(release: Release) -> list[str]:
    """Autoscaling is turned on for 2 gateways, and for 4, and off again."""
    metrics_api.register(release.cluster)
    notes = []
    for count in (2, 4):
        release.kubectl("scale", f"deployment/{_GATEWAYS}", f"--replicas={count}")
        release.wait_ready("gateway", count=count)
        with _replicas_seen(release, f"replicas-{count}") as seen:
            _turn_on(release, most=count + 1)
        if min(seen) < count:
            raise Failed(f"when autoscaling was turned on, {count} gateways became {min(seen)}")
        notes.append(f"replicas as autoscaling was turned on: {' → '.join(map(str, seen))}")
        release.upgrade()
        release.wait_rolled_out()
    release.kubectl("scale", f"deployment/{_GATEWAYS}", "--replicas=2")
    release.wait_ready("gateway", count=2)
    return notes


def _turn_on(release: Release, *, most: int) -> None:
    """Gateways follow their CPU; a low target makes the stories' load enough for one more."""
    scaler = f"gateway.autoscaling.maxReplicas={most},gateway.autoscaling.cpuPercent=5"
    release.upgrade(f"--set=gateway.autoscaling.enabled=true,{scaler}")

    def scaled() -> bool:
        status = release.get("horizontalpodautoscaler", _GATEWAYS)["status"]
        measured = [each for each in status.get("currentMetrics") or () if each["type"] == "Resource"]
        return bool(measured) and status["desiredReplicas"] == most

    release.wait("an autoscaler that measures CPU and wants more gateways", scaled)
    release.wait_ready("gateway", count=most)


@contextlib.contextmanager
def _replicas_seen(release: Release, log: str) -> Iterator[list[int]]:
    """Every number of replicas that the Deployment has had during the block, complete at its end."""
    seen: list[int] = []
    where = f"--namespace={release.namespace}"
    form = '--output=jsonpath={.spec.replicas}{"\\n"}'
    watch = release.cluster.start("kubectl", "get", where, "deployment", _GATEWAYS, "--watch", form, log=log)
    path = LOGS / f"{log}.log"
    try:
        release.wait("the watch of the Deployment", lambda: bool(path.read_text().strip()))
        yield seen
    finally:
        watch.terminate()
        watch.wait(10)
        numbers = [int(word) for word in path.read_text().split() if word.isdecimal()]
        seen += [number for number, before in zip(numbers, [0, *numbers], strict=False) if number != before]
