"""A gateway's cache of routing tables. A publish reads a table's version beside its appends (shared/publish).

A table that is behind reads only the fields that changed, from the log of changes. It is read in full when
the log is too short, or has a gap because Redis lost writes. A small table takes one round trip; a large one,
and a long log, take pages, so that neither Redis nor the event loop is held up.
"""

import asyncio
import gc
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import orjson

from shared import telemetry
from shared.model.account_channels import ChannelRecord
from shared.model.bindings import Pattern, Source
from shared.model.errors import StoreUnavailable
from shared.model.routing_table import RoutingTable
from shared.model.streams import rules_of
from shared.redis.pipeline import RedisCommands
from shared.store import keyspace
from shared.store.random_cache import RandomCache
from shared.store.shared_versions import Read, SharedVersions

# Of all tables that take up to `_SMALL_BYTES` of memory, and of all others: large ones push out no small one.
_SMALL_BYTES = 64 * 1024
_SMALL_TABLES_BYTES = 64 * 1024 * 1024
_LARGE_TABLES_BYTES = 256 * 1024 * 1024
# Redis reads so many fields in one step.
_FIELDS_PER_PAGE = 250
# A long read of a table whose log has gaps begins again.
_ATTEMPTS = 4
# Yield to the event loop after as many fields, or as many bytes of bindings.
_FIELDS_PER_TURN = 500
_BYTES_PER_TURN = 32 * 1024
# From so many fields on the garbage collector is paused while a table is built.
_LARGE = 20_000

_READ_EVERY = ("HMGET", keyspace.routing(keyspace.EVERY), "version", "credentials", "quotas")

Compile = Callable[[Source, bytes], tuple[Pattern, ...]]


class TablesKeepChanging(StoreUnavailable):
    """A table changed faster than it could be read."""

    def __init__(self) -> None:
        super().__init__(why="a routing table changes faster than it can be read")


@dataclass(slots=True, eq=False)
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


@dataclass(slots=True, eq=False)
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
    def of_credentials_and_quotas(self) -> tuple[bytes, bytes]:
        """The first changes after each revocation and each new secret of an API key, the other with each
        change of an account's quotas."""
        _, credentials, quotas = self.every.result()
        return credentials or b"", quotas or b""


