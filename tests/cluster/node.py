"""Process 1 of the cluster's namespaces: makes the node's network, starts its daemons, ends with them."""

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from tests.cluster import certificates, daemons, images
from tests.cluster.places import (
    CHECKOUT,
    CONTAINERD,
    DNS_IP,
    LOGS,
    NODE_IP,
    POD_NETWORK,
    PRIVATE,
    PROGRAMS,
    RUN,
)

_POLL_S = 0.1
_START_LIMIT_S = 120


def main() -> int:
    """Runs until a daemon exits, which ends every other process of the namespace with it."""
    os.environ["PATH"] = f"{PROGRAMS}:{os.environ['PATH']}"
    _make_mounts()
    _make_network()
    certificates.create()
    daemons.write_files(pause=images.PAUSE)
    running = {}

    def start(name: str, command: list[str]) -> None:
        running[_start(name, command)] = name

    start("etcd", daemons.etcd())
    start("containerd", daemons.containerd())
    start("kube-apiserver", daemons.apiserver())
    _wait("containerd", _containerd_responds)
    for archive in images.archives():
        _containerd("images", "import", str(archive))
    _wait("the API server", _api_responds)
    start("kube-controller-manager", daemons.controllers())
    start("kube-scheduler", daemons.scheduler())
    start("kubelet", daemons.kubelet())
    start("kube-proxy", daemons.kube_proxy())
    _queue_first_packets()
    start("kube-network-policies", daemons.network_policies())
    start("metrics-server", daemons.metrics_server())
    start("names", [sys.executable, "-m", "tests.cluster.names"])
    print("started", flush=True)
    while True:
        # As process 1 it also reaps what containers' shims leave.
        ended, status = os.wait()
        if ended in running:
            print(f"{running[ended]} exited with {os.waitstatus_to_exitcode(status)}", flush=True)
            return 1


def _make_mounts() -> None:
    """Gives the daemons folders of their own where they would write into the machine's."""
    _run("mount", "--make-rprivate", "/")
    for path in PRIVATE:
        own = RUN / "private" / str(path).strip("/").replace("/", "-")
        own.mkdir(parents=True)
        _run("mount", "--bind", str(own), str(path))
    # Sockets and network namespaces; their paths must be short.
    _run("mount", "-t", "tmpfs", "tmpfs", "/run")
    Path("/run/netns").mkdir()


def _make_network() -> None:
    """A node with an address and no way out: one end of a pair of which the other leads nowhere."""
    for command in (
        "link set lo up",
        "link add node0 type veth peer name node1",
        "link set node1 up",
        f"addr add {NODE_IP}/24 dev node0",
        "link set node0 up",
        f"addr add {DNS_IP}/32 dev lo",
        "route add default dev node0",
    ):
        _run("ip", *command.split())
    _write("/proc/sys/net/ipv4/ip_forward", "1")
    _write("/proc/sys/net/ipv4/conf/all/route_localnet", "1")
    # Without it pods of one node reach each other past kube-proxy; where it is missing they do not need it.
    _write("/proc/sys/net/bridge/bridge-nf-call-iptables", "1")


def _queue_first_packets() -> None:
    """What kube-network-policies does by itself where the kernel has queues for nftables too."""
    account = Path("/run/secrets/kubernetes.io/serviceaccount")
    account.mkdir(parents=True)
    (account / "token").write_text(certificates.token("policies"))
    (account / "ca.crt").write_text(Path(certificates.pem("ca")).read_text())
    os.environ.update(KUBERNETES_SERVICE_HOST="127.0.0.1", KUBERNETES_SERVICE_PORT="6443")
    queue = ["--jump", "NFQUEUE", "--queue-num", str(daemons.PACKET_QUEUE), "--queue-bypass"]
    new = ["--match", "conntrack", "!", "--ctstate", "ESTABLISHED,RELATED"]
    # What is addressed to the node counts as well: the load's receiver of webhooks is there.
    for chain, side in (("FORWARD", "--source"), ("FORWARD", "--destination"), ("INPUT", "--source")):
        _run("iptables", "--table", "mangle", "--append", chain, side, POD_NETWORK, *new, *queue)


def _start(name: str, command: list[str]) -> int:
    """Its process id. The process is waited for by `main` alone."""
    with (LOGS / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            command, cwd=CHECKOUT, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        )
    return process.pid


def _wait(what: str, ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _START_LIMIT_S
    while not ready():
        if time.monotonic() > deadline:
            sys.exit(f"{what} did not respond within {_START_LIMIT_S} s; its log is in {LOGS}")
        time.sleep(_POLL_S)


def _containerd_responds() -> bool:
    return subprocess.run(_ctr("version"), capture_output=True, check=False).returncode == 0


def _containerd(*arguments: str) -> None:
    subprocess.run(_ctr(*arguments), check=True)


def _ctr(*arguments: str) -> list[str]:
    return ["ctr", "--address", CONTAINERD, "--namespace", "k8s.io", *arguments]


def _api_responds() -> bool:
    request = urllib.request.Request(
        "https://127.0.0.1:6443/readyz",
        headers={"Authorization": f"Bearer {certificates.token('admin')}"},
    )
    try:
        with urllib.request.urlopen(request, timeout=5, context=certificates.trust()):
            return True
    except (OSError, urllib.error.URLError):
        return False


def _write(path: str, text: str) -> None:
    if Path(path).exists():
        Path(path).write_text(text)


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


if __name__ == "__main__":
    sys.exit(main())
