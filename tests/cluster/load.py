"""`tests.load rollout` against a release, for as long as something is done to it."""

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster.access import Failed
from tests.cluster.places import LOGS, NODE_IP, scratch
from tests.cluster.release import Release

_LONGEST_S = 900
_START_LIMIT_S = 120
_END_LIMIT_S = 180
_POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class Amount:
    """How many clients there are, and events per second."""

    sockets: int = 100
    polls: int = 10
    rate: int = 100
    webhooks: int = 20
    """Only in a cluster of our own: elsewhere pods may not reach the load's receiver."""
    kazoo: int = 10
    cognism: int = 10

    def options(self, *, own: bool) -> list[str]:
        counts = {"sockets": self.sockets, "polls": self.polls, "kazoo": self.kazoo, "cognism": self.cognism}
        hooks = [f"--webhooks={self.webhooks}", f"--hooks-on={NODE_IP}"] if own else []
        return [*(f"--{name}={count}" for name, count in counts.items()), f"--rate={self.rate}", *hooks]


class Load:
    """A run. `line` is its result once the block has ended."""

    line: dict[str, Any]

    def __init__(self, name: str) -> None:
        self._log = LOGS / f"{name}.log"
        self.line = {}

    def wait_until_publishing(self, process: "subprocess.Popen[bytes]") -> None:
        deadline = time.monotonic() + _START_LIMIT_S
        while "publishing" not in self._log.read_text():
            if process.poll() is not None or time.monotonic() > deadline:
                raise Failed(f"the load did not start: {self.tail()}")
            time.sleep(_POLL_S)

    def tail(self) -> str:
        return " / ".join(self._log.read_text().splitlines()[-4:])


@contextlib.contextmanager
def under_load(release: Release, origin: str, amount: Amount, *, name: str) -> Iterator[Load]:
    """Runs the block while clients stay and publishers publish. Raises Failed without a result."""
    load = Load(name)
    with scratch("load") as folder:
        results = Path(folder, "results.jsonl")
        crowd = amount.options(own=release.cluster.own)
        where = [f"--url={origin}", f"--admin-token={release.admin_token()}", f"--out={results}"]
        how = ["--until-eof", f"--seconds={_LONGEST_S}", f"--html={folder}/report.html", "--patience=30"]
        command = [sys.executable, "-m", "tests.load", "rollout", *where, *crowd, *how]
        process = release.cluster.start(*command, log=name)
        assert process.stdin is not None
        try:
            load.wait_until_publishing(process)
            yield load
            process.stdin.close()
            process.wait(_END_LIMIT_S)
        except subprocess.TimeoutExpired:
            raise Failed(f"the load did not end: {load.tail()}") from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            process.wait()
        if not results.exists():
            raise Failed(f"the load has no result: {load.tail()}")
        load.line = json.loads(results.read_text().splitlines()[-1])