class RoutingTables:
    """The tables of many accounts. `compile_bindings` turns stored bindings into patterns."""

    def __init__(self, redis: RedisCommands, compile_bindings: Compile) -> None:
        self._redis = redis
        self._compile = compile_bindings
        self._small: RandomCache[str, _Cached] = RandomCache(_SMALL_TABLES_BYTES)
        self._large: RandomCache[str, _Cached] = RandomCache(_LARGE_TABLES_BYTES)
        self._every = _Cached()
        # Being read for the first time: publishes of one account read it together.
        self._reading: dict[str, _Cached] = {}
        # Versions that wait to be read, by account.
        self._shared_versions: dict[str, SharedVersions] = {}
        self._every_read: Read | None = None

    def cached(self, account_id: str) -> tuple[RoutingTable | None, RoutingTable | None]:
        """The account's table and the table of all accounts; they may be behind.

        None for one that is not in memory, or is being updated.
        """
        cached = self._small.get(account_id) or self._large.get(account_id)
        if cached is None:
            return None, None
        table, of_all = cached.table, self._every.table
        return (
            None if table is None or table.version is None else table,
            None if of_all is None or of_all.version is None else of_all,
        )

    def versions(self, account_id: str) -> "Versions":
        """The present versions of both."""
        read = self._redis.read
        return Versions(read("HGET", keyspace.routing(account_id), "version"), read(*_READ_EVERY))

    def shared_versions(self, account_id: str) -> SharedVersions:
        """The same by callback, once for all that travel in the next pipeline."""
        every = self._every_read
        if every is None or every.is_sent:
            self._shared_versions.clear()
            every = self._every_read = Read(self._redis, *_READ_EVERY)
        versions = self._shared_versions.get(account_id)
        if versions is None or versions.is_sent:
            versions = SharedVersions(self._redis, account_id, every=every)
            self._shared_versions[account_id] = versions
        return versions

    async def read(self, account_id: str) -> None:
        """Brings both tables up to date. Raises StoreUnavailable."""
        cached = self._small.get(account_id) or self._large.get(account_id)
        if cached is None:
            # Its version comes with it: a table that is not in memory costs one round trip.
            await asyncio.gather(self._first(account_id), self._update_every())
            return
        versions = self.versions(account_id)
        await versions.wait()
        own = versions.of_tables[0]
        await asyncio.gather(self._update(account_id, cached, own), self._update_every(versions.every))

    async def _first(self, account_id: str) -> None:
        cached = self._reading.setdefault(account_id, _Cached())
        try:
            async with cached.updating:
                if cached.table is None:
                    cached.table = await self._whole(account_id)
                    self._keep(account_id, cached)
        finally:
            self._reading.pop(account_id, None)

    async def _update_every(self, read: asyncio.Future[list[bytes | None]] | None = None) -> None:
        """`read` is its version, if that is being read already."""
        version, *_ = await asyncio.shield(read or self._redis.read(*_READ_EVERY))
        await self._update(keyspace.EVERY, self._every, (version or b"").decode())

    async def _update(self, account_id: str, cached: _Cached, version: str) -> None:
        """Reads the account's table again, unless it has this version."""
        if cached.table is None or cached.table.version != version:
            async with cached.updating:
                # Another task may have updated it meanwhile.
                if cached.table is None or cached.table.version != version:
                    cached.table = await self._updated(account_id, cached.table)
                    self._keep(account_id, cached)

    def _keep(self, account_id: str, cached: _Cached) -> None:
        """Puts the table among those of its size."""
        if cached is self._every:
            return
        assert cached.table is not None
        size = cached.table.size_bytes
        is_small = size <= _SMALL_BYTES
        (self._large if is_small else self._small).drop(account_id)
        (self._small if is_small else self._large).put(account_id, cached, size=size)

    async def _updated(self, account_id: str, table: RoutingTable | None) -> RoutingTable:
        if table is not None and table.version is not None and await self._catch_up(account_id, table):
            return table
        return await self._whole(account_id)

    async def _catch_up(self, account_id: str, table: RoutingTable) -> bool:
        """Applies the changes since the table's version; False if the log does not lead back to it."""
        names = [keyspace.routing(account_id), keyspace.routing_changes(account_id)]
        known, at, back = table.version or "", "", 0
        version: str | None = None
        while True:
            status, *reply = await self._redis.script("routing_changes", names, known, at, back)
            if status != b"changed":
                return False
            version = version or reply[0].decode()
            # Until every change is in, the table has no version: a cancelled update must not pass for one.
            table.version = None
            await self._apply(table, zip(reply[3::2], reply[4::2], strict=True))
            at, back = reply[1].decode(), int(reply[2])
            if at == known:
                break
        telemetry.routing_reads.add(1, {"what": "changes"})
        table.version = version
        return True

    async def _whole(self, account_id: str) -> RoutingTable:
        telemetry.routing_reads.add(1, {"what": "all"})
        for _ in range(_ATTEMPTS):
            reply = await self._redis.script("routing_read", [keyspace.routing(account_id)], _FIELDS_PER_PAGE)
            if reply[0] == b"all":
                table = RoutingTable(orjson.loads)
                table.version = await self._apply(table, _pairs(reply[1:]))
                return table
            _, version, fields = reply
            table = RoutingTable(orjson.loads)
            with _uncollected() if int(fields) > _LARGE else nullcontext():
                await self._read_pages(account_id, table)
            # What has changed since the first page may be in the table or not. The log knows.
            table.version = version.decode()
            if await self._catch_up(account_id, table):
                return table
        raise TablesKeepChanging

    async def _read_pages(self, account_id: str, table: RoutingTable) -> None:
        cursor = b"0"
        while True:
            cursor, page = await self._redis.command(
                "HSCAN", keyspace.routing(account_id), cursor, "COUNT", _FIELDS_PER_PAGE
            )
            await self._apply(table, _pairs(page))
            if cursor == b"0":
                return

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

    def of_channel(self, channel: str, topics: bytes | None, native: bytes) -> RoutingTable:
        """A table of one native channel alone, of its fields in the table of its account."""
        table = RoutingTable(orjson.loads)
        for kind, value in (("key", b""), ("native", native), ("channel", b""), (Source.TOPICS, topics)):
            if value is not None:
                self._apply_field(table, f"{kind}:{channel}", value)
        return table

    def _apply_field(self, table: RoutingTable, name: str, value: bytes | None) -> None:
        kind, _, rest = name.partition(":")
        api_key_id, _, generation = rest.partition(":")
        match kind:
            case "key" if value is None:
                table.drop_key(api_key_id)
            case "key":
                table.add_key(api_key_id, bindings_version=(value or b"").decode())
            case "native" if value is None:
                table.drop_native(api_key_id)
            case "native":
                its_name, customer = parse_native(value or b"")
                table.set_native(api_key_id, name=its_name, customer=customer)
            case "expires":
                table.expire(api_key_id, None if value is None else int(value))
            case "channel" if value is None:
                table.drop_channel(api_key_id, generation)
            case "channel":
                table.add_channel(api_key_id, generation)
            case "streams":
                table.streams = None if value is None else rules_of(orjson.loads(value))
            case Source.SESSION:
                table.listen(rest, () if value is None else self._compile(Source.SESSION, value))
            case Source.PRESUBSCRIPTIONS | Source.RESOURCES | Source.TOPICS:
                source = Source(kind)
                table.bind(api_key_id, source, () if value is None else self._compile(source, value))


STREAMS = "streams"
"""The field with the rules of retained topics."""
NATIVE = "native"
"""Fields of this kind have the name and the customer of a native channel."""


def native_entry(record: ChannelRecord) -> bytes:
    """The field's value."""
    return orjson.dumps([record.name, record.customer, record.revision])


def native_entry_begins(name: str) -> bytes:
    """How every value of a channel with this name begins."""
    return b"[" + orjson.dumps(name) + b","


def parse_native(entry: bytes) -> tuple[str, str]:
    """The name and the customer, '' without one."""
    name, customer, *_ = orjson.loads(entry)
    return name, customer


def revision_in(entry: bytes) -> int:
    """The revision of the record that the value was made of."""
    return int(orjson.loads(entry)[2])


def _pairs(stored: Sequence[Any]) -> Iterable[tuple[bytes, bytes]]:
    return zip(stored[::2], stored[1::2], strict=True)
