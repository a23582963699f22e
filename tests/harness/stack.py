"""A whole installation: Redis and the services, each in its own process."""

import contextlib
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from tests.harness import leaks
from tests.harness.cluster import Cluster
from tests.harness.processes import Service
from tests.harness.sentinel import Guarded
from tests.harness.valkey import Valkey

RedisLike: TypeAlias = Callable[[Path], Valkey | Cluster | Guarded]


@dataclass
class Stack:
    """A running installation."""

    folder: Path
    admin_token: str
    redis: Valkey | Cluster | Guarded
    gateways: list[Service]
    edges: list[Service]
    settings: dict[str, Any]
    reapers: list[Service] = field(default_factory=list)
    dispatchers: list[Service] = field(default_factory=list)

    @property
    def valkey(self) -> Valkey:
        """Its Valkey; skips the test on a cluster or behind a sentinel."""
        if not isinstance(self.redis, Valkey):
            pytest.skip("needs a single server")
        return self.redis

    @property
    def services(self) -> list[Service]:
        return [*self.gateways, *self.edges, *self.reapers, *self.dispatchers]

    def new_edge(self, name: str, **settings: object) -> Service:
        """Another edge, not yet started."""
        merged = {**self.redis.settings_for("socket-edge"), "REPLICA": name, **self.settings, **settings}
        return Service(name, "socket-edge", folder=self.folder, settings=merged, port_setting="EDGE_PORT")

    def new_gateway(self, name: str, **settings: object) -> Service:
        """Another gateway, not yet started."""
        token = {"ADMIN_TOKEN": self.admin_token}
        merged = {**self.redis.settings_for("gateway"), "REPLICA": name, **token, **self.settings, **settings}
        return Service(name, "gateway", folder=self.folder, settings=merged)

    def new_reaper(self, name: str, **settings: object) -> Service:
        """Another expiry-reaper, not yet started."""
        merged = {**self.redis.settings_for("expiry-reaper"), "REPLICA": name, **self.settings, **settings}
        return Service(name, "expiry-reaper", folder=self.folder, settings=merged, port_setting="REAPER_PORT")

    def new_dispatcher(self, name: str, **settings: object) -> Service:
        """Another webhook-dispatcher, not yet started."""
        merged = {
            **self.redis.settings_for("webhook-dispatcher"),
            "REPLICA": name,
            **self.settings,
            **settings,
        }
        return Service(
            name, "webhook-dispatcher", folder=self.folder, settings=merged, port_setting="DISPATCHER_PORT"
        )

    @contextlib.contextmanager
    def more_edges(self, *names: str, **settings: object) -> Iterator[list[Service]]:
        """Runs more edges, with these settings, during the block."""
        edges = [self.new_edge(name, **settings) for name in names]
        try:
            for edge in edges:
                edge.start()
            for edge in edges:
                edge.wait_ready()
            yield edges
        finally:
            for edge in edges:
                edge.close()


@contextlib.contextmanager
def running_stack(
    *,
    redis_like: RedisLike | None = None,
    gateways: int = 1,
    edges: int = 2,
    reapers: int = 0,
    dispatchers: int = 0,
    appendfsync: str = "everysec",
    maxmemory: str | None = None,
    tcp: bool = False,
    **settings: object,
) -> Iterator[Stack]:
    """Starts an installation, waits until it is ready, and ends it.

    `redis_like` replaces the single Valkey, for example `Cluster`.
    `settings` go to every service (`HEARTBEAT_S=1` is `NOTIFY_HEARTBEAT_S=1`).
    """
    folder = Path(tempfile.mkdtemp(prefix="notify-"))
    make = redis_like or partial(Valkey, appendfsync=appendfsync, maxmemory=maxmemory, tcp=tcp)
    redis = make(folder)
    stack = Stack(folder, secrets.token_hex(16), redis, [], [], dict(settings))
    try:
        redis.start()
        stack.gateways.extend(stack.new_gateway(f"gateway-{n}") for n in range(gateways))
        stack.edges.extend(stack.new_edge(f"edge-{n}") for n in range(edges))
        stack.reapers.extend(stack.new_reaper(f"reaper-{n}") for n in range(reapers))
        stack.dispatchers.extend(stack.new_dispatcher(f"dispatcher-{n}") for n in range(dispatchers))
        redis.wait_ready()
        for service in stack.services:
            service.start()
        for service in stack.services:
            service.wait_ready()
        yield stack
        leaks.assert_none_in_outputs(stack.services)
    finally:
        for service in stack.services:
            service.close()
        redis.close()
        shutil.rmtree(folder, ignore_errors=True)
