"""A Valkey that the machine kills and restarts; it must not lose a write that it has answered."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.valkey import Valkey


@pytest.fixture(scope="module")
def valkey() -> Iterator[Valkey]:
    """On a Unix socket, with an append-only file that is synced before each answer."""
    # Use memory where possible: the machine waits for every sync. The path of a Unix socket must be short,
    # and pytest's own folders can be too deep.
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="notify-", dir=memory if memory.is_dir() else None))
    server = Valkey(folder, appendfsync="always")
    try:
        server.start()
        server.wait_ready()
        yield server
    finally:
        server.close()
        shutil.rmtree(folder, ignore_errors=True)
