"""Runs stock servers as receivers of webhooks, and reads what they report."""

import contextlib
import fcntl
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.harness.certificates import Certificates
from tests.harness.events import number_of
from tests.harness.processes import Process
from tests.harness.programs import program
from tests.harness.waiting import block_until

HERE = Path(__file__).parent
# `go build` on a busy machine, when the standard library is not in Go's cache.
_BUILD_S = 300


@dataclass(frozen=True)
class Taken:
    """One request that a receiver decided. A body of None was not read."""

    path: str
    status: int
    body: str | None
    version: str
    headers: dict[str, Any] = field(repr=False)
    peer: str
    length: int

    @property
    def is_test(self) -> bool:
        """Whether it is the test request of a registration."""
        return self.length == len("{}")

    @property
    def webhook_id(self) -> str:
        value = self.header("webhook-id")
        assert value is not None
        return value

    def header(self, name: str) -> str | None:
        """A header's value; Go reports lists."""
        found = next((value for key, value in self.headers.items() if key.lower() == name), None)
        return found[0] if isinstance(found, list) else found

    @property
    def numbers(self) -> list[int]:
        assert self.body is not None
        return [number_of(item) for item in json.loads(self.body).get("notifications", ())]


class StockReceiver:
    """A running server with a port for each of its listeners: `http`, `https` and others."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._out = process.folder / f"{process.name}.out"
        self._read = 0
        self._taken: list[Taken] = []
        self.ports: dict[str, int] = {}

    def wait_ready(self) -> None:
        block_until(lambda: self.taken() is not None and self.ports, what=lambda: self._process.tail)

    def url(self, listener: str, path: str) -> str:
        scheme = "https" if listener in ("https", "h2", "h11s") else "http"
        return f"{scheme}://127.0.0.1:{self.ports[listener]}{path}"

    def taken(self, path: str = "") -> list[Taken]:
        """What was decided so far, but for test requests; `path`: on this path."""
        with self._out.open("rb") as out:
            out.seek(self._read)
            lines, newline, _ = out.read().rpartition(b"\n")
        self._read += len(lines) + len(newline)
        for line in lines.splitlines():
            event = json.loads(line)
            if "ports" in event:
                self.ports = event["ports"]
            else:
                self._taken.append(Taken(**event))
        return [taken for taken in self._taken if taken.path == path and not taken.is_test]


def command_of(server: str) -> list[str]:
    """How a server of this name is started; ends the test if its program is missing."""
    match server:
        case "go":
            return [str(go_program()), "receive"]
        case "node":
            return [program("node"), str(HERE / "node" / "receiver.mjs")]
        case _:
            return [sys.executable, "-m", f"tests.stock.python.{server}"]


@contextlib.contextmanager
def running(server: str, certificates: Certificates) -> Iterator[StockReceiver]:
    """Runs a server until the end of the block."""
    with tempfile.TemporaryDirectory(prefix="notify-stock-") as folder:
        pair = [str(certificates.pem("receiver")), str(certificates.key("receiver"))]
        command = [*command_of(server), *pair]
        process = Process(server, command, folder=Path(folder), env=os.environ)
        receiver = StockReceiver(process)
        try:
            process.start()
            receiver.wait_ready()
            yield receiver
        finally:
            process.close()


def go_program() -> Path:
    """Our Go program."""
    return built_go(sorted((HERE / "go").glob("*.go")))


def built_go(sources: Sequence[Path]) -> Path:
    """A program built once for these sources: nothing is downloaded, the checkout stays clean."""
    go = program("go")
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"notify-stock-go-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    assert folder.stat().st_uid == os.getuid(), f"{folder} belongs to another user"
    built = folder / digest
    # The other workers wait for the first one's build.
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not built.exists():
            _build(go, sources, built)
    return built


def _build(go: str, sources: Sequence[Path], built: Path) -> None:
    # Without a module and a proxy it can use the standard library only; without C it needs no compiler of C.
    offline = {"GOPROXY": "off", "GOTOOLCHAIN": "local", "GOFLAGS": "", "GOWORK": "off", "CGO_ENABLED": "0"}
    env = os.environ | offline
    env.setdefault("GOCACHE", str(built.parent / "cache"))
    partial = built.with_suffix(".part")
    command = [go, "build", "-o", str(partial), *map(str, sources)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=_BUILD_S, check=False)
    assert done.returncode == 0, done.stderr
    partial.rename(built)
