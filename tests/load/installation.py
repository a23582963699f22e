"""The measured installation: started by the harness, or already running."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.harness.stack import Stack, running_stack
from tests.load.processes import Watched
from tests.load.redis_work import RedisWork, work_of


@dataclass(frozen=True, slots=True)
class Installation:
    """URLs and known processes. `stack` is set if the harness started it."""

    gateways: Sequence[str]
    edges: Sequence[str]
    admin_token: str
    watched: tuple[Watched, ...]
    stack: Stack | None = None

    @property
    def redis_work(self) -> RedisWork | None:
        """The counters of all primaries; None for an installation that was already running."""
        return None if self.stack is None else work_of(self.stack.redis)


@dataclass(frozen=True, slots=True)
class Size:
    """The number of processes of each kind, and how Redis is reached and writes."""

    gateways: int = 1
    edges: int = 1
    dispatchers: int = 0
    appendfsync: str = "everysec"
    tcp: bool = True


@contextlib.contextmanager
def own_installation(size: Size) -> Iterator[Installation]:
    """Starts the services as separate processes on a Valkey with an append-only file; ends them all."""
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
        yield Installation(
            gateways=[service.url for service in stack.gateways],
            edges=[service.url for service in stack.edges],
            admin_token=stack.admin_token,
            watched=(*watched, Watched("redis", "redis", stack.valkey.pid)),
            stack=stack,
        )
