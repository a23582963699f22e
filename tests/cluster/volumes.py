"""The volume of the chart's Redis grows, by the commands of docs/operations.md."""

import contextlib
import json
import re
from collections.abc import Iterator

from tests.cluster.access import Failed
from tests.cluster.elsewhere import installed
from tests.cluster.places import CHECKOUT
from tests.cluster.release import FULL_NAME, SMALL, Release

_CLASS = "growable"
_REDIS = f"{FULL_NAME}-redis"
_CLAIM = f"data-{_REDIS}-0"
_SECTION = "Grow the volume of the chart's Redis"
# What the documented commands name.
_NAMESPACE = "notify"
_LARGER = "16Gi"


@contextlib.contextmanager
def on_a_growable_volume(release: Release) -> Iterator[Release]:
    """Its claim has a class that allows expansion."""
    release.cluster.apply(
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {"name": _CLASS},
            "provisioner": "kubernetes.io/no-provisioner",
            "allowVolumeExpansion": True,
        }
    )
    values = (f"--values={SMALL}", f"--set=redis.own.storage.className={_CLASS}")
    other = Release(release.cluster, _NAMESPACE, values)
    with installed(other, volumes=1, storage_class=_CLASS):
        yield other


def grow(release: Release) -> list[str]:
    """No pod restarts. Before the documented steps the chart refuses the larger size."""
    pod = release.get("pod", f"{_REDIS}-0")["metadata"]["uid"]
    notes = [_refusal(release)]
    for command in documented():
        if " -w" in command:
            _be_the_storage(release)
        else:
            release.cluster.run("sh", "-ec", command)
    release.wait_rolled_out()
    wanted = release.get("statefulset", _REDIS)["spec"]["volumeClaimTemplates"][0]["spec"]
    size = wanted["resources"]["requests"]["storage"]
    if size != _LARGER:
        raise Failed(f"the StatefulSet asks for {size} and not {_LARGER}")
    release.wait("the new StatefulSet's pod", lambda: _ready_replicas(release) == 1)
    if release.get("pod", f"{_REDIS}-0")["metadata"]["uid"] != pod:
        raise Failed("the pod of Redis was replaced")
    return notes


def _refusal(release: Release) -> str:
    before = release.get("statefulset", _REDIS)["metadata"]["generation"]
    history = release.history()
    try:
        release.upgrade(f"--set=redis.own.storage.size={_LARGER}")
    except Failed as error:
        if _SECTION not in str(error):
            raise
    else:
        raise Failed("the chart takes another size, which Kubernetes refuses half-way")
    if release.history() != history or release.get("statefulset", _REDIS)["metadata"]["generation"] != before:
        raise Failed("the refused upgrade has changed something")
    return "the larger size alone was refused, and nothing had changed"


def documented() -> list[str]:
    """The commands of the section, one of a line or of several."""
    text = (CHECKOUT / "docs" / "operations.md").read_text()
    section = text.partition(f"\n## {_SECTION}\n")[2].partition("\n## ")[0]
    [block] = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    commands = block.replace("\\\n", " ").strip().splitlines()
    assert len(commands) == 4, commands
    return list(commands)


def _be_the_storage(release: Release) -> None:
    """Does what a provisioner does with a claim that wants more."""
    claim = release.get("persistentvolumeclaim", _CLAIM)
    wanted = claim["spec"]["resources"]["requests"]["storage"]
    if wanted != _LARGER:
        raise Failed(f"the claim wants {wanted} and not {_LARGER}")
    capacity = {"capacity": {"storage": wanted}}
    volume = claim["spec"]["volumeName"]
    release.kubectl("patch", "persistentvolume", volume, f"--patch={json.dumps({'spec': capacity})}")
    status = ("--subresource=status", f"--patch={json.dumps({'status': capacity})}")
    release.kubectl("patch", "persistentvolumeclaim", _CLAIM, *status)


def _ready_replicas(release: Release) -> int:
    return int(release.get("statefulset", _REDIS)["status"].get("readyReplicas", 0))
