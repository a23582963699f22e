"""Backups of a Valkey that runs, made and restored by the commands in docs/operations.md."""

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path

import redis

from tests.harness.valkey import Valkey
from tests.harness.waiting import wait_until

Backup = Callable[[Valkey, Path], object]


async def save(server: Valkey, to: Path) -> None:
    """BGSAVE, and a copy of the snapshot."""
    snapshot = server.data / "dump.rdb"
    snapshot.unlink(missing_ok=True)
    with server.client() as direct:
        # SCHEDULE: it follows a rewrite of the append-only file that is under way.
        direct.bgsave(schedule=True)
    # Valkey renames the file when it is complete.
    await wait_until(snapshot.exists, within_s=60, what="a snapshot")
    shutil.copy(snapshot, to)


async def save_by_replica(server: Valkey, to: Path) -> None:
    """The snapshot of a replica that has everything."""
    more = {"replicaof": f"127.0.0.1 {server.port}"}
    replica = Valkey(to.parent, name="replica", tcp=True, more=more)
    try:
        with server.client() as direct:
            direct.config_set("repl-diskless-sync-delay", "0")
        replica.start()
        await wait_until(lambda: replica.answers, within_s=60)
        await wait_until(lambda: _follows(replica), within_s=60, what="a replica")
        written = server.written
        await wait_until(lambda: server.is_replicated(written), within_s=60)
        await save(replica, to)
    finally:
        replica.close()


def _follows(replica: Valkey) -> bool:
    with replica.client() as direct:
        return bool(direct.info("replication")["master_link_status"] == "up")


async def restore(server: Valkey, snapshot: Path) -> None:
    """Replaces the data of a server with an append-only file by the snapshot.

    The server reads its append-only folder at start, never `dump.rdb`: the snapshot becomes the base of a new
    one. SHUTDOWN NOSAVE leaves the files as they are.
    """
    folder = server.data / "appendonlydir"
    shutil.rmtree(folder)
    folder.mkdir()
    shutil.copy(snapshot, folder / "appendonly.aof.1.base.rdb")
    manifest = "file appendonly.aof.1.base.rdb seq 1 type b\n"
    (folder / "appendonly.aof.manifest").write_text(manifest)
    with server.client() as direct, contextlib.suppress(redis.ConnectionError):
        direct.shutdown(nosave=True)
    await wait_until(lambda: server.ended, within_s=30)
    server.start()
    await wait_until(lambda: server.answers, within_s=60)
