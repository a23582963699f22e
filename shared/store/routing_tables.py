"""A gateway's cache of routing tables. A publish reads a table's version beside its appends (shared/publish).

A table that is behind reads only the fields that changed, from the log of changes. It is read in full when
the log is too short, or has a gap because Redis lost writes.
"""

import asyncio
import gc
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

from shared import telemetry
from shared.model.bindings import Pattern, Source
from shared.model.routing_table import RoutingTable
from shared.redis.pipeline import RedisCommands
from shared.store import keyspace

# A table without bindings takes about 3 KB.
_MAX_TABLES = 10_000
# Yield to the event loop after as many fields, or as many bytes of bindings.
_FIELDS_PER_TURN = 500
_BYTES_PER_TURN = 32 * 1024
# From so many fields on the garbage collector is paused while a table is built.
_LARGE = 20_000

_EVERY = keyspace.routing(keyspace.EVERY)

Compile = Callable[[Source, bytes], tuple[Pattern, ...]]


@dataclass(slots=True)
class _Cached:
    table: RoutingTable | None = None
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


@dataclass(frozen=True, slots=True)
class Versions:
    """The versions of an account's table and of the table of all accounts, being read.

    Others read them with the same futures: never cancel one.
    """

    own: asyncio.Future[bytes | None]
    every: asyncio.Future[list[bytes | None]]

    async def wait(self) -> None:
        """Until they are read. Raises StoreUnavailable."""
        await asyncio.gather(asyncio.shield(self.own), asyncio.shield(self.every))

    @property
    def of_tables(self) -> tuple[str, str]:
        """Once they are read: '' is the version of an empty table."""
        return (self.own.result() or b"").decode(), (self.every.result()[0] or b"").decode()

    @property
    def of_credentials(self) -> bytes:
        """Changes after each revocation and each new secret of an API key."""
        return self.every.result()[1] or b""

    @property
    def of_quotas(self) -> bytes:
        """Changes with each change of an account's quotas."""
        return self.every.result()[2] or b""


class RoutingTables:
    """The tables of the accounts used last. `compile_bindings` turns stored bindings into patterns."""

    def __init__(self, redis: RedisCommands, compile_bindings: Compile) -> None:
        self._redis = redis
        self._compile = compile_bindings
        self._cached: OrderedDict[str, _Cached] = OrderedDict()

    def cached(self, account_id: str) -> tuple[RoutingTable | None, RoutingTable | None]:
        """The account's table and the table of all accounts; they may be behind.

        None for one that is not in memory, or is being updated.
        """
        cached, every = self._cached.get(account_id), self._cached.get(keyspace.EVERY)
        if cached is None or every is None:
            return None, None
        self._cached.move_to_end(account_id)
        table, of_all = cached.table, every.table
        return (
            None if table is None or table.version is None else table,
            None if of_all is None or of_all.version is None else of_all,
        )

    def versions(self, account_id: str) -> "Versions":
        """The present versions of both."""
        read = self._redis.read
        return Versions(
            read("HGET", keyspace.routing(account_id), "version"),
            read("HMGET", _EVERY, "version", "credentials", "quotas"),
        )

    async def read(self, account_id: str) -> None:
        """Brings both tables up to date."""
        versions = self.versions(account_id)
        await versions.wait()
        own, every = versions.of_tables
        await asyncio.gather(self._at_version(account_id, own), self._at_version(keyspace.EVERY, every))

    async def _at_version(self, account_id: str, version: str) -> None:
        """Reads the account's table again, unless it has this version."""
        cached = self._cached.setdefault(account_id, _Cached())
        self._cached.move_to_end(account_id)
        if len(self._cached) > _MAX_TABLES:
            self._evict()
        if cached.table is None or cached.table.version != version:
            async with cached.updating:
                # Another task may have updated it meanwhile.
                if cached.table is None or cached.table.version != version:
                    cached.table = await self._updated(account_id, cached.table)

    def _evict(self) -> None:
        """Drops the table that was used least recently; the one of all accounts stays."""
        self._cached.move_to_end(keyspace.EVERY)
        self._cached.popitem(last=False)

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
                table.add_key(api_key_id, bindings_version=(value or b"").decode())
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
