"""Where the cluster keeps programs, images and state: outside the checkout, so all checkouts share them."""

import os
import tempfile
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
CHART = CHECKOUT / "helm" / "notification-gateway"
HERE = Path(__file__).resolve().parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "notification-gateway" / "cluster"
PROGRAMS = CACHE / "programs"
IMAGES = CACHE / "images"
RUN = CACHE / "run"
"""The state of the running cluster; `down` removes it."""
LOGS = CACHE / "logs"
"""Outlives the cluster, for a look at what failed; the next start removes it."""
SCRATCH = CACHE / "scratch"
"""Folders of a run; a run that is killed leaves them to the next one."""
VOLUMES = RUN / "volumes"
ADMIN_CONFIG = RUN / "admin.kubeconfig"

NAME = "notification-gateway-test"
"""The cgroup's name. A process list shows it too."""
NODE = "node"
NODE_IP = "10.208.30.1"
POD_NETWORK = "10.208.40.0/24"
SERVICE_NETWORK = "10.208.64.0/20"
API_SERVICE_IP = "10.208.64.1"
# The address of a NodeLocal DNSCache: the chart's network policies allow it.
DNS_IP = "169.254.20.10"
FRONT_PORT = 8080
PRIVATE = [Path(path) for path in ("/var/log", "/var/lib/cni", "/var/lib/kubelet")]
"""Folders of the machine that daemons write into whatever their configuration says."""
CONTAINERD = "/run/containerd/containerd.sock"


def scratch(name: str) -> "tempfile.TemporaryDirectory[str]":
    """A folder for the duration of a block."""
    SCRATCH.mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryDirectory(prefix=f"{name}-", dir=SCRATCH)
