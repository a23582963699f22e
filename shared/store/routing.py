"""Routing tables: the API keys, channels and bindings of an account, under one version.

Each gateway caches compiled tables and checks their versions. A change returns only after every earlier check
has run out, so the next publish through any gateway honours it.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, cast

from shared.model.bindings import Source
from shared.model.errors import KeyRevoked
from shared.model.routing_table import RoutingTable
from shared.redis.pipeline import Argument, RedisCommands
from shared.store import keyspace
from shared.store.routing_table_cache import FRESH_S, SPREAD_S, Compile, RoutingTableCache


class Routing:
    """Reads and changes routing tables. `compile_bindings` turns stored bindings into patterns."""

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
        self._cache = RoutingTableCache(redis, compile_bindings, fresh_s=fresh_s)

    async def table(self, account_id: str) -> RoutingTable:
        """The account's present table."""
        [table] = await self._cache.current(account_id)
        return table

    async def tables_for_publish(self, account_id: str) -> tuple[RoutingTable, RoutingTable]:
        """The account's present table, and the one of sessions that want the events of all accounts."""
        table, every = await self._cache.current(account_id, keyspace.EVERY)
        return table, every

    async def add_key(self, account_id: str, api_key_id: str) -> None:
        await self._set(account_id, f"key:{api_key_id}", "", only_with="")

    async def add_expiry(self, account_id: str, api_key_id: str, *, expires_at_ms: int) -> None:
        """Nothing is queued for the key from then on. Raises KeyRevoked when it is gone."""
        field = f"expires:{api_key_id}"
        await self._set(account_id, field, str(expires_at_ms), only_with=f"key:{api_key_id}")

    async def drop_key(self, account_id: str, api_key_id: str, *, generation: str) -> None:
        """Removes the key, its bindings and its channel."""
        kinds = ("key", "expires", Source.PRESUBSCRIPTIONS, Source.RESOURCES, Source.TOPICS)
        fields = [f"{kind}:{api_key_id}" for kind in kinds]
        await self._drop(account_id, *fields, f"channel:{api_key_id}:{generation}")

    async def add_channel(self, account_id: str, api_key_id: str, *, generation: str) -> None:
        """Raises KeyRevoked when the key is gone.

        Each generation has its own field: a late removal of an old one leaves the new one.
        """
        field = f"channel:{api_key_id}:{generation}"
        await self._set(account_id, field, "", only_with=f"key:{api_key_id}")

    async def drop_channel(self, account_id: str, api_key_id: str, *, generation: str) -> None:
        await self._drop(account_id, f"channel:{api_key_id}:{generation}")

    async def bindings(
        self, account_id: str, api_key_id: str, source: Source = Source.PRESUBSCRIPTIONS
    ) -> bytes | None:
        """The stored bindings of an API key from one source."""
        field = f"{source}:{api_key_id}"
        return cast(bytes | None, await self._redis.command("HGET", keyspace.routing(account_id), field))

    async def put_bindings(
        self,
        account_id: str,
        api_key_id: str,
        bindings: bytes,
        source: Source = Source.PRESUBSCRIPTIONS,
    ) -> None:
        """Raises KeyRevoked when the key is gone."""
        await self._set(account_id, f"{source}:{api_key_id}", bindings, only_with=f"key:{api_key_id}")

    async def drop_bindings(
        self, account_id: str, api_key_id: str, source: Source = Source.PRESUBSCRIPTIONS
    ) -> None:
        await self._drop(account_id, f"{source}:{api_key_id}")

    async def add_line(
        self, account_id: str, api_key_id: str, line: str, *, source: Source, limit: int
    ) -> bool:
        """Adds a line (with its line end) to bindings that are stored as lines. Does not add it twice.

        False when there are `limit` lines. Raises KeyRevoked when the key is gone.
        """
        field, key_field = f"{source}:{api_key_id}", f"key:{api_key_id}"
        status = await self._change("routing_add_line", account_id, field, line, key_field, limit)
        if status == b"revoked":
            raise KeyRevoked
        return bool(status != b"full")

    async def drop_lines(self, account_id: str, api_key_id: str, prefix: str, *, source: Source) -> None:
        """Removes the lines with this prefix from bindings that are stored as lines."""
        await self._change("routing_drop_lines", account_id, f"{source}:{api_key_id}", prefix)

    async def put_session(self, account_id: str, session_id: str, bindings: bytes) -> None:
        """Replaces a session's bindings for this account's events."""
        await self._set(account_id, f"{Source.SESSION}:{session_id}", bindings, only_with="")

    async def drop_session(self, account_id: str, session_id: str) -> None:
        await self._drop(account_id, f"{Source.SESSION}:{session_id}")

    async def learn_device_types(self, account_id: str, types: Mapping[str, str | None]) -> None:
        """Stores the type of each device; None deletes it."""
        name = keyspace.device_types(account_id)
        known = [part for device, kind in types.items() if kind is not None for part in (device, kind)]
        gone = [device for device, kind in types.items() if kind is None]
        if known:
            await self._redis.command("HSET", name, *known)
        if gone:
            await self._redis.command("HDEL", name, *gone)

    async def device_types(self, account_id: str, devices: Sequence[str]) -> dict[str, str]:
        """The known types of these devices."""
        types = await self._redis.command("HMGET", keyspace.device_types(account_id), *devices)
        known = zip(devices, types, strict=True)
        return {device: kind.decode() for device, kind in known if kind is not None}

    async def accounts(self) -> AsyncIterator[list[str]]:
        """The ids of all accounts with a table, in pages, as `RedisCommands.scan` finds them."""
        async for names in self._redis.scan(keyspace.routing("*")):
            yield [keyspace.id_in(name) for name in names]

    async def entries(self, account_id: str) -> tuple[list[str], list[tuple[str, str]], list[str]]:
        """What the table names, also what is gone: API keys, channels as (API key, generation), sessions."""
        keys, channels, sessions = list[str](), list[tuple[str, str]](), list[str]()
        for field in await self._redis.command("HKEYS", keyspace.routing(account_id)):
            kind, _, rest = field.decode().partition(":")
            if kind == "key":
                keys.append(rest)
            elif kind == "channel":
                api_key_id, _, generation = rest.partition(":")
                channels.append((api_key_id, generation))
            elif kind == Source.SESSION:
                sessions.append(rest)
        return keys, channels, sessions

    async def _set(self, account_id: str, field: str, value: str | bytes, *, only_with: str) -> None:
        if not await self._change("routing_set", account_id, field, value, only_with):
            raise KeyRevoked

    async def _drop(self, account_id: str, *fields: str) -> None:
        await self._change("routing_drop", account_id, *fields)

    async def _change(self, script: str, account_id: str, *arguments: Argument) -> Any:
        """Gives the table a new random version, and waits until gateways no longer trust the old one."""
        names = [keyspace.routing(account_id), keyspace.routing_changes(account_id)]
        reply = await self._redis.script(script, names, secrets.token_hex(8), *arguments)
        until_s = time.monotonic() + self._spread_s
        # One sleep may end early: the loop's clock can be as old as its turn.
        while (left_s := until_s - time.monotonic()) > 0:  # noqa: ASYNC110
            await asyncio.sleep(left_s)
        return reply
