"""Builds Kubernetes, etcd, Helm, Prometheus and the pause program from Go modules of fixed versions."""

import hashlib
import os
import subprocess
from pathlib import Path

from tests.cluster import requirements
from tests.cluster.places import CHECKOUT, HERE, PROGRAMS

SOURCES = HERE / "programs"
_BESIDE = SOURCES / "beside"
_ADAPTER = SOURCES / "adapter"
_PROMETHEUS = CHECKOUT / "tests" / "deploy" / "promtool"
# As `make prometheus`, which also leaves out the discovery of pods.
_PROMETHEUS_TAGS = "remove_all_sd,enable_kubernetes_sd"
PARTS = (
    *("etcd", "kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler", "kubectl"),
    "kubelet",
)
"""The names of the program `kube`."""
_STAMP = PROGRAMS / "built-from"


def version() -> str:
    """The version of Kubernetes, as `v1.34.4`."""
    for line in (SOURCES / "go.mod").read_text().splitlines():
        words = line.split()
        if words[:1] == ["k8s.io/kubernetes"]:
            return words[1]
    raise ValueError(f"{SOURCES / 'go.mod'} requires no k8s.io/kubernetes")


def up_to_date() -> bool:
    return _STAMP.exists() and _STAMP.read_text() == _fingerprint()


def build() -> None:
    """Builds what has changed: ten minutes the first time, half a minute when Go's cache has the packages."""
    if up_to_date():
        return
    go = requirements.go_program()
    assert go is not None, "the requirements were checked"
    PROGRAMS.mkdir(parents=True, exist_ok=True)
    print("building Kubernetes and others from Go modules; the first time takes ten minutes", flush=True)
    # Without a version in the program, Helm refuses charts that name a kubeVersion.
    major, minor, _ = version().removeprefix("v").split(".")
    stamped = {
        "k8s.io/component-base/version.gitVersion": version(),
        "k8s.io/component-base/version.gitMajor": major,
        "k8s.io/component-base/version.gitMinor": minor,
        "k8s.io/client-go/pkg/version.gitVersion": version(),
    }
    flags = " ".join(["-s", "-w", *(f"-X {name}={value}" for name, value in stamped.items())])
    _go(go, "kube", "./kube", flags)
    _go(go, "helm", "helm.sh/helm/v3/cmd/helm", "-s -w")
    _go(go, "kube-network-policies", "sigs.k8s.io/kube-network-policies/cmd", "-s -w", folder=_BESIDE)
    _go(go, "metrics-server", "sigs.k8s.io/metrics-server/cmd/metrics-server", "-s -w", folder=_BESIDE)
    adapter = "sigs.k8s.io/prometheus-adapter/cmd/adapter"
    _go(go, "prometheus-adapter", adapter, "-s -w", folder=_ADAPTER)
    prometheus = "github.com/prometheus/prometheus/cmd/prometheus"
    _go(go, "prometheus", prometheus, "-s -w", folder=_PROMETHEUS, GOFLAGS=f"-tags={_PROMETHEUS_TAGS}")
    # A pod's sandbox has no C library.
    _go(go, "pause", "./pause", "-s -w", CGO_ENABLED="0")
    for part in PARTS:
        link = PROGRAMS / part
        link.unlink(missing_ok=True)
        link.symlink_to("kube")
    _STAMP.write_text(_fingerprint())


def _go(go: str, name: str, package: str, flags: str, *, folder: Path = SOURCES, **more: str) -> None:
    command = [go, "build", "-trimpath", f"-ldflags={flags}", "-o", str(PROGRAMS / name), package]
    # The compiler uses every core; other work on this machine goes first.
    subprocess.run(["nice", "-n", "10", *command], cwd=folder, env=os.environ | more, check=True)


def _fingerprint() -> str:
    whole = hashlib.sha256(Path(__file__).read_bytes())
    for folder in (SOURCES, _PROMETHEUS):
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            whole.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes())
    return whole.hexdigest()
