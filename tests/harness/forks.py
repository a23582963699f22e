"""Starts `python -m services …` as a fork of a process that has imported it once.

A new interpreter spends a second of CPU on imports, a fork 30 ms, and a test run starts some 200 services.
`python -m tests.harness.forks FD` is the process that forks: it reads one order a packet from that socket.
"""

import contextlib
import ctypes
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

_CHECKOUT = Path(__file__).resolve().parents[2]
_ORDER_BYTES = 1_000_000
_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """The kernel kills this process when its parent ends: no test run leaves services behind."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Fork:
    """One forked service. Has what the harness uses of `subprocess.Popen`."""

    def __init__(
        self, arguments: Sequence[str], *, env: Mapping[str, str], cwd: Path, out: Path, err: Path
    ) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        order = {"arguments": arguments, "env": dict(env), "cwd": str(cwd), "out": str(out), "err": str(err)}
        with theirs:
            socket.send_fds(_server(), [json.dumps(order).encode()], [theirs.fileno()])
        self.pid = self._receive()
        self._code: int | None = None

    def poll(self) -> int | None:
        if self._code is None:
            # Not `select`, which refuses descriptors above 1023.
            with contextlib.suppress(BlockingIOError):
                self._code = int(self._socket.recv(32, socket.MSG_DONTWAIT))
        return self._code

    def wait(self, timeout: float | None = None) -> int:
        if self._code is None:
            self._socket.settimeout(timeout)
            self._code = self._receive()
        return self._code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def _receive(self) -> int:
        return int(self._socket.recv(32))


@cache
def _server() -> socket.socket:
    """Starts the process that forks; it ends when this end of its socket is closed."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        subprocess.Popen(
            [sys.executable, "-m", __name__, str(theirs.fileno())],
            cwd=_CHECKOUT,
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
    return ours


def _serve(orders: socket.socket) -> None:
    """Forks for each order; sends the pid, and later the exit code, to the order's socket."""
    importlib.import_module("services.__main__")
    # Without it every collection in a fork would touch, and so copy, the imported objects.
    gc.freeze()
    children: dict[int, socket.socket] = {}
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    while True:
        ready, _, _ = select.select([orders.fileno(), woken], [], [])
        if woken in ready:
            os.read(woken, 4096)
            _report_ended(children)
        if orders.fileno() in ready:
            order, descriptors, _, _ = socket.recv_fds(orders, _ORDER_BYTES, 1)
            if not order:
                return
            client = socket.socket(fileno=descriptors[0])
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for each in (orders, client, *children.values()):
                    each.close()
                os.close(woken)
                os.close(wake)
                _run(**json.loads(order))
            children[pid] = client
            client.send(str(pid).encode())


def _report_ended(children: dict[int, socket.socket]) -> None:
    while children:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        with children.pop(pid) as client:
            client.send(str(os.waitstatus_to_exitcode(status)).encode())


def _run(*, arguments: list[str], env: dict[str, str], cwd: str, out: str, err: str) -> None:
    """What a new interpreter would do, in a session of its own; leaves by SystemExit."""
    die_with_parent()
    os.setsid()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    for path, descriptor in ((out, 1), (err, 2)):
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.dup2(file, descriptor)
        os.close(file)
    sys.argv = ["services", *arguments]
    sys.exit(importlib.import_module("services.__main__").main())


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
