"""`python -m services all` in a folder of its own, and the Valkey that it starts."""

import contextlib
import os
import secrets
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.harness.processes import Service


class AllInOne(Service):
    """All services in one process on one origin, on an embedded Valkey."""

    def __init__(self, folder: Path, **settings: object) -> None:
        self.data_dir = folder / "data"
        self.admin_token = secrets.token_hex(16)
        ours = {"DATA_DIR": self.data_dir, "ADMIN_TOKEN": self.admin_token}
        super().__init__("all", "all", folder=folder, settings=ours | settings)

    @property
    def valkeys(self) -> list[int]:
        """The process ids of every Valkey that runs on our data, ours or left over."""
        return [pid for pid, command in _commands() if "valkey" in command and str(self.data_dir) in command]

    @property
    def ports(self) -> set[int]:
        """What the process and its Valkey listen on."""
        inodes = {inode for pid in (self.pid, *self.valkeys) for inode in _sockets_of(pid)}
        return {port for port, inode in _listening() if inode in inodes}


@contextlib.contextmanager
def all_in_one(**settings: object) -> Iterator[AllInOne]:
    """Not yet started; ended with its Valkey and its folder, come what may."""
    folder = Path(tempfile.mkdtemp(prefix="notify-"))
    process = AllInOne(folder, **settings)
    try:
        yield process
    finally:
        process.close()
        for pid in process.valkeys:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


def _commands() -> Iterator[tuple[int, str]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                yield int(entry.name), (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()


def _sockets_of(pid: int) -> Iterator[str]:
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            target = str(descriptor.readlink())
            if target.startswith("socket:["):
                yield target.removeprefix("socket:[").removesuffix("]")


def _listening() -> Iterator[tuple[int, str]]:
    """(port, inode) of every TCP socket that listens."""
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":
                yield int(fields[1].rpartition(":")[2], 16), fields[9]
