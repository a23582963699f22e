"""One child process under test: started, looked at, hurt and always ended; its output is kept."""

import ctypes
import http.client
import os
import random
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGSTOP, SIGTERM, Signals

from tests.harness.waiting import block_until

CHECKOUT = Path(__file__).resolve().parents[2]
RUNNING: list["Process"] = []
"""Every process that a test may want to read about when it fails."""

_SHOWN_BYTES = 12_000
_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1
_dice = random.SystemRandom()


def free_port() -> int:
    """A port nobody listens on, from below the range that outgoing connections are given.

    Drawn at random by a dice that no test seeds, so that workers side by side do not draw the same.
    """
    while True:
        port = _dice.randrange(15_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def environment(**settings: object) -> dict[str, str]:
    """This process's environment with no settings of ours but `settings` (`PORT=1` is `NOTIFY_PORT=1`)."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("NOTIFY_", "OTEL_"))}
    return inherited | {f"NOTIFY_{name}": str(value) for name, value in settings.items()}


def _die_with_the_tests() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, SIGKILL)


class Process:
    """A command in a session of its own, with stdout and stderr in files of `folder`."""

    def __init__(self, name: str, command: list[str], *, folder: Path, env: Mapping[str, str]) -> None:
        self.name = name
        self.command = command
        self.folder = folder
        self.env = dict(env)
        self.cwd = CHECKOUT
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        assert not self.alive, f"{self.name} runs already"
        with self._file("out").open("ab") as out, self._file("err").open("ab") as err:
            self._child = subprocess.Popen(
                self.command,
                cwd=self.cwd,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
                preexec_fn=_die_with_the_tests,
            )
        if self not in RUNNING:
            RUNNING.append(self)

    @property
    def child(self) -> subprocess.Popen[bytes]:
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
        """What a terminal does: to the process and to every child in its group."""
        os.killpg(self.pid, number)

    def terminate(self) -> None:
        self.signal(SIGTERM)

    def kill(self) -> None:
        """kill -9, and it is gone when this returns."""
        if self.alive:
            self.signal(SIGKILL)
        self.child.wait()

    def freeze(self) -> None:
        self.signal(SIGSTOP)

    def thaw(self) -> None:
        self.signal(SIGCONT)

    def close(self) -> None:
        """End it, whatever state it is in, and forget it."""
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
        """The end of what it said, for a failure's report."""
        state = "runs" if self.alive else f"ended with {self.exit_code}"
        return f"({state})\n{self.stdout[-_SHOWN_BYTES:]}{self.stderr[-_SHOWN_BYTES:]}"

    def _file(self, kind: str) -> Path:
        return self.folder / f"{self.name}.{kind}"

    def _read(self, kind: str) -> str:
        path = self._file(kind)
        return path.read_text(errors="replace") if path.exists() else ""


class Service(Process):
    """`python -m services <command>` on a port of its own."""

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
        super().__init__(
            name,
            [sys.executable, "-m", "services", command],
            folder=folder,
            env=environment(**(dict(settings) | {port_setting: self.port})),
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ready(self) -> bool:
        """Does /readyz say 200? Fails when the process has ended."""
        assert self.alive, f"{self.name} ended with {self.exit_code}:\n{self.tail}"
        return self.get("/readyz") == 200

    def get(self, path: str) -> int:
        """The status of one plain GET, or 0 when nobody answers."""
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
    """`python -m services <arguments>` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "services", *arguments],
        cwd=CHECKOUT,
        env=environment(**(settings or {})),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
