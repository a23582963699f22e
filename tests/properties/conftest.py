"""A Valkey of the machine's own, which it kills and starts again; what it has answered must not be lost."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.valkey import Valkey


@pytest.fixture(scope="module")
def valkey() -> Iterator[Valkey]:
    """On a Unix socket, with an append-only file that is synced before each answer."""
    # In memory where there is such a folder: it outlives the server, and the machine waits for every sync.
    # (pytest's own folders can be too deep for the path of a Unix socket.)
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
