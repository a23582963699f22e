"""What a cluster of our own needs of the machine, said in one line where it lacks."""

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

# Debian puts daemons where only root looks.
SEARCH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PACKAGES = {
    "conntrack": "conntrack",
    "containerd": "containerd",
    "debootstrap": "debootstrap",
    "haproxy": "haproxy",
    "ip": "iproute2",
    "iptables": "iptables",
    "openssl": "openssl",
    "podman": "podman",
    "runc": "runc",
    "unshare": "util-linux",
}
"""Programs, and the Debian packages that have them."""
PLUGINS = Path("/usr/lib/cni")
_GO = (1, 24)


class Missing(Exception):
    """The machine lacks something; the text is one line, with the way out."""


def path_of(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:{SEARCH}")


def missing_packages(packages: Mapping[str, str] = PACKAGES) -> list[str]:
    """The Debian packages to install."""
    found = {package for program, package in packages.items() if path_of(program) is None}
    if not (PLUGINS / "bridge").exists():
        found.add("containernetworking-plugins")
    return sorted(found)


def check(*, go: bool) -> None:
    """Raises Missing. `go`: the programs have to be built."""
    if sys.platform != "linux":
        raise Missing(
            f"a cluster needs Linux, and this is {sys.platform}: use CLUSTER=kubeconfig or CLUSTER=kind"
        )
    if os.geteuid() != 0:
        raise Missing(
            "a cluster needs root for namespaces and mounts: run as root, or use CLUSTER=kubeconfig"
        )
    if packages := missing_packages():
        raise Missing(f"packages are missing: apt-get install {' '.join(packages)}")
    if go and go_program() is None:
        version = ".".join(map(str, _GO))
        raise Missing(
            f"Go is missing: install Go {version} or newer from https://go.dev/dl/, and put it on the PATH"
        )


def go_program() -> str | None:
    """Go, also where its own installer puts it."""
    return path_of("go") or shutil.which("/usr/local/go/bin/go")
