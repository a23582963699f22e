"""A real Valkey with a replica, and a sentinel that can fail over between them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import redis

from tests.harness.processes import Process, environment, free_port
from tests.harness.valkey import Valkey, server_binary
from tests.harness.waiting import block_until

SERVICE = "notify"


class Sentinel(Process):
    """One sentinel with a quorum of 1."""

    def __init__(
        self, folder: Path, primary: Valkey, *, password: str = "", more: Sequence[str] = ()
    ) -> None:
        self.port = free_port()
        data = folder / "sentinel-data"
        data.mkdir()
        config = data / "sentinel.conf"
        lines = [
            "bind 127.0.0.1",
            f"port {self.port}",
            f"dir {data}",
            f"sentinel monitor {SERVICE} 127.0.0.1 {primary.port} 1",
            f"sentinel down-after-milliseconds {SERVICE} 1000",
            f"sentinel failover-timeout {SERVICE} 3000",
            *([f"requirepass {password}"] if password else []),
            *more,
        ]
        config.write_text("\n".join(lines))
        self._password = password
        command = [server_binary(), str(config), "--sentinel"]
        super().__init__("sentinel", command, folder=folder, env=environment())

    def ask(self, *command: object) -> Any:
        with redis.Redis(port=self.port, password=self._password or None, socket_timeout=10) as direct:
            return direct.execute_command(*command)

    @property
    def primary_port(self) -> int:
        """The port of the primary that it names."""
        return int(self.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)[1])

    @property
    def knows_both(self) -> bool:
        """Does it know the primary and a replica to promote?"""
        try:
            primary = _named(self.ask("SENTINEL", "MASTER", SERVICE))
            replicas = [_named(replica) for replica in self.ask("SENTINEL", "REPLICAS", SERVICE)]
        except redis.RedisError:
            return False
        return primary["flags"] == "master" and any(replica["flags"] == "slave" for replica in replicas)


class Guarded:
    """Has the interface of `Valkey`, for tests that run on either."""

    def __init__(
        self,
        folder: Path,
        *,
        password: str = "",
        more: Mapping[str, str] | None = None,
        of_sentinel: Sequence[str] = (),
    ) -> None:
        quick = {"repl-diskless-sync-delay": "0", **(more or {})}
        self.primary = Valkey(folder, name="primary", tcp=True, more=quick)
        follows = {**quick, "replicaof": f"127.0.0.1 {self.primary.port}"}
        self.replica = Valkey(folder, name="replica", tcp=True, more=follows)
        self.sentinel = Sentinel(folder, self.primary, password=password, more=of_sentinel)
        self._query = f"?sentinel_password={password}" if password else ""

    @property
    def url(self) -> str:
        return f"redis+sentinel://127.0.0.1:{self.sentinel.port}/{SERVICE}/0{self._query}"

    @property
    def settings(self) -> dict[str, str]:
        return {"REDIS_URL": self.url}

    def settings_for(self, service: str) -> dict[str, str]:
        """The settings with which this service reaches it; here all services are the same user."""
        return self.settings

    def client(self) -> Any:
        """A blocking client of the current primary."""
        return redis.Redis(port=self.sentinel.primary_port, socket_timeout=10)

    def start(self) -> None:
        for process in (self.primary, self.replica):
            process.start()

    def wait_ready(self) -> None:
        self.primary.wait_ready()
        self.replica.wait_ready()
        block_until(lambda: self.has_replica, within_s=60, what="the replica to follow")
        self.sentinel.start()
        block_until(lambda: self.sentinel.knows_both, within_s=60, what="the sentinel to know both")

    def close(self) -> None:
        for process in (self.sentinel, self.replica, self.primary):
            process.close()

    @property
    def has_replica(self) -> bool:
        """Is one of the two a connected replica of the other?"""
        roles = []
        for server in (self.primary, self.replica):
            with server.client() as direct:
                roles.append(direct.role())
        links = [role[3] for role in roles if role[0] == b"slave"]
        return links == [b"connected"]


def _named(reply: Any) -> dict[str, str]:
    """A sentinel's description of a server: alternating names and values, or a dict made by redis-py."""
    if isinstance(reply, dict):
        return {str(name): str(value) for name, value in reply.items()}
    texts = [text.decode() if isinstance(text, bytes) else str(text) for text in reply]
    return dict(zip(texts[::2], texts[1::2], strict=True))
