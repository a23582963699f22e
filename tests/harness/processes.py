"""Child processes under test: start, signal, kill, freeze; their output goes to files."""

import fcntl
import http.client
import os
import random
import socket
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGSTOP, SIGTERM, Signals

from tests.harness.forks import Fork, die_with_parent
from tests.harness.waiting import block_until

CHECKOUT = Path(__file__).resolve().parents[2]
RUNNING: list["Process"] = []
"""The processes whose output a failed test's report shows."""

forks_services = False
"""Set by tests/conftest.py: services start as forks. The demo and the load harness start interpreters."""

_SHOWN_BYTES = 12_000
_random = random.SystemRandom()


# Longer than any port is without its process: a test makes some dozens of them.
_MOST_PORTS = 400
_ports = deque[int]()


def free_port() -> int:
    """A free TCP port below the range of outgoing connections, which no other test run on this machine takes.

    It stays reserved for this process, also while its service has not started yet, or starts again.
    """
    while True:
        # Not `random`, which pytest-randomly seeds alike in every worker.
        port = _random.randrange(15_000, 32_000)
        if port in _ports or not _reserved(port):
            continue
        _ports.append(port)
        if len(_ports) > _MOST_PORTS:
            fcntl.lockf(_reservations(), fcntl.LOCK_UN, 1, _ports.popleft())
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def _reserved(port: int) -> bool:
    """Locks the port's byte of a file, until this process ends; False if another process has it."""
    try:
        fcntl.lockf(_reservations(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:
        return False
    return True


@cache
def _reservations() -> int:
    """Never closed: that would end the locks."""
    path = Path(tempfile.gettempdir()) / f"notification-gateway-ports-{os.getuid()}"
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def environment(**settings: object) -> dict[str, str]:
    """This process's environment; of our settings only `settings` (`PORT=1` is `NOTIFY_PORT=1`)."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("NOTIFY_", "OTEL_"))}
    return inherited | {f"NOTIFY_{name}": str(value) for name, value in settings.items()}


class Process:
    """A command in a session of its own, with stdout and stderr in files of `folder`."""

    def __init__(self, name: str, command: list[str], *, folder: Path, env: Mapping[str, str]) -> None:
        self.name = name
        self.command = command
        self.folder = folder
        self.env = dict(env)
        self.cwd = CHECKOUT
        self._child: subprocess.Popen[bytes] | Fork | None = None

    def start(self) -> None:
        assert not self.alive, f"{self.name} runs already"
        self._child = self._spawn()
        if self not in RUNNING:
            RUNNING.append(self)

    def _spawn(self) -> subprocess.Popen[bytes] | Fork:
        with self._file("out").open("ab") as out, self._file("err").open("ab") as err:
            return subprocess.Popen(
                self.command,
                cwd=self.cwd,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )

    @property
    def child(self) -> subprocess.Popen[bytes] | Fork:
        assert self._child is not None, f"{self.name} was never started"
        return self._child

    @property
    def pid(self) -> int:
        return self.child.pid

    @property
    def alive(self) -> bool:
        return self._child is not None and self._child.poll() is None

    @property
    def ended(self) -> bool:
        return not self.alive

    @property
    def exit_code(self) -> int | None:
        return self.child.poll()

    def signal(self, number: Signals) -> None:
        self.child.send_signal(number)

    def signal_group(self, number: Signals) -> None:
        """Signals the process and its children, as Ctrl-C in a terminal does."""
        os.killpg(self.pid, number)

    def terminate(self) -> None:
        self.signal(SIGTERM)

    def kill(self) -> None:
        """kill -9; waits until the process is gone."""
        if self.alive:
            self.signal(SIGKILL)
        self.child.wait()

    def freeze(self) -> None:
        self.signal(SIGSTOP)

    def thaw(self) -> None:
        self.signal(SIGCONT)

    def close(self) -> None:
        """Kills the process if it runs, and removes it from RUNNING."""
        if self._child is not None:
            self.kill()
        if self in RUNNING:
            RUNNING.remove(self)

    @property
    def rss_bytes(self) -> int:
        """Memory held now."""
        return self._memory("VmRSS")

    @property
    def peak_rss_bytes(self) -> int:
        """The most memory ever held."""
        return self._memory("VmHWM")

    def _memory(self, field: str) -> int:
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
        raise AssertionError(f"{self.name} has no {field}")

    @property
    def stdout(self) -> str:
        return self._read("out")

    @property
    def stderr(self) -> str:
        return self._read("err")

    @property
    def tail(self) -> str:
        """State and last output, for a failure's report."""
        state = "running" if self.alive else f"exited with {self.exit_code}"
        return f"({state})\n{self.stdout[-_SHOWN_BYTES:]}{self.stderr[-_SHOWN_BYTES:]}"

    def _file(self, kind: str) -> Path:
        return self.folder / f"{self.name}.{kind}"

    def _read(self, kind: str) -> str:
        path = self._file(kind)
        return path.read_text(errors="replace") if path.exists() else ""


class Service(Process):
    """`python -m services COMMAND` on a port of its own."""

    def __init__(
        self,
        name: str,
        command: str,
        *,
        folder: Path,
        settings: Mapping[str, object],
        port_setting: str = "PORT",
    ) -> None:
        self.port = free_port()
        self._arguments = [command]
        super().__init__(
            name,
            [sys.executable, "-m", "services", command],
            folder=folder,
            env=environment(**(dict(settings) | {port_setting: self.port})),
        )

    def _spawn(self) -> subprocess.Popen[bytes] | Fork:
        if not forks_services or "LD_PRELOAD" in self.env:
            return super()._spawn()
        files = {"out": self._file("out"), "err": self._file("err")}
        return Fork(self._arguments, env=self.env, cwd=self.cwd, **files)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ready(self) -> bool:
        """Whether /readyz answers 200. Fails when the process has exited."""
        assert self.alive, f"{self.name} exited with {self.exit_code}:\n{self.tail}"
        return self.get("/readyz") == 200

    def get(self, path: str) -> int:
        """The status of a GET, or 0 without a response."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            connection.close()

    def wait_ready(self) -> None:
        block_until(lambda: self.ready, within_s=60, what=lambda: f"{self.name} ready\n{self.tail}")


def run_command(
    *arguments: str, settings: Mapping[str, object] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs `python -m services ARGUMENTS` to its end."""
    with tempfile.TemporaryDirectory(prefix="notify-") as folder:
        out, err = Path(folder) / "out", Path(folder) / "err"
        command = Fork(arguments, env=environment(**(settings or {})), cwd=CHECKOUT, out=out, err=err)
        try:
            code = command.wait(60)
        except TimeoutError:
            command.send_signal(SIGKILL)
            raise
        return subprocess.CompletedProcess(list(arguments), code, out.read_text(), err.read_text())
