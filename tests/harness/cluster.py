"""A real Redis Cluster on one machine: primaries that share the slots, and replicas of some."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import redis
from redis.crc import key_slot

from tests.harness.processes import free_port
from tests.harness.valkey import Valkey
from tests.harness.waiting import block_until

SLOTS = 16_384


class Node(Valkey):
    """One node of a cluster."""

    def __init__(self, folder: Path, name: str, *, timeout_ms: int, more: dict[str, str]) -> None:
        self.bus_port = free_port()
        options = {
            "cluster-enabled": "yes",
            "cluster-port": str(self.bus_port),
            "cluster-node-timeout": str(timeout_ms),
            "cluster-require-full-coverage": "no",
            "repl-diskless-sync-delay": "0",
            **more,
        }
        super().__init__(folder, tcp=True, name=name, more=options)

    @property
    def address(self) -> tuple[str, int]:
        return ("127.0.0.1", self.port)

    def ask(self, *command: object) -> Any:
        """The node's reply to one command, without redirections."""
        with self.client() as direct:
            return direct.execute_command(*command)

    @property
    def id(self) -> str:
        return str(self.ask("CLUSTER", "MYID").decode())

    @property
    def role(self) -> str:
        return str(self.ask("ROLE")[0].decode())

    @property
    def state(self) -> dict[str, str]:
        """CLUSTER INFO of this node."""
        lines = self.ask("CLUSTER", "INFO").decode().splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)


class Cluster:
    """Has the interface of `Valkey`, for tests that run on either."""

    def __init__(
        self,
        folder: Path,
        *,
        primaries: int = 3,
        replicas: int = 0,
        timeout_ms: int = 1_000,
        more: dict[str, str] | None = None,
    ) -> None:
        def node(name: str) -> Node:
            return Node(folder, name, timeout_ms=timeout_ms, more=more or {})

        self.primaries = [node(f"primary-{n}") for n in range(primaries)]
        self.replicas = [node(f"replica-{n}") for n in range(replicas)]
        # arq's keys and pipelines span slots.
        self.jobs = Valkey(folder, name="jobs", tcp=True)

    @property
    def nodes(self) -> list[Node]:
        return [*self.primaries, *self.replicas]

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    @property
    def settings(self) -> dict[str, str]:
        """The settings with which services reach it."""
        return {"REDIS_URL": self.url, "JOBS_REDIS_URL": self.jobs.url}

    def settings_for(self, service: str) -> dict[str, str]:
        """The settings with which this service reaches it; here all services are the same user."""
        return self.settings

    def client(self) -> Any:
        """A blocking client for commands with keys; values are bytes."""
        return redis.RedisCluster(host="127.0.0.1", port=self.primaries[0].port, socket_timeout=10)

    def start(self) -> None:
        for server in (*self.nodes, self.jobs):
            server.start()

    def wait_ready(self) -> None:
        """Joins the nodes to a cluster, and waits until all of them agree."""
        for server in (*self.nodes, self.jobs):
            server.wait_ready()
        for number, (node, (first, last)) in enumerate(zip(self.primaries, self._shares(), strict=True)):
            node.ask("CLUSTER", "ADDSLOTSRANGE", first, last)
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        first_node = self.primaries[0]
        for node in self.nodes[1:]:
            node.ask("CLUSTER", "MEET", "127.0.0.1", first_node.port, first_node.bus_port)
        block_until(lambda: all(self._knows_all(node) for node in self.nodes), what="the nodes to meet")
        for replica, primary in zip(self.replicas, self.primaries, strict=False):
            replica.ask("CLUSTER", "REPLICATE", primary.id)
        block_until(self._is_whole, within_s=60, what="the cluster to be whole")

    def close(self) -> None:
        for server in (*self.nodes, self.jobs):
            server.close()

    def primary_of(self, key: str) -> Node:
        """The node that owned the key's slot at the start."""
        slot = key_slot(key.encode())
        for node, (first, last) in zip(self.primaries, self._shares(), strict=True):
            if first <= slot <= last:
                return node
        raise AssertionError("every slot has a node")

    def _shares(self) -> Iterator[tuple[int, int]]:
        count = len(self.primaries)
        for number in range(count):
            yield SLOTS * number // count, SLOTS * (number + 1) // count - 1

    def _knows_all(self, node: Node) -> bool:
        return int(node.state["cluster_known_nodes"]) == len(self.nodes)

    def _is_whole(self) -> bool:
        def is_connected(replica: Node) -> bool:
            return replica.role == "slave" and replica.ask("ROLE")[3] == b"connected"

        return all(
            node.state["cluster_state"] == "ok" and int(node.state["cluster_slots_assigned"]) == SLOTS
            for node in self.nodes
        ) and all(map(is_connected, self.replicas))


@contextlib.contextmanager
def running_cluster(**options: Any) -> Iterator[Cluster]:
    """A running cluster in a temporary folder."""
    folder = Path(tempfile.mkdtemp(prefix="notify-"))
    cluster = Cluster(folder, **options)
    try:
        cluster.start()
        cluster.wait_ready()
        yield cluster
    finally:
        cluster.close()
        shutil.rmtree(folder, ignore_errors=True)
