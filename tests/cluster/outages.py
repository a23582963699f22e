"""Redis that is away or hangs for half a minute, well below the outage after which edges close sockets."""

import time

from tests.cluster import crashes
from tests.cluster.release import FULL_NAME, Release

AWAY_S = 30
_REDIS = f"statefulset/{FULL_NAME}-redis"


def redis_away(release: Release) -> list[str]:
    release.kubectl("scale", _REDIS, "--replicas=0")
    release.wait("the end of Redis' pod", lambda: not release.pods("redis"))
    time.sleep(AWAY_S)
    release.kubectl("scale", _REDIS, "--replicas=1")
    release.wait_ready("redis", count=1)
    return []


def redis_hangs(release: Release) -> list[str]:
    """It keeps its connections and its address, and answers no request."""
    with crashes.paused(release, "redis"):
        time.sleep(AWAY_S)
    release.wait_ready("redis")
    return []
