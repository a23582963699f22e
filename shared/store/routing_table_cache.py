"""A gateway's cache of routing tables. It checks a table's version before it uses the table.

A check holds for FRESH_S, and a change returns only after SPREAD_S, which is longer: a publish that begins
after a change never uses the table before it.
A table that is behind reads only the fields that changed, from the log of changes. It is read in full when
the log is too short, or has a gap because Redis lost writes.
"""

import asyncio
import gc
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

from shared import telemetry
from shared.model.bindings import Pattern, Source
from shared.model.routing_table import RoutingTable
from shared.redis.pipeline import RedisCommands
from shared.store import keyspace

_MAX_TABLES = 1000
# Yield to the event loop after as many fields, or as many bytes of bindings.
_FIELDS_PER_TURN = 500
_BYTES_PER_TURN = 32 * 1024
# From so many fields on the garbage collector is paused while a table is built.
_LARGE = 20_000
# How long a check holds, from before it was sent; and how long a change waits.
FRESH_S = 0.005
SPREAD_S = 0.006

Compile = Callable[[Source, bytes], tuple[Pattern, ...]]


@dataclass(slots=True)
class _Cached:
    table: RoutingTable | None = None
    fresh_until_s: float = 0.0
    updating: asyncio.Lock = field(default_factory=asyncio.Lock)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Keeps the garbage collector from walking the objects made meanwhile, then and later.

    Tables have no cycles: reference counts free them. The collector would walk a million objects again and
    again while they grow, and stop the event loop for half a second each time.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


class RoutingTableCache:
    """The tables of the accounts used last. `compile_bindings` turns stored bindings into patterns."""

    def __init__(self, redis: RedisCommands, compile_bindings: Compile, *, fresh_s: float = FRESH_S) -> None:
        self._redis = redis
        self._fresh_s = fresh_s
        self._compile = compile_bindings
        self._cached: OrderedDict[str, _Cached] = OrderedDict()

    async def current(self, *account_ids: str) -> list[RoutingTable]:
        """The accounts' tables, as of the call or later."""
        now_s = time.monotonic()
        tables = [self._if_fresh(i, now_s) for i in account_ids]
        # Send all reads before the first await: they share a pipeline.
        reads = {
            i: self._redis.read("HGET", keyspace.routing(i), "version")
            for i, table in zip(account_ids, tables, strict=True)
            if table is None
        }
        return [
            table or await self._at_version(i, (await reads[i] or b"").decode(), checked_s=now_s)
            for i, table in zip(account_ids, tables, strict=True)
        ]

    def _if_fresh(self, account_id: str, now_s: float) -> RoutingTable | None:
        cached = self._cached.get(account_id)
        return cached.table if cached is not None and now_s < cached.fresh_until_s else None

    async def _at_version(self, account_id: str, version: str, *, checked_s: float) -> RoutingTable:
        cached = self._cached.setdefault(account_id, _Cached())
        self._cached.move_to_end(account_id)
        if len(self._cached) > _MAX_TABLES:
            self._cached.popitem(last=False)
        if cached.table is None or cached.table.version != version:
            async with cached.updating:
                # Another task may have updated it meanwhile.
                if cached.table is None or cached.table.version != version:
                    cached.fresh_until_s = 0.0
                    cached.table = await self._updated(account_id, cached.table)
        if cached.table.version is not None:
            cached.fresh_until_s = max(cached.fresh_until_s, checked_s + self._fresh_s)
        return cached.table

    async def _updated(self, account_id: str, table: RoutingTable | None) -> RoutingTable:
        if table is not None and table.version is not None:
            names = [keyspace.routing(account_id), keyspace.routing_changes(account_id)]
            status, *changes = await self._redis.script("routing_changes", names, table.version)
            if status == b"changed":
                telemetry.routing_reads.add(1, {"what": "changes"})
                version = changes[0].decode()
                # Until every change is in, the table has no version: a cancelled update must not pass for
                # one.
                table.version = None
                await self._apply(table, zip(changes[1::2], changes[2::2], strict=True))
                table.version = version
                return table
        telemetry.routing_reads.add(1, {"what": "all"})
        fields = int(await self._redis.command("HLEN", keyspace.routing(account_id)))
        with _uncollected() if fields > _LARGE else nullcontext():
            return await self._read(account_id)

    async def _read(self, account_id: str) -> RoutingTable:
        stored = await self._redis.command("HGETALL", keyspace.routing(account_id))
        table = RoutingTable()
        table.version = await self._apply(table, zip(stored[::2], stored[1::2], strict=True))
        return table

    async def _apply(self, table: RoutingTable, pairs: Iterable[tuple[bytes, bytes | None]]) -> str:
        """Applies fields (None: deleted) to the table, in turns of the loop; returns the version or ''."""
        version = ""
        fields = size = 0
        for name, value in pairs:
            if name == b"version":
                version = (value or b"").decode()
                continue
            self._apply_field(table, name.decode(), value)
            fields += 1
            size += len(value or b"")
            if fields >= _FIELDS_PER_TURN or size >= _BYTES_PER_TURN:
                fields = size = 0
                await asyncio.sleep(0)
        return version

    def _apply_field(self, table: RoutingTable, name: str, value: bytes | None) -> None:
        kind, _, rest = name.partition(":")
        api_key_id, _, generation = rest.partition(":")
        match kind:
            case "key" if value is None:
                table.drop_key(api_key_id)
            case "key":
                table.add_key(api_key_id)
            case "expires":
                table.expire(api_key_id, None if value is None else int(value))
            case "channel" if value is None:
                table.drop_channel(api_key_id, generation)
            case "channel":
                table.add_channel(api_key_id, generation)
            case Source.SESSION:
                table.listen(rest, () if value is None else self._compile(Source.SESSION, value))
            case Source.PRESUBSCRIPTIONS | Source.RESOURCES | Source.TOPICS:
                source = Source(kind)
                table.bind(api_key_id, source, () if value is None else self._compile(source, value))
