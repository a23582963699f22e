"""The cgroup below which the kubelet puts pods, in each hierarchy that the machine has."""

import contextlib
from pathlib import Path

from tests.cluster.places import NAME

KUBELET_ROOT = f"/{NAME}"
_MOUNT = Path("/sys/fs/cgroup")
_UNIFIED = ("cpu", "cpuset", "io", "memory", "pids")


def create() -> None:
    if (_MOUNT / "cgroup.controllers").exists():
        _create_unified()
        return
    for hierarchy in _hierarchies():
        own = hierarchy / NAME
        own.mkdir(exist_ok=True)
        # A new cpuset is empty, and nothing may run in an empty one.
        for name in ("cpuset.cpus", "cpuset.mems"):
            if (own / name).exists() and not (own / name).read_text().strip():
                (own / name).write_text((hierarchy / name).read_text())


def remove() -> None:
    """Removes what the kubelet left; the processes in it have ended."""
    for hierarchy in [*_hierarchies(), _MOUNT]:
        own = hierarchy / NAME
        below = sorted((path for path in own.rglob("*") if path.is_dir()), reverse=True)
        for path in [*below, own]:
            with contextlib.suppress(FileNotFoundError):
                path.rmdir()


def left() -> list[Path]:
    return [hierarchy / NAME for hierarchy in [*_hierarchies(), _MOUNT] if (hierarchy / NAME).exists()]


def _create_unified() -> None:
    (_MOUNT / NAME).mkdir(exist_ok=True)
    have = (_MOUNT / "cgroup.controllers").read_text().split()
    for folder in (_MOUNT, _MOUNT / NAME):
        for controller in _UNIFIED:
            if controller in have:
                (folder / "cgroup.subtree_control").write_text(f"+{controller}")


def _hierarchies() -> list[Path]:
    """Those of version 1. Several names may be links to one."""
    if (_MOUNT / "cgroup.controllers").exists():
        return []
    return sorted({path.resolve() for path in _MOUNT.iterdir() if (path / "cgroup.procs").exists()})
