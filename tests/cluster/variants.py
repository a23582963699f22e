"""Installations other than the usual one: on an external Redis, and with autoscalers."""

from tests.cluster import metrics_api
from tests.cluster.places import NODE_IP, scratch
from tests.cluster.release import FULL_NAME, SMALL, Release
from tests.harness.valkey import server_binary

_PASSWORD = "external"
_MOST = 3
_ONE_EACH = "gateway.replicas=1,socketEdge.replicas=1,webhookDispatcher.replicas=1"


def external_redis(release: Release) -> list[str]:
    """A second installation, in a namespace of its own, on a Redis that is not the cluster's."""
    url = f"redis://:{_PASSWORD}@{NODE_IP}:6379/0"
    values = (f"--values={SMALL}", f"--set=redis.own.enabled=false,redis.url={url},{_ONE_EACH}")
    other = Release(release.cluster, "notify-external", values)
    with scratch("redis") as folder:
        settings = {"bind": NODE_IP, "port": "6379", "requirepass": _PASSWORD, "dir": folder, "save": ""}
        options = [word for name, value in settings.items() for word in (f"--{name}", value)]
        redis = release.cluster.start(server_binary(), *options, log="external-redis")
        try:
            other.prepare(volumes=0)
            other.install()
            other.test()
            other.uninstall()
            claims = other.get("persistentvolumeclaims")["items"]
        finally:
            release.cluster.kubectl("delete", "namespace", other.namespace)
            redis.terminate()
            redis.wait(10)
    return [f"a claim is left: {claim['metadata']['name']}" for claim in claims]


def autoscaling(release: Release) -> list[str]:
    """Gateways follow their CPU; a low target makes the stories' load enough for one more."""
    metrics_api.register(release.cluster)
    scaler = f"gateway.autoscaling.maxReplicas={_MOST},gateway.autoscaling.cpuPercent=5"
    release.upgrade(f"--set=gateway.autoscaling.enabled=true,{scaler}")
    name = f"{FULL_NAME}-gateway"

    def scaled() -> bool:
        status = release.get("horizontalpodautoscaler", name)["status"]
        measured = [each for each in status.get("currentMetrics") or () if each["type"] == "Resource"]
        return bool(measured) and status["desiredReplicas"] == _MOST

    release.wait("an autoscaler that measures CPU and wants more gateways", scaled)
    release.wait_ready("gateway", count=_MOST)
    release.upgrade()
    release.wait_rolled_out()
    release.kubectl("scale", f"deployment/{name}", "--replicas=2")
    release.wait_ready("gateway", count=2)
    return []
