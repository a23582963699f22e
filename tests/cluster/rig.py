"""Starts and ends the cluster from outside. A start ends first what a killed run has left."""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.cluster import cgroups, images, programs, requirements
from tests.cluster.places import ADMIN_CONFIG, CACHE, CHECKOUT, LOGS, NODE, PRIVATE, PROGRAMS, RUN, SCRATCH
from tests.cluster.requirements import Missing
from tests.harness.forks import die_with_parent

_OUTER = RUN / "outer.pid"
_BEFORE = RUN / "before.json"
_NODE = "tests.cluster.node"
_READY_LIMIT_S = 180
_END_LIMIT_S = 60
_POLL_S = 0.1
# The kubelet sets these for the whole machine.
SYSCTLS = (
    *("vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops"),
    *("kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes"),
)


def start(*, stays: bool) -> None:
    """Builds what is missing, and waits for the node. Unless it `stays`, it ends with this process."""
    requirements.check(go=not programs.up_to_date())
    CACHE.mkdir(parents=True, exist_ok=True)
    with _alone():
        stop_unlocked()
        programs.build()
        images.build_all()
        print("starting the cluster", flush=True)
        shutil.rmtree(LOGS, ignore_errors=True)
        for folder in (RUN, LOGS):
            folder.mkdir(parents=True)
        _note_what_changes()
        cgroups.create()
        _spawn(stays=stays)
        try:
            _wait_until_ready()
        except BaseException:
            stop_unlocked()
            raise


def stop() -> bool:
    """Ends the cluster, and puts back what it has changed; False if there was none."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with _alone():
        return stop_unlocked()


def stop_unlocked() -> bool:
    shutil.rmtree(SCRATCH, ignore_errors=True)
    if not RUN.exists():
        return False
    inner, outer = inner_pid(), outer_pid()
    # `unshare` ignores SIGTERM. Its child dies with it, and with process 1 the whole namespace.
    for pid in (outer, inner):
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    _wait("the cluster's processes", lambda: not any(_exists(pid) for pid in (inner, outer)), _END_LIMIT_S)
    _wait("the cluster's cgroups", _cgroups_are_gone, _END_LIMIT_S)
    _put_back()
    shutil.rmtree(RUN)
    return True


def inner_pid() -> int | None:
    """Process 1 of the cluster's namespaces, by its number outside; None if no cluster runs."""
    outer = outer_pid()
    if outer is None:
        return None
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        children = Path(f"/proc/{outer}/task/{outer}/children").read_text().split()
        return int(children[0]) if children else None
    return None


def outer_pid() -> int | None:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError, ValueError):
        pid = int(_OUTER.read_text())
        # Since the machine's start, the number may have gone to another process.
        if _NODE.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
            return pid
    return None


def entrance(*spaces: str) -> list[str]:
    """The beginning of a command that runs in the cluster's network, and in those other namespaces.

    In the network alone a command is still the machine's own process, so signals reach it. Raises Missing if
    no cluster runs.
    """
    inner = inner_pid()
    if inner is None:
        raise Missing("no cluster runs: `make cluster-up` starts one")
    path = f"PATH={PROGRAMS}:{os.environ['PATH']}:{requirements.SEARCH}"
    inside = ["env", f"--chdir={CHECKOUT}", f"KUBECONFIG={ADMIN_CONFIG}", path]
    return ["nsenter", f"--target={inner}", "--net", *(f"--{name}" for name in spaces), "--", *inside]


def _spawn(*, stays: bool) -> None:
    def prepare() -> None:
        # Noted by the process itself: a parent killed meanwhile would leave one that no run finds.
        _OUTER.write_text(str(os.getpid()))
        if not stays:
            die_with_parent()

    spaces = ["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    with (LOGS / "node.log").open("wb") as log:
        subprocess.Popen(
            ["unshare", *spaces, sys.executable, "-m", _NODE],
            cwd=CHECKOUT,
            env=os.environ | {"PATH": f"{os.environ['PATH']}:{requirements.SEARCH}"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=prepare,
        )


def _wait_until_ready() -> None:
    def ready() -> bool:
        if outer_pid() is None:
            raise Missing(
                f"the cluster ended at its start: {_tail(LOGS / 'node.log')}; all logs are in {LOGS}"
            )
        if not ADMIN_CONFIG.exists() or inner_pid() is None:
            return False
        asked = [*entrance(), "kubectl", "get", "node", NODE, "--output=jsonpath={.status.conditions}"]
        said = subprocess.run(asked, capture_output=True, text=True, check=False).stdout
        return any(each["type"] == "Ready" and each["status"] == "True" for each in json.loads(said or "[]"))

    _wait("the node's readiness", ready, _READY_LIMIT_S)


def _note_what_changes() -> None:
    values = {
        name: Path("/proc/sys", name).read_text() for name in SYSCTLS if Path("/proc/sys", name).exists()
    }
    made = []
    for path in PRIVATE:
        if not path.exists():
            path.mkdir()
            made.append(str(path))
    _BEFORE.write_text(json.dumps({"sysctls": values, "made": made}))


def _put_back() -> None:
    if not _BEFORE.exists():
        return
    before = json.loads(_BEFORE.read_text())
    for name, value in before["sysctls"].items():
        Path("/proc/sys", name).write_text(value)
    for path in before["made"]:
        with contextlib.suppress(OSError):
            Path(path).rmdir()


def _cgroups_are_gone() -> bool:
    with contextlib.suppress(OSError):
        cgroups.remove()
    return not cgroups.left()


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """One start or stop at a time."""
    with (CACHE / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Missing("another run starts or ends the cluster right now: wait for it") from None
        yield


def _exists(pid: int | None) -> bool:
    return pid is not None and Path(f"/proc/{pid}").exists() and _state(pid) != "Z"


def _state(pid: int) -> str:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return "Z"


def _wait(what: str, done: Callable[[], bool], within_s: float) -> None:
    deadline = time.monotonic() + within_s
    while not done():
        if time.monotonic() > deadline:
            raise Missing(f"waited {within_s:.0f} s in vain for {what}; logs are in {LOGS}")
        time.sleep(_POLL_S)


def _tail(path: Path) -> str:
    return " / ".join(path.read_text().splitlines()[-3:]) if path.exists() else "it wrote no log"
