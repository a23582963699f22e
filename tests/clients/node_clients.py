"""Stock WebSocket clients of npm, each socket in a Node process of its own."""

import asyncio
import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.clients.stock import Offer, Socket
from tests.harness.waiting import wait_until

HERE = Path(__file__).parent / "node"
_INSTALL_S = 40
_FILES = ("package.json", "package-lock.json")


def installed(cache: Path) -> Path:
    """The folder with the packages of our lock file, installed once and kept. Skips where that cannot be.

    Two workers may install at once, each in a folder of its own: the first to be ready stays.
    """
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("there is no node and npm here")
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
    # Without scripts: what they would compile comes ready made, or is done without.
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1"]
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=_INSTALL_S)
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm did not install ws and websocket within {_INSTALL_S} s")
    except subprocess.CalledProcessError as fault:
        pytest.skip(f"npm could not install ws and websocket: {fault.stderr[-300:]}")


class NodeLibrary:
    """A library of npm, in the given folder of packages. Browsers' own sockets, like `w3c`, cannot ping."""

    def __init__(self, name: str, packages: Path) -> None:
        self.name = name
        self.pings = name != "w3c"
        self._packages = packages

    async def open(self, offer: Offer) -> Socket:
        process = await asyncio.create_subprocess_exec(
            "node",
            str(HERE / "client.cjs"),
            self.name,
            env=os.environ | {"NODE_PATH": str(self._packages)},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=2**20,
        )
        socket = _NodeSocket(process)
        try:
            socket.order(
                open={"url": offer.url, "subprotocols": offer.subprotocols, "headers": offer.headers}
            )
            await wait_until(lambda: socket.opened or socket.faults, what=f"an open socket of {self.name}")
            assert socket.opened, socket.faults
        except BaseException:
            await socket.close()
            raise
        return socket


class _NodeSocket(Socket):
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        super().__init__()
        self.opened = False
        self.faults: list[str] = []
        self._process = process
        self._reader = asyncio.create_task(self._read())

    def order(self, **order: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self._take(json.loads(line))
        if not self.opened:
            self.faults.append("it ended")

    def _take(self, happening: dict[str, Any]) -> None:
        match happening:
            case {"opened": subprotocol}:
                self.subprotocol, self.opened = subprotocol, True
            case {"message": text}:
                self.heard(text)
            case {"pong": text}:
                self.pongs.append(text.encode())
            case {"closed": code}:
                self.close_code = code
            case _:
                self.faults.append(str(happening))

    def ping(self, payload: bytes) -> None:
        self.order(ping=payload.decode())

    async def close(self) -> None:
        if self.opened and self.close_code is None and not self._reader.done():
            self.order(close=True)
            await self.closed()
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        await self._reader
