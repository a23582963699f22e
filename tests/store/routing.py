"""Routing tables for tests: one of each field, each kind of change, and gateways whose reads are recorded."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeAlias

from redis.asyncio import Redis

from shared.model.api_keys import new_id
from shared.model.bindings import Source
from shared.model.routing_table import RoutingTable
from shared.redis.pipeline import Argument, Pipeline, Script
from shared.store import keyspace
from shared.store.commands import HOOKS
from shared.store.routing import Routing
from shared.wire.pelion.subscriptions import compiled
from tests.store.stores import Backend

ANY_DEVICE = b'[{"endpoint-name":"*"}]'
A_LAMP = b'[{"endpoint-name":"lamp","endpoint-type":"light"}]'
TOPICS = b'["orders.#"]'
LINE = "lamp\t/3/0\n"
OTHER = "0" * 32
Change: TypeAlias = Callable[[Routing, str, str], Awaitable[object]]


async def add_line(routing: Routing, account: str, key: str, line: str = "door\t/3\n") -> bool:
    return await routing.add_line(account, key, line, source=Source.RESOURCES, limit=9)


async def drop_lines(routing: Routing, account: str, key: str, prefix: str = "lamp\t") -> None:
    await routing.drop_lines(account, key, prefix, source=Source.RESOURCES)


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


async def table_of(routing: Routing, account_id: str) -> RoutingTable:
    """The account's present table, as a publish reads it."""
    await routing.tables.read(account_id)
    table, _ = routing.tables.cached(account_id)
    assert table is not None
    return table


class RecordingPipeline(Pipeline):
    """Records how tables of accounts are read, and how often their versions."""

    def __init__(self, redis: Redis, *, scripts: Mapping[str, Script]) -> None:
        super().__init__(redis, scripts=scripts, hooks=HOOKS)
        self.reads: list[object] = []
        self.checks = 0

    def read(self, *arguments: Argument) -> asyncio.Future[Any]:
        self.checks += 1
        return super().read(*arguments)

    def script(self, name: str, keys: Sequence[str], *arguments: Argument) -> asyncio.Future[Any]:
        of_account = keys[0] != keyspace.routing(keyspace.EVERY)
        if of_account and name in ("routing_changes", "routing_read"):
            self.reads.append({"routing_changes": "changes", "routing_read": "all"}[name])
        return super().script(name, keys, *arguments)


class Gateway:
    """A gateway with a cache of its own."""

    def __init__(self, redis: Redis, backend: Backend) -> None:
        self.calls = RecordingPipeline(redis, scripts=backend.scripts)
        self.routing = Routing(self.calls, compiled)


def content_of(table: RoutingTable) -> tuple[object, ...]:
    """The present content of a table."""
    bindings = {key: set(patterns) for key, patterns in table.bindings.items()}
    return (table.version, set(table.api_keys), set(table.channels), bindings, table.device_type_patterns)


async def one_of_each(routing: Routing, account: str) -> str:
    """Adds a key with a channel and bindings of every source, and `OTHER` without; returns the key's id."""
    key = new_id()
    for each in (key, OTHER):
        await routing.add_key(account, each)
    await routing.add_channel(account, key, generation="1")
    await routing.put_bindings(account, key, ANY_DEVICE)
    await routing.put_bindings(account, key, TOPICS, source=Source.TOPICS)
    await add_line(routing, account, key, LINE)
    return key
