"""A gateway's copies of accounts' table: the version of each is checked before it is used.

A check is good for milliseconds, and whoever changes table waits for longer before the change is answered:
so no publish that begins after the answer is served by what stood before.
A copy that is a few versions behind reads only the fields that changed since, as the log of changes tells.
Where the log cannot vouch for that, because it is too short or Redis has lost writes, all is read anew.
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

_COPIES = 1000
# Others get their turn of the event loop after as many fields, or as many bytes of bindings.
_FIELDS_A_TURN = 500
_BYTES_A_TURN = 32 * 1024
# So many fields are worth sparing the garbage collector.
_LARGE = 20_000
# So long a check is good. It began before Redis answered, so it has ended when a change is answered.
FRESH_S = 0.005
SPREAD_S = 0.006

Compile = Callable[[Source, bytes], tuple[Pattern, ...]]


@dataclass(slots=True)
class _Copy:
    table: RoutingTable | None = None
    fresh_until_s: float = 0.0
    updating: asyncio.Lock = field(default_factory=asyncio.Lock)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Keeps the garbage collector from walking what is made meanwhile, now and later.

    RoutingTable are trees, without cycles, so reference counts free them. Walking a million places of them again
    and again while they grow would stop the event loop for half a second each time.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


class RoutingTableCache:
    """The accounts used last. `compile_bindings` turns what is stored of one source into patterns."""

    def __init__(self, redis: RedisCommands, compile_bindings: Compile, *, fresh_s: float = FRESH_S) -> None:
        self._redis = redis
        self._fresh_s = fresh_s
        self._compile = compile_bindings
        self._copies: OrderedDict[str, _Copy] = OrderedDict()

    async def current(self, *account_ids: str) -> list[RoutingTable]:
        """The accounts' table: as they stood at some time since it was asked, or newer."""
        now_s = time.monotonic()
        fresh = [self._if_fresh(i, now_s) for i in account_ids]
        # They are under way together.
        looks = [
            self._redis.read("HGET", keyspace.routing(i), "version") if table is None else None
            for i, table in zip(account_ids, fresh, strict=True)
        ]
        found = []
        for account_id, table, look in zip(account_ids, fresh, looks, strict=True):
            if look is not None:
                version = (await look or b"").decode()
                table = await self._as_of(account_id, version, looked_s=now_s)
            assert table is not None
            found.append(table)
        return found

    def _if_fresh(self, account_id: str, now_s: float) -> RoutingTable | None:
        copy = self._copies.get(account_id)
        return copy.table if copy is not None and now_s < copy.fresh_until_s else None

    async def _as_of(self, account_id: str, version: str, *, looked_s: float) -> RoutingTable:
        copy = self._copies.setdefault(account_id, _Copy())
        self._copies.move_to_end(account_id)
        if len(self._copies) > _COPIES:
            self._copies.popitem(last=False)
        if copy.table is None or copy.table.version != version:
            async with copy.updating:
                # Whoever updated it while we waited may have reached the version we saw.
                if copy.table is None or copy.table.version != version:
                    copy.fresh_until_s = 0.0
                    copy.table = await self._updated(account_id, copy.table)
        if copy.table.version is not None:
            copy.fresh_until_s = max(copy.fresh_until_s, looked_s + self._fresh_s)
        return copy.table

    async def _updated(self, account_id: str, table: RoutingTable | None) -> RoutingTable:
        if table is not None and table.version is not None:
            names = [keyspace.routing(account_id), keyspace.routing_changes(account_id)]
            word, *changes = await self._redis.script("routing_changes", names, table.version)
            if word == b"changed":
                telemetry.routing_reads.add(1, {"what": "changes"})
                version = changes[0].decode()
                # Until every change is in, and for good if we are interrupted, it stands for no version.
                table.version = None
                await self._take(table, zip(changes[1::2], changes[2::2], strict=True))
                table.version = version
                return table
        telemetry.routing_reads.add(1, {"what": "all"})
        fields = int(await self._redis.command("HLEN", keyspace.routing(account_id)))
        with _uncollected() if fields > _LARGE else nullcontext():
            return await self._read_anew(account_id)

    async def _read_anew(self, account_id: str) -> RoutingTable:
        stored = await self._redis.command("HGETALL", keyspace.routing(account_id))
        pairs = stored.items() if isinstance(stored, dict) else zip(stored[::2], stored[1::2], strict=True)
        fresh = RoutingTable()
        version = await self._take(fresh, pairs)
        fresh.version = version
        return fresh

    async def _take(self, table: RoutingTable, pairs: Iterable[tuple[bytes, bytes | None]]) -> str:
        """Puts fields as they stand (None: gone) into the table, in turns; the version, if it is there."""
        version = ""
        fields = size = 0
        for name, value in pairs:
            if name == b"version":
                version = (value or b"").decode()
                continue
            self._take_one(table, name.decode(), value)
            fields += 1
            size += len(value or b"")
            if fields >= _FIELDS_A_TURN or size >= _BYTES_A_TURN:
                fields = size = 0
                await asyncio.sleep(0)
        return version

    def _take_one(self, table: RoutingTable, name: str, value: bytes | None) -> None:
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
