"""Reconciliation: a slow walk over every name in Redis, for what no step of a crashed process left right.

It makes channels due that have no due time (of an earlier release, or whose Redis lost writes), repairs
routing tables that name something gone or lack something present, and finds sessions of dead edges that no
index names. It is paced, goes on in the next round, and keeps its place in Redis: a restart does not begin it
anew.
"""

import asyncio
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from services.composition import Stores
from services.expiry_reaper.orphans import Orphans
from services.expiry_reaper.turn import Pace, Turn
from shared.model.channels import Kind, instance_of
from shared.store import keyspace

logger = logging.getLogger(__name__)

_PAGE = 250
_LOT = 16
_FIELDS = 40
# What one of each costs in Redis commands, those of scripts too; rounded up.
_CHANNEL_COMMANDS = 5
_SESSION_COMMANDS = 5
_NATIVE_COMMANDS = 2
_FIELD_COMMANDS = 3
_ACCOUNT_COMMANDS = 2
_REPAIR_COMMANDS = 12
_NOTE_COMMANDS = 2

_BEGAN, _RUNS, _CURSOR, _AFTER, _TABLE = (
    "walk_began_ms",
    "walk_runs",
    "walk_cursor",
    "walk_after",
    "walk_fields",
)
_TABLE_NAME = b":routing"
_ACCOUNT_NAMES = keyspace.ACCOUNT_NAMES.encode()
_CHANNEL_NAMES = b":channel-names"
_FROM_THE_START: dict[str, str | int] = {_CURSOR: "", _AFTER: "", _TABLE: ""}


@dataclass(slots=True)
class Walked:
    """What the walk did in one round."""

    channels: int = 0
    made_due: int = 0
    repairs: int = 0
    is_complete: bool = False


