"""How the stories reach a cluster: kubectl, Helm, and programs that run where Services are reachable."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.cluster import images, rig
from tests.cluster.places import CHECKOUT, LOGS, PROGRAMS, SCRATCH
from tests.cluster.requirements import Missing, path_of
from tests.harness.forks import die_with_parent

KIND_NAME = "kind"
_LIMIT_S = 300


class Failed(Exception):
    """A command of a story failed; the text has its last lines."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """`entrance` begins every command that is run; `own`: it was started by us, on this machine."""

    entrance: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    own: bool = False

    def run(self, *command: str, given: str | None = None, within_s: float = _LIMIT_S) -> str:
        """The command's standard output. Raises Failed."""
        try:
            done = subprocess.run(
                [*self.entrance, *command],
                cwd=CHECKOUT,
                env=self._environment,
                input=given,
                capture_output=True,
                text=True,
                timeout=within_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise Failed(f"{' '.join(command)}: not within {within_s:.0f} s") from None
        if done.returncode:
            said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-4:]
            raise Failed(f"{' '.join(command[:6])}: exit code {done.returncode}: {' / '.join(said)}")
        return done.stdout

    def start(self, *command: str, log: str) -> "subprocess.Popen[bytes]":
        """Starts a program; its output goes to a log of that name, and its input is a pipe."""
        LOGS.mkdir(parents=True, exist_ok=True)
        with (LOGS / f"{log}.log").open("wb") as out:
            return subprocess.Popen(
                [*self.entrance, *command],
                cwd=CHECKOUT,
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=subprocess.STDOUT,
                preexec_fn=die_with_parent,
            )

    def kubectl(self, *arguments: str, given: str | None = None, within_s: float = _LIMIT_S) -> str:
        return self.run("kubectl", *arguments, given=given, within_s=within_s)

    def helm(self, *arguments: str, within_s: float = _LIMIT_S) -> str:
        return self.run("helm", *arguments, within_s=within_s)

    def get(self, *arguments: str) -> Any:
        """`kubectl get` as values."""
        return json.loads(self.kubectl("get", *arguments, "--output=json"))

    def apply(self, *objects: Mapping[str, Any]) -> None:
        whole = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.kubectl("apply", "--filename=-", given=json.dumps(whole))

    @property
    def _environment(self) -> dict[str, str]:
        return dict(os.environ) | dict(self.environment)


def own_cluster() -> Cluster:
    """The cluster that `rig` has started."""
    return Cluster(rig.entrance(), own=True)


def cluster_of_kubeconfig(path: str) -> Cluster:
    """A cluster of the operator's. Its Services must be reachable from here, as on one of its nodes."""
    found = Path(path).expanduser()
    if not found.exists():
        raise Missing(f"{found} does not exist: CLUSTER is a kubeconfig's path, `kubeconfig` or `kind`")
    cluster = Cluster(_tools(), {"KUBECONFIG": str(found)})
    cluster.kubectl("version", within_s=30)
    return cluster


def kind_cluster() -> Cluster:
    """A cluster of kind's, entered at its node's network; our images are loaded into it."""
    for program in ("kind", "docker"):
        if path_of(program) is None:
            raise Missing(f"CLUSTER=kind needs `{program}` on the PATH")
    names = subprocess.run(["kind", "get", "clusters"], capture_output=True, text=True, check=True).stdout
    if KIND_NAME not in names.split():
        raise Missing(f"there is no cluster {KIND_NAME}: run `kind create cluster`")
    node = f"{KIND_NAME}-control-plane"
    state = ["docker", "inspect", "--format={{.State.Pid}}", node]
    pid = subprocess.run(state, capture_output=True, text=True, check=True).stdout.strip()
    for archive in images.archives():
        subprocess.run(["kind", "load", "image-archive", str(archive)], check=True)
    config = subprocess.run(["kind", "get", "kubeconfig"], capture_output=True, text=True, check=True).stdout
    SCRATCH.mkdir(parents=True, exist_ok=True)
    path = SCRATCH / "kind.kubeconfig"
    path.touch(mode=0o600)
    # In the node's network the API server has its own port, not the one that kind publishes.
    path.write_text(re.sub(r"https://\S+", "https://127.0.0.1:6443", config))
    return Cluster(["nsenter", f"--target={pid}", "--net", "--", *_tools()], {"KUBECONFIG": str(path)})


def _tools() -> list[str]:
    """Finds kubectl and helm: the machine's, or else ours."""
    for program in ("kubectl", "helm"):
        if path_of(program) is None and shutil.which(program, path=str(PROGRAMS)) is None:
            raise Missing(f"`{program}` is not on the PATH, and `make cluster-up` has not built it")
    return ["env", f"PATH={os.environ['PATH']}:{PROGRAMS}"]
