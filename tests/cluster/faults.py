"""Alerts by their faults: each fires while its fault lasts, and ends with it."""

import contextlib
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from functools import partial

from tests.cluster import crashes
from tests.cluster.access import Failed
from tests.cluster.monitoring import Monitoring, monitored, soon
from tests.cluster.receivers import Webhooks, receiver
from tests.cluster.release import FULL_NAME, RELEASE, Release
from tests.cluster.rotation import ask_redis

Fault = Callable[[Release], AbstractContextManager[None]]

_HOOKS = 5
_MEMORY_SHARE = 0.5


@contextlib.contextmanager
def _none(release: Release, *, kind: str = "deployment", component: str) -> Iterator[None]:
    """No pod of a component."""
    what = f"{kind}/{FULL_NAME}-{component}"
    count = release.get(what)["spec"]["replicas"]
    release.kubectl("scale", what, "--replicas=0")
    release.wait(f"the end of {component}", lambda: not release.pods(component))
    try:
        yield
    finally:
        release.kubectl("scale", what, f"--replicas={count}")
        release.wait_ready(component, count=count)


@contextlib.contextmanager
def _little_memory(release: Release, *, times: float) -> Iterator[None]:
    """Redis may use so many times of what it uses."""
    before = ask_redis(release, "CONFIG", "GET", "maxmemory").split()[-1]
    used = re.search(r"^used_memory:(\d+)", ask_redis(release, "INFO", "memory"), flags=re.M)
    if used is None:
        raise Failed("Redis does not say how much memory it uses")
    ask_redis(release, "CONFIG", "SET", "maxmemory", str(int(int(used[1]) * times)))
    try:
        yield
    finally:
        ask_redis(release, "CONFIG", "SET", "maxmemory", before)


@contextlib.contextmanager
def _dead_receiver(release: Release) -> Iterator[None]:
    """Webhooks whose receiver has gone have notifications."""
    with receiver(release):
        hooks = Webhooks(release, count=_HOOKS)
    hooks.publish()
    yield
    with receiver(release):
        hooks.wait_delivered()
    hooks.end()


FAULTS: tuple[dict[str, Fault], ...] = (
    {
        "NotifyWebhooksFail": _dead_receiver,
        "NotifyNoEdge": partial(_none, component="socket-edge"),
        # The reaper is who asks Redis for it.
        "NotifyRedisMemoryHigh": partial(_little_memory, times=1.5),
    },
    {
        "NotifyNoReaper": partial(_none, component="expiry-reaper"),
        "NotifyNoDispatcher": partial(_none, component="webhook-dispatcher"),
        "NotifyNoGateway": partial(_none, component="gateway"),
    },
    # Heartbeats are refused.
    {"NotifyRedisFull": partial(_little_memory, times=0.9)},
    {"NotifyRedisDown": partial(_none, kind="statefulset", component="redis")},
    {"NotifyProcessDown": lambda release: crashes.paused(release, "expiry-reaper")},
)
"""Faults that can last at once, by the alert of each."""


def alerts(release: Release) -> list[str]:
    """A healthy installation has no alert; each fault has its own, until it ends."""
    notes = []
    names = [name for group in FAULTS for name in group if name != "NotifyRedisMemoryHigh"]
    with monitored(release, alerts=soon(*names, NotifyRedisMemoryHigh=_MEMORY_SHARE)) as monitoring:
        monitoring.wait_calm()
        for group in FAULTS:
            others = _fire(release, monitoring, group)
            if "NotifyRedisFull" in group and "NotifyRedisDown" in others:
                raise Failed("a Redis that is full is said to be down")
            beside = f"; beside them {', '.join(sorted(others))}" if others else ""
            notes.append(f"fired and resolved: {', '.join(group)}{beside}")
    return notes


def _fire(release: Release, monitoring: Monitoring, group: dict[str, Fault]) -> set[str]:
    with ExitStack() as stack:
        for fault in group.values():
            stack.enter_context(fault(release))
        others = monitoring.wait_firing(set(group))
    monitoring.wait_calm()
    return others


def drains_are_seen(release: Release) -> list[str]:
    """Every edge that ends was scraped while it drained, and said so."""
    with monitored(release) as monitoring:
        before = {pod["metadata"]["name"] for pod in release.pods("socket-edge")}
        release.restart("socket-edge")
        draining = monitoring.query(
            f'max by (pod) (max_over_time(notify_draining{{release="{RELEASE}"}}[10m]))'
        )
        seen = {each["metric"]["pod"] for each in draining if each["value"][1] == "1"}
        if missing := before - seen:
            raise Failed(f"no scrape has seen {', '.join(sorted(missing))} drain")
    return [f"{len(before)} edges were seen as they drained"]
