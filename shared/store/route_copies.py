"""A gateway's copies of accounts' routes: the version of each is checked before it is used.

A check is good for milliseconds, and whoever changes routes waits for longer before the change is answered:
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
from shared.model.routes import Routes
from shared.store import keyspace
from shared.store.calls import Calls

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
    routes: Routes | None = None
    fresh_until_s: float = 0.0
    updating: asyncio.Lock = field(default_factory=asyncio.Lock)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Keeps the garbage collector from walking what is made meanwhile, now and later.

    Routes are trees, without cycles, so reference counts free them. Walking a million places of them again
    and again while they grow would stop the event loop for half a second each time.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


class RouteCopies:
    """The accounts used last. `compile_bindings` turns what is stored of one source into patterns."""

    def __init__(self, calls: Calls, compile_bindings: Compile, *, fresh_s: float = FRESH_S) -> None:
        self._calls = calls
        self._fresh_s = fresh_s
        self._compile = compile_bindings
        self._copies: OrderedDict[str, _Copy] = OrderedDict()

    async def current(self, *account_ids: str) -> list[Routes]:
        """The accounts' routes: as they stood at some time since it was asked, or newer."""
        now_s = time.monotonic()
        fresh = [self._if_fresh(i, now_s) for i in account_ids]
        # They are under way together.
        looks = [
            self._calls.look("HGET", keyspace.routes(i), "version") if routes is None else None
            for i, routes in zip(account_ids, fresh, strict=True)
        ]
        found = []
        for account_id, routes, look in zip(account_ids, fresh, looks, strict=True):
            if look is not None:
                version = (await look or b"").decode()
                routes = await self._as_of(account_id, version, looked_s=now_s)
            assert routes is not None
            found.append(routes)
        return found

    def _if_fresh(self, account_id: str, now_s: float) -> Routes | None:
        copy = self._copies.get(account_id)
        return copy.routes if copy is not None and now_s < copy.fresh_until_s else None

    async def _as_of(self, account_id: str, version: str, *, looked_s: float) -> Routes:
        copy = self._copies.setdefault(account_id, _Copy())
        self._copies.move_to_end(account_id)
        if len(self._copies) > _COPIES:
            self._copies.popitem(last=False)
        if copy.routes is None or copy.routes.version != version:
            async with copy.updating:
                # Whoever updated it while we waited may have reached the version we saw.
                if copy.routes is None or copy.routes.version != version:
                    copy.fresh_until_s = 0.0
                    copy.routes = await self._updated(account_id, copy.routes)
        if copy.routes.version is not None:
            copy.fresh_until_s = max(copy.fresh_until_s, looked_s + self._fresh_s)
        return copy.routes

    async def _updated(self, account_id: str, routes: Routes | None) -> Routes:
        if routes is not None and routes.version is not None:
            names = [keyspace.routes(account_id), keyspace.route_changes(account_id)]
            word, *changes = await self._calls.script("route_changes", names, routes.version)
            if word == b"changed":
                telemetry.routes_read.add(1, {"what": "changes"})
                version = changes[0].decode()
                # Until every change is in, and for good if we are interrupted, it stands for no version.
                routes.version = None
                await self._take(routes, zip(changes[1::2], changes[2::2], strict=True))
                routes.version = version
                return routes
        telemetry.routes_read.add(1, {"what": "all"})
        fields = int(await self._calls.command("HLEN", keyspace.routes(account_id)))
        with _uncollected() if fields > _LARGE else nullcontext():
            return await self._read_anew(account_id)

    async def _read_anew(self, account_id: str) -> Routes:
        stored = await self._calls.command("HGETALL", keyspace.routes(account_id))
        pairs = stored.items() if isinstance(stored, dict) else zip(stored[::2], stored[1::2], strict=True)
        fresh = Routes()
        version = await self._take(fresh, pairs)
        fresh.version = version
        return fresh

    async def _take(self, routes: Routes, pairs: Iterable[tuple[bytes, bytes | None]]) -> str:
        """Puts fields as they stand (None: gone) into the routes, in turns; the version, if it is there."""
        version = ""
        fields = size = 0
        for name, value in pairs:
            if name == b"version":
                version = (value or b"").decode()
                continue
            self._take_one(routes, name.decode(), value)
            fields += 1
            size += len(value or b"")
            if fields >= _FIELDS_A_TURN or size >= _BYTES_A_TURN:
                fields = size = 0
                await asyncio.sleep(0)
        return version

    def _take_one(self, routes: Routes, name: str, value: bytes | None) -> None:
        kind, _, rest = name.partition(":")
        api_key_id, _, incarnation = rest.partition(":")
        match kind:
            case "key" if value is None:
                routes.drop_key(api_key_id)
            case "key":
                routes.add_key(api_key_id)
            case "expires":
                routes.expire(api_key_id, None if value is None else int(value))
            case "channel" if value is None:
                routes.drop_channel(api_key_id, incarnation)
            case "channel":
                routes.add_channel(api_key_id, incarnation)
            case Source.SESSION:
                routes.listen(rest, () if value is None else self._compile(Source.SESSION, value))
            case Source.PRESUBSCRIPTIONS | Source.RESOURCES | Source.TOPICS:
                source = Source(kind)
                routes.bind(api_key_id, source, () if value is None else self._compile(source, value))
