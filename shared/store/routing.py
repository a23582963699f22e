"""What a gateway must know of an account to route its events: keys, channels and bindings, with one version.

Each gateway keeps a compiled copy and checks its version, and a change is answered when every check from
before it has run out: so it is honoured by the next publish through any gateway.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from enum import StrEnum
from typing import Any

from shared.model.bindings import Source
from shared.model.errors import KeyRevoked
from shared.model.routing_table import RoutingTable
from shared.redis.pipeline import Argument, RedisCommands
from shared.store import keyspace
from shared.store.routing_table_cache import FRESH_S, SPREAD_S, Compile, RoutingTableCache


class Added(StrEnum):
    """What came of adding a line."""

    ADDED = "added"
    PRESENT = "present"
    FULL = "full"


class Routing:
    """Reads and changes the table of accounts. `compile_bindings` turns what is stored into patterns."""

    def __init__(
        self,
        redis: RedisCommands,
        compile_bindings: Compile,
        *,
        fresh_s: float = FRESH_S,
        spread_s: float = SPREAD_S,
    ) -> None:
        self._redis = redis
        self._spread_s = spread_s
        self._copies = RoutingTableCache(redis, compile_bindings, fresh_s=fresh_s)

    async def table(self, account_id: str) -> RoutingTable:
        """The account's table as they stand now."""
        [table] = await self._copies.current(account_id)
        return table

    async def tables_for_publish(self, account_id: str) -> tuple[RoutingTable, RoutingTable]:
        """The account's table as they stand now, and those of who asks for the events of all accounts."""
        table, of_all = await self._copies.current(account_id, keyspace.EVERY)
        return table, of_all

    async def add_key(self, account_id: str, api_key_id: str) -> None:
        await self._set(account_id, f"key:{api_key_id}", "", only_with="")

    async def add_expiry(self, account_id: str, api_key_id: str, *, expires_at_ms: int) -> None:
        """From then on nothing is queued for the key. Raises KeyRevoked when it has gone meanwhile."""
        field = f"expires:{api_key_id}"
        await self._set(account_id, field, str(expires_at_ms), only_with=f"key:{api_key_id}")

    async def drop_key(self, account_id: str, api_key_id: str, *, generation: str) -> None:
        """Forgets the key, its bindings and, if it had one, its channel."""
        kinds = ("key", "expires", Source.PRESUBSCRIPTIONS, Source.RESOURCES, Source.TOPICS)
        fields = [f"{kind}:{api_key_id}" for kind in kinds]
        await self._drop(account_id, [*fields, f"channel:{api_key_id}:{generation}"])

    async def add_channel(self, account_id: str, api_key_id: str, *, generation: str) -> None:
        """Raises KeyRevoked when the key has gone meanwhile.

        Each generation has a field of its own, so that late words about an old one touch no newer.
        """
        field = f"channel:{api_key_id}:{generation}"
        await self._set(account_id, field, "", only_with=f"key:{api_key_id}")

    async def drop_channel(self, account_id: str, api_key_id: str, *, generation: str) -> None:
        await self._drop(account_id, [f"channel:{api_key_id}:{generation}"])

    async def bindings(
        self, account_id: str, api_key_id: str, source: Source = Source.PRESUBSCRIPTIONS
    ) -> bytes | None:
        """The bindings of an API key from one source, as they were stored."""
        found: bytes | None = await self._redis.command(
            "HGET", keyspace.routing(account_id), f"{source}:{api_key_id}"
        )
        return found

    async def put_bindings(
        self,
        account_id: str,
        api_key_id: str,
        bindings: bytes,
        *,
        source: Source = Source.PRESUBSCRIPTIONS,
    ) -> None:
        """Raises KeyRevoked when the key has gone meanwhile."""
        await self._set(account_id, f"{source}:{api_key_id}", bindings, only_with=f"key:{api_key_id}")

    async def drop_bindings(
        self, account_id: str, api_key_id: str, source: Source = Source.PRESUBSCRIPTIONS
    ) -> None:
        await self._drop(account_id, [f"{source}:{api_key_id}"])

    async def add_line(
        self, account_id: str, api_key_id: str, line: str, *, source: Source, limit: int
    ) -> Added:
        """Adds a line, with its line end, to bindings that are stored as lines, unless there are `limit`.

        Raises KeyRevoked when the key has gone meanwhile.
        """
        field, key_field = f"{source}:{api_key_id}", f"key:{api_key_id}"
        word = await self._change("routing_add_line", account_id, field, line, key_field, limit)
        if word == b"revoked":
            raise KeyRevoked
        return Added(word.decode())

    async def drop_lines(self, account_id: str, api_key_id: str, beginning: str, *, source: Source) -> None:
        """Drops the lines that begin so from bindings that are stored as lines."""
        await self._change("routing_drop_lines", account_id, f"{source}:{api_key_id}", beginning)

    async def put_session(self, account_id: str, session_id: str, wanted: bytes) -> None:
        """What a session asks for of this account's events, from now on."""
        await self._set(account_id, f"{Source.SESSION}:{session_id}", wanted, only_with="")

    async def drop_session(self, account_id: str, session_id: str) -> None:
        await self._drop(account_id, [f"{Source.SESSION}:{session_id}"])

    async def session_ids(self, account_id: str) -> list[str]:
        """The sessions that the table name, right or not."""
        fields = await self._redis.command("HKEYS", keyspace.routing(account_id))
        named = (field.decode().partition(":") for field in fields)
        return [name for kind, _, name in named if kind == Source.SESSION]

    async def learn_device_types(self, account_id: str, types: Mapping[str, str | None]) -> None:
        """Remembers the type of each device; None forgets it."""
        name = keyspace.device_types(account_id)
        known = [part for device, kind in types.items() if kind is not None for part in (device, kind)]
        gone = [device for device, kind in types.items() if kind is None]
        if known:
            await self._redis.command("HSET", name, *known)
        if gone:
            await self._redis.command("HDEL", name, *gone)

    async def device_types(self, account_id: str, devices: Sequence[str]) -> dict[str, str]:
        """The types of those devices that have told theirs."""
        found = await self._redis.command("HMGET", keyspace.device_types(account_id), *devices)
        return {
            device: kind.decode() for device, kind in zip(devices, found, strict=True) if kind is not None
        }

    async def accounts(self) -> AsyncIterator[list[str]]:
        """The ids of all accounts with table, in lots, as `RedisCommands.scan` finds them."""
        async for names in self._redis.scan(keyspace.routing("*")):
            yield [keyspace.id_in(name) for name in names]

    async def entries(self, account_id: str) -> tuple[list[str], list[tuple[str, str]]]:
        """What the table name, right or not: API keys, and channels as (API key, generation)."""
        keys, channels = list[str](), list[tuple[str, str]]()
        for field in await self._redis.command("HKEYS", keyspace.routing(account_id)):
            kind, _, name = field.decode().partition(":")
            if kind == "key":
                keys.append(name)
            elif kind == "channel":
                api_key_id, _, generation = name.partition(":")
                channels.append((api_key_id, generation))
        return keys, channels

    async def _set(self, account_id: str, field: str, value: str | bytes, *, only_with: str) -> None:
        if not await self._change("routing_set", account_id, field, value, only_with):
            raise KeyRevoked

    async def _drop(self, account_id: str, fields: Sequence[str]) -> None:
        await self._change("routing_drop", account_id, *fields)

    async def _change(self, script: str, account_id: str, *arguments: Argument) -> Any:
        """Every change gives the table a version that never was and never will be another's."""
        names = [keyspace.routing(account_id), keyspace.routing_changes(account_id)]
        done = await self._redis.script(script, names, secrets.token_hex(8), *arguments)
        until_s = time.monotonic() + self._spread_s
        # The loop's own idea of the time may be as old as its turn.
        while (left_s := until_s - time.monotonic()) > 0:  # noqa: ASYNC110  # nobody tells when it is time
            await asyncio.sleep(left_s)
        return done
