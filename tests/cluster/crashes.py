"""Containers that are killed or paused behind Kubernetes' back: no process gets a SIGTERM."""

import contextlib
from collections.abc import Iterator

from tests.cluster import rig
from tests.cluster.access import Cluster
from tests.cluster.places import CONTAINERD
from tests.cluster.release import Release


def kill_container(release: Release, component: str) -> str:
    """Kills every process of a pod's container; returns the pod's name when it has another one."""
    name = release.pod(component)
    before = _container(release, name)
    _tasks("kill", "--all", "--signal=SIGKILL", before)
    release.wait(f"a new container of {name}", lambda: _container(release, name) not in ("", before))
    return name


@contextlib.contextmanager
def paused(release: Release, component: str) -> Iterator[None]:
    """Freezes every process of a pod's container during the block."""
    container = _container(release, release.pod(component))
    _tasks("pause", container)
    try:
        yield
    finally:
        _tasks("resume", container)


def _tasks(*arguments: str) -> None:
    ctr = ["ctr", f"--address={CONTAINERD}", "--namespace=k8s.io", "tasks"]
    Cluster(rig.entrance("mount", "pid")).run(*ctr, *arguments)


def _container(release: Release, pod: str) -> str:
    """The id of the pod's running container; "" while there is none."""
    [status] = release.get("pod", pod)["status"]["containerStatuses"]
    return str(status.get("containerID", "")).rpartition("/")[2] if "running" in status["state"] else ""
