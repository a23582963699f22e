"""What is measured: an installation of the harness's own, or one that runs already."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.harness.stack import Stack, running_stack
from tests.load.processes import Watched


@dataclass(frozen=True, slots=True)
class RedisWork:
    """How many commands Redis carried out, those in scripts included, and how often it read a connection."""

    commands: int
    reads: int

    def since(self, before: "RedisWork") -> "RedisWork":
        return RedisWork(self.commands - before.commands, self.reads - before.reads)


@dataclass(frozen=True, slots=True)
class Site:
    """Where it answers, and the processes that are known of it. `stack` is there when it is ours."""

    gateways: Sequence[str]
    edges: Sequence[str]
    admin_token: str
    watched: tuple[Watched, ...]
    stack: Stack | None = None

    @property
    def redis_work(self) -> RedisWork | None:
        """What Redis has done so far; None when it cannot be asked."""
        if self.stack is None:
            return None
        client = self.stack.valkey.client()
        try:
            told = client.info("stats")
        finally:
            client.close()
        return RedisWork(int(told["total_commands_processed"]), int(told["total_reads_processed"]))


@dataclass(frozen=True, slots=True)
class Size:
    """How many processes of each kind an installation has, and how its Redis is reached and writes."""

    gateways: int = 1
    edges: int = 1
    dispatchers: int = 0
    appendfsync: str = "everysec"
    tcp: bool = True


@contextlib.contextmanager
def own_site(size: Size) -> Iterator[Site]:
    """Starts real processes, each apart, on a Valkey with an append-only file; ends them all."""
    with running_stack(
        gateways=size.gateways,
        edges=size.edges,
        dispatchers=size.dispatchers,
        appendfsync=size.appendfsync,
        tcp=size.tcp,
        ALLOW_PRIVATE_CALLBACKS=1,
    ) as stack:
        roles = {"gateway": stack.gateways, "edge": stack.edges, "dispatcher": stack.dispatchers}
        watched = [
            Watched(service.name, role, service.pid)
            for role, services in roles.items()
            for service in services
        ]
        yield Site(
            gateways=[service.url for service in stack.gateways],
            edges=[service.url for service in stack.edges],
            admin_token=stack.admin_token,
            watched=(*watched, Watched("redis", "redis", stack.valkey.pid)),
            stack=stack,
        )
