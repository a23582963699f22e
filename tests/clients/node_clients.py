"""Stock WebSocket clients of npm, and that of Node itself; each socket in a Node process of its own."""

import asyncio
import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.clients.stock import Offer, Socket
from tests.harness.programs import program
from tests.harness.waiting import wait_until

HERE = Path(__file__).parent / "node"
_INSTALL_S = 40
_FILES = ("package.json", "package-lock.json")


def installed(cache: Path) -> Path:
    """Installs the packages of our lock file once; returns the folder. Skips the test if that is impossible.

    Two workers may install at once, each in a temporary folder: the first to finish is kept.
    """
    npm = shutil.which("npm")
    if npm is None:
        # Debian's has 400 packages, so `.ci/run` does not install it.
        pytest.skip("npm is not installed")
    wanted = hashlib.sha256(b"".join((HERE / name).read_bytes() for name in _FILES)).hexdigest()
    kept = cache / wanted[:16]
    if kept.exists():
        return kept
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        for name in _FILES:
            shutil.copy(HERE / name, folder)
        _install(npm, folder)
        with contextlib.suppress(OSError):
            (Path(folder) / "node_modules").rename(kept)
    return kept


def _install(npm: str, folder: str) -> None:
    # Without scripts: they would only compile optional native modules.
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1"]
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=_INSTALL_S)
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm did not install ws and websocket within {_INSTALL_S} s")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"npm could not install ws and websocket: {error.stderr[-300:]}")


def native() -> "NodeLibrary":
    """Node's own WebSocket, which it has since version 20. Skips the test with an older one."""
    major = int(subprocess.check_output([program("node"), "-p", "process.versions.node"]).split(b".")[0])
    if major < 20:
        pytest.skip(f"Node has a WebSocket since version 20, and this is {major}")
    return NodeLibrary("native", Path(), flags=["--experimental-websocket"] if major < 22 else [])


class NodeLibrary:
    """A library of npm in this folder, or Node's own. Browser sockets, like `w3c`, cannot send pings."""

    def __init__(self, name: str, packages: Path, *, flags: Sequence[str] = ()) -> None:
        self.name = name
        self.pings = name not in ("w3c", "native")
        self._packages = packages
        self._flags = flags

    async def open(self, offer: Offer) -> Socket:
        process = await asyncio.create_subprocess_exec(
            program("node"),
            *self._flags,
            str(HERE / "client.cjs"),
            self.name,
            env=os.environ | {"NODE_PATH": str(self._packages)},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=2**20,
        )
        socket = _NodeSocket(process)
        try:
            socket.send(open={"url": offer.url, "subprotocols": offer.subprotocols, "headers": offer.headers})
            await wait_until(lambda: socket.opened or socket.errors, what=f"an open socket of {self.name}")
            assert socket.opened, socket.errors
        except BaseException:
            await socket.close()
            raise
        return socket


class _NodeSocket(Socket):
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        super().__init__()
        self.opened = False
        self.errors: list[str] = []
        self._process = process
        self._reader = asyncio.create_task(self._read())

    def send(self, **command: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self._take(json.loads(line))
        if not self.opened:
            self.errors.append("the process exited")

    def _take(self, event: dict[str, Any]) -> None:
        match event:
            case {"opened": subprotocol}:
                self.subprotocol, self.opened = subprotocol, True
            case {"message": text}:
                self.received(text)
            case {"pong": text}:
                self.pongs.append(text.encode())
            case {"closed": code}:
                self.close_code = code
            case _:
                self.errors.append(str(event))

    def ping(self, payload: bytes) -> None:
        self.send(ping=payload.decode())

    async def close(self) -> None:
        if self.opened and self.close_code is None and not self._reader.done():
            self.send(close=True)
            await self.closed()
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        await self._reader