class Walk:
    """Walks once in `every_ms`, at most so many Redis commands a second, also right after an upgrade."""

    def __init__(
        self,
        stores: Stores,
        orphans: Orphans,
        *,
        every_ms: int,
        commands_per_s: float,
        heartbeat_ttl_ms: int,
        instances_kept_ms: int,
    ) -> None:
        self._stores = stores
        self._orphans = orphans
        self._every_ms = every_ms
        self._pace = Pace(per_s=commands_per_s)
        self._ttl_ms = heartbeat_ttl_ms
        self._instances_kept_ms = instances_kept_ms

    async def walk_on(self, turn: Turn, notes: Mapping[str, str], *, until_s: float) -> Walked:
        """Goes on with the walk until `took_s` of the turn, or begins one when it is time.

        Raises RoundLost, StoreUnavailable: the next round goes on from the last place that was kept.
        """
        done = Walked()
        place: dict[str, str | int] = {name: notes.get(name, "") for name in _FROM_THE_START}
        if notes.get(_RUNS) != "1":
            if turn.now_ms - int(notes.get(_BEGAN, 0)) < self._every_ms:
                return done
            place = dict(_FROM_THE_START)
            await turn.note({**place, _BEGAN: turn.now_ms, _RUNS: 1})
            await self._stores.replicas.forget(before_ms=turn.now_ms - self._instances_kept_ms)
        while not done.is_complete:
            await self._page(turn, place, done, until_s=until_s)
            if turn.took_s >= until_s:
                break
        if done.is_complete:
            facts = {"channels": done.channels, "made_due": done.made_due, "repairs": done.repairs}
            logger.info("reconciliation.ended", extra={"facts": facts})
        return done

    async def _page(self, turn: Turn, place: dict[str, str | int], done: Walked, *, until_s: float) -> None:
        """The rest of the page at the walk's place, or a part of it."""
        following, names = await self._stores.names.page(str(place[_CURSOR]), count=_PAGE)
        await self._pace.spend(1)
        # Sorted: the same page comes again after a restart, perhaps in another order.
        left = sorted(name for name in names if name > str(place[_AFTER]).encode())
        for lot in _lots(left):
            if lot[0] == _ACCOUNT_NAMES or lot[0].endswith(_CHANNEL_NAMES):
                if not await self._drop_stale_names(lot[0], turn, place, until_s=until_s):
                    return
            elif not lot[0].endswith(_TABLE_NAME):
                await self._check(lot, turn, done)
            elif not await self._repair_table(lot[0], turn, place, done, until_s=until_s):
                return
            await self._keep_place(place, {_AFTER: lot[-1].decode(errors="replace")}, turn)
            if turn.took_s >= until_s:
                return
        done.is_complete = not following
        runs = {_RUNS: 0} if done.is_complete else {}
        await self._keep_place(place, {**_FROM_THE_START, _CURSOR: following, **runs}, turn)

    async def _keep_place(
        self, place: dict[str, str | int], change: Mapping[str, str | int], turn: Turn
    ) -> None:
        await turn.keep()
        place.update(change)
        await turn.note(change)
        await self._pace.spend(_NOTE_COMMANDS)

    async def _check(self, names: Sequence[bytes], turn: Turn, done: Walked) -> None:
        channels = [keyspace.id_in(name) for name in names if name.endswith(b":channel")]
        sessions = [keyspace.id_in(name) for name in names if name.endswith(b":session")]
        accounts = [keyspace.id_in(name) for name in names if name.endswith(b":account")]
        edges = [keyspace.id_in(name) for name in names if name.endswith(b":held-sessions")]
        repairs = sum(await asyncio.gather(*map(self._check_channel, channels)))
        done.made_due += await self._stores.due_channels.add_missing(channels)
        done.channels += len(channels)
        await self._stores.api_keys.names.add_missing(accounts)
        done.repairs += repairs
        for session in sessions:
            await self._check_session(session, turn)
        for instance in edges:
            if await self._is_dead(instance, turn):
                await self._orphans.drop_of(instance, turn, until_s=turn.took_s + 1)
        await self._pace.spend(
            _CHANNEL_COMMANDS * len(channels)
            + _SESSION_COMMANDS * (len(sessions) + len(edges))
            + _ACCOUNT_COMMANDS * len(accounts)
            + _REPAIR_COMMANDS * repairs
        )

    async def _check_channel(self, channel: str) -> int:
        """Adds the channel to what should name it; 1 if something did not, else 0."""
        stores = self._stores
        ref = await stores.channels.ref(channel)
        if not ref.account or ref.kind is None or ref.is_unfinished:
            return 0
        is_named = await stores.routing.has_channel(ref.account, channel, generation=ref.generation)
        is_swept = ref.kind is not Kind.WEBHOOK or await stores.channels.is_swept(channel, ref.generation)
        repairs = 0
        if not (is_named and is_swept):
            # Its creator may have died before it wrote these.
            await stores.routing.add_key(ref.account, channel)
            await stores.channels.index(ref.account, channel, kind=ref.kind, generation=ref.generation)
            repairs = 1
        if ref.native is not None:
            repairs += await stores.account_channels.repair(ref.native)
            await self._pace.spend(_NATIVE_COMMANDS)
        return repairs

    async def _check_session(self, session_id: str, turn: Turn) -> None:
        session = await self._stores.sessions.read(session_id)
        if session is None:
            return
        if await self._is_dead(instance_of(session.owner), turn):
            await self._stores.sessions.drop(session)
            await self._pace.spend(_REPAIR_COMMANDS)
        else:
            await self._stores.sessions.index(session)

    async def _is_dead(self, instance: str, turn: Turn) -> bool:
        return turn.is_steady_for(self._ttl_ms) and not (await turn.instances([instance]))[instance].live

    async def _repair_table(
        self, name: bytes, turn: Turn, place: dict[str, str | int], done: Walked, *, until_s: float
    ) -> bool:
        """Drops what names a missing key, channel or session. False when the time is over."""
        account = keyspace.id_in(name)
        while True:
            following, keys, channels, sessions = await self._stores.routing.names_page(
                account, str(place[_TABLE]), count=_FIELDS
            )
            repairs = await self._drop_gone(account, keys, channels)
            repairs += await self._drop_lost(account, sessions)
            done.repairs += repairs
            named = len({*keys, *(key for key, _ in channels)}) + len(sessions)
            await self._pace.spend(1 + _FIELD_COMMANDS * named + _REPAIR_COMMANDS * repairs)
            await self._keep_place(place, {_TABLE: following}, turn)
            if not following:
                return True
            if turn.took_s >= until_s:
                return False

    async def _drop_stale_names(
        self, index: bytes, turn: Turn, place: dict[str, str | int], *, until_s: float
    ) -> bool:
        """Drops names of accounts or channels that are gone or have another one. False when the time is
        over."""
        drop = self._stores.api_keys.names.drop_stale
        if index != _ACCOUNT_NAMES:
            drop = partial(self._stores.account_channels.names.drop_stale, keyspace.id_in(index))
        while True:
            following = await drop(str(place[_TABLE]), count=_FIELDS)
            await self._pace.spend(_FIELDS + 1)
            await self._keep_place(place, {_TABLE: following}, turn)
            if not following:
                return True
            if turn.took_s >= until_s:
                return False

    async def _drop_gone(self, account: str, keys: Sequence[str], channels: Sequence[tuple[str, str]]) -> int:
        ids = sorted({*keys, *(key for key, _ in channels)})
        refs = dict(zip(ids, await asyncio.gather(*map(self._stores.channels.ref, ids)), strict=True))
        gone = [key for key in keys if not refs[key].account]
        stale = [(key, generation) for key, generation in channels if refs[key].generation != generation]
        for key in gone:
            await self._stores.routing.drop_key(account, key, generation="")
        for key, generation in stale:
            await self._stores.routing.drop_channel(account, key, generation=generation)
        return len(gone) + len(stale)

    async def _drop_lost(self, account: str, session_ids: Sequence[str]) -> int:
        known = await asyncio.gather(*map(self._stores.sessions.is_known, session_ids))
        lost = [each for each, is_known in zip(session_ids, known, strict=True) if not is_known]
        for session_id in lost:
            await self._stores.routing.drop_session(account, session_id)
        return len(lost)


def _lots(names: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """Lots of names in their order. What may take more than one round is alone."""
    lot: list[bytes] = []
    for name in names:
        if name.endswith((_TABLE_NAME, _CHANNEL_NAMES)) or name == _ACCOUNT_NAMES:
            if lot:
                yield lot
            yield [name]
            lot = []
            continue
        lot.append(name)
        if len(lot) == _LOT:
            yield lot
            lot = []
    if lot:
        yield lot
