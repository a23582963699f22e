"""Accounts with something of everything in their routes, every change to them, and watched gateways."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeAlias

from redis.asyncio import Redis

from shared.model.api_keys import new_id
from shared.model.bindings import Source
from shared.model.routing_table import RoutingTable
from shared.redis.pipeline import Argument, Pipeline, Script
from shared.store.routing import Added, Routing
from shared.wire.pelion.subscriptions import compiled
from tests.store.stores import Backend

ANY_DEVICE = b'[{"endpoint-name":"*"}]'
A_LAMP = b'[{"endpoint-name":"lamp","endpoint-type":"light"}]'
TOPICS = b'["orders.#"]'
LINE = "lamp\t/3/0\n"
OTHER = "0" * 32
Change: TypeAlias = Callable[[Routing, str, str], Awaitable[object]]


async def add_line(routing: Routing, account: str, key: str, line: str = "door\t/3\n") -> Added:
    return await routing.add_line(account, key, line, source=Source.RESOURCES, limit=9)


async def drop_lines(routing: Routing, account: str, key: str, beginning: str = "lamp\t") -> None:
    await routing.drop_lines(account, key, beginning, source=Source.RESOURCES)


CHANGES: dict[str, Change] = {
    "add a key": lambda routing, account, _: routing.add_key(account, new_id()),
    "drop a key": lambda routing, account, key: routing.drop_key(account, key, generation="1"),
    "add a channel": lambda routing, account, key: routing.add_channel(account, OTHER, generation="2"),
    "drop a channel": lambda routing, account, key: routing.drop_channel(account, key, generation="1"),
    "put bindings": lambda routing, account, key: routing.put_bindings(account, key, A_LAMP),
    "drop bindings": lambda routing, account, key: routing.drop_bindings(account, key),
    "put topics": lambda routing, account, key: routing.put_bindings(
        account, key, b'["a"]', source=Source.TOPICS
    ),
    "drop topics": lambda routing, account, key: routing.drop_bindings(account, key, Source.TOPICS),
    "add a line": add_line,
    "drop lines": drop_lines,
}


class WatchedCalls(Pipeline):
    """Remembers which commands and scripts read routes."""

    def __init__(self, redis: Redis, *, scripts: Mapping[str, Script]) -> None:
        super().__init__(redis, scripts=scripts)
        self.reads: list[object] = []
        self.looks = 0

    def read(self, *arguments: Argument) -> asyncio.Future[Any]:
        self.looks += 1
        return super().read(*arguments)

    def command(self, *arguments: Argument) -> asyncio.Future[Any]:
        if arguments[0] == "HGETALL":
            self.reads.append("all")
        return super().command(*arguments)

    def script(self, name: str, keys: Sequence[str], *arguments: Argument) -> asyncio.Future[Any]:
        if name == "routing_changes":
            self.reads.append("changes")
        return super().script(name, keys, *arguments)


class Gateway:
    """Another gateway, with a copy of its own."""

    def __init__(self, redis: Redis, backend: Backend) -> None:
        self.calls = WatchedCalls(redis, scripts=backend.scripts)
        self.routing = Routing(self.calls, compiled, fresh_s=0, spread_s=0)


def known(routes: RoutingTable) -> tuple[object, ...]:
    """All that routes say, as it is now."""
    bindings = {key: set(patterns) for key, patterns in routes.bindings.items()}
    return (routes.version, set(routes.api_keys), set(routes.channels), bindings, routes.needs_device_types)


async def one_of_each(routing: Routing, account: str) -> str:
    """An API key with a channel and bindings of every source; its id. `OTHER` is one without."""
    key = new_id()
    for each in (key, OTHER):
        await routing.add_key(account, each)
    await routing.add_channel(account, key, generation="1")
    await routing.put_bindings(account, key, ANY_DEVICE)
    await routing.put_bindings(account, key, TOPICS, source=Source.TOPICS)
    await add_line(routing, account, key, LINE)
    return key
