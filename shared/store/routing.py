"""Routing tables: the API keys, channels and bindings of an account, under one version.

A publish reads the version beside its appends, so that a gateway notices every change that was answered
before (shared/publish). Each append also names the version of its channel's bindings, and the channel's
script refuses any other: an answered removal holds, however old the gateway's table is. So a change of
bindings is complete only when the channel has their new version too.
"""

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

from shared.model.account_channels import ChannelRecord
from shared.model.bindings import Source, Topic
from shared.model.errors import KeyRevoked, NoSuchAccount
from shared.model.idempotency import Deadline
from shared.model.routing_table import RoutingTable
from shared.redis.pipeline import Argument, RedisCommands
from shared.store import keyspace
from shared.store.device_types import MOST_DEVICES, DeviceTypes
from shared.store.routing_tables import (
    NATIVE,
    STREAMS,
    Compile,
    RoutingTables,
    native_entry,
    parse_native,
    revision_in,
)


class Routing:
    """Reads and changes routing tables. `compile_bindings` turns stored bindings into patterns."""

    def __init__(
        self,
        redis: RedisCommands,
        compile_bindings: Compile,
        *,
        most_devices: int = MOST_DEVICES,
        on_grown: Callable[[str, int], None] = lambda *_: None,
    ) -> None:
        """`on_grown` gets an account, and by how many bytes its device types have grown."""
        self._redis = redis
        self._compile = compile_bindings
        self._device_types = DeviceTypes(redis, most_devices=most_devices, on_grown=on_grown)
        self.tables = RoutingTables(redis, compile_bindings)

    async def change_credentials(self) -> None:
        """Makes every gateway and edge read the API keys that it knows again."""
        names = [keyspace.routing(keyspace.EVERY)]
        await self._redis.script("credentials_change", names, new_version())

    async def credentials_version(self) -> bytes:
        """Changes after each revocation and each new secret of an API key."""
        return await self._redis.command("HGET", keyspace.routing(keyspace.EVERY), "credentials") or b""

    async def add_key(self, account_id: str, api_key_id: str) -> bool:
        """False when the account is being deleted."""
        try:
            await self._set(account_id, f"key:{api_key_id}", new_version(), only_with="")
        except KeyRevoked:
            return False
        return True

    async def add_expiry(self, account_id: str, api_key_id: str, *, expires_at_ms: int) -> None:
        """Nothing is queued for the key from then on. Raises KeyRevoked when it is gone."""
        field = f"expires:{api_key_id}"
        await self._set(account_id, field, str(expires_at_ms), only_with=_key(api_key_id))

    async def drop_key(self, account_id: str, api_key_id: str, *, generation: str) -> None:
        """Removes the key, its bindings and its channel."""
        kinds = ("key", "expires", "native", Source.PRESUBSCRIPTIONS, Source.RESOURCES, Source.TOPICS)
        fields = [f"{kind}:{api_key_id}" for kind in kinds]
        await self._drop(account_id, *fields, _channel(api_key_id, generation))

    async def enter(self, record: ChannelRecord, *, generation: str, version: str, bindings: bytes) -> bool:
        """Enters a native channel with its bindings; the channel has this version of them already.

        False when the name is not the channel's in the index. Raises NoSuchAccount when the account is being
        deleted.
        """
        fields = (native_entry(record), bindings, record.name)
        status = await self._change(
            "routing_enter", record.account_id, record.id, generation, *fields, version=version
        )
        if status == b"gone":
            raise NoSuchAccount
        return bool(status == b"entered")

    async def set_native(self, record: ChannelRecord) -> bool:
        """Changes the name and the customer of a native channel: events by these are matched anew.

        False when the name is not the channel's in the index. A newer revision in the table stays.
        Raises KeyRevoked when the channel has ended.
        """
        status = await self._change_bindings(
            *("routing_native", record.account_id, record.id),
            *(record.id, record.name, record.revision, native_entry(record)),
        )
        return bool(status == b"set")

    async def native(self, account_id: str, channel: str) -> tuple[str, str] | None:
        """The name and the customer of a native channel ('' without one), as the table has them."""
        entry = await self._redis.command("HGET", keyspace.routing(account_id), f"{NATIVE}:{channel}")
        return None if entry is None else parse_native(entry)

    async def table_of_channel(self, account_id: str, channel: str) -> RoutingTable | None:
        """What a native channel wants now, as the routing table has it; None when that names it no more."""
        fields = (f"{Source.TOPICS}:{channel}", f"{NATIVE}:{channel}")
        topics, native = await self._redis.command("HMGET", keyspace.routing(account_id), *fields)
        return None if native is None else self.tables.of_channel(channel, topics, native)

    async def native_revision(self, account_id: str, channel: str) -> int:
        """Of which revision of a native channel's record the table is; 0 without the channel."""
        entry = await self._redis.command("HGET", keyspace.routing(account_id), f"{NATIVE}:{channel}")
        return 0 if entry is None else revision_in(entry)

    async def api_keys(self, account_id: str) -> list[str]:
        """The ids of all API keys: native channels have the same fields."""
        fields = await self._fields(keyspace.routing(account_id))
        natives = {f.partition(b":")[2] for f in fields if f.startswith(b"native:")}
        keys = (f.removeprefix(b"key:") for f in fields if f.startswith(b"key:"))
        return [key.decode() for key in keys if key not in natives]

    async def add_channel(self, account_id: str, api_key_id: str, *, generation: str) -> None:
        """Raises KeyRevoked when the key is gone.

        Each generation has its own field: a late removal of an old one leaves the new one. The bindings get a
        version that no older generation has had: a publish that one has refused must not reach the next one
        behind a later publish.
        """
        key_field = _key(api_key_id)
        version = await self._set(
            account_id,
            _channel(api_key_id, generation),
            "",
            only_with=key_field,
            is_of_bindings=_IS_OF_BINDINGS,
        )
        await self.confirm_bindings(account_id, api_key_id, seen=generation, version=version)

    async def drop_channel(self, account_id: str, api_key_id: str, *, generation: str) -> None:
        await self._drop(account_id, _channel(api_key_id, generation))

    async def bindings(
        self, account_id: str, api_key_id: str, source: Source = Source.PRESUBSCRIPTIONS
    ) -> bytes | None:
        """The stored bindings of an API key from one source."""
        field = f"{source}:{api_key_id}"
        return cast(bytes | None, await self._redis.command("HGET", keyspace.routing(account_id), field))

    async def bound_topics(self, account_id: str, api_key_id: str, topics: Iterable[str]) -> set[str]:
        """Those of the topics that the API key is bound to, by its topic bindings without conditions.

        A reader of a stream gets every event of its topic.
        """
        stored = await self.bindings(account_id, api_key_id, Source.TOPICS)
        patterns = () if stored is None else self._compile(Source.TOPICS, stored)
        plain = [pattern for pattern in patterns if isinstance(pattern, Topic)]
        return {topic for topic in topics if any(pattern.matches(topic) for pattern in plain)}

    async def put_bindings(
        self,
        account_id: str,
        api_key_id: str,
        bindings: bytes,
        source: Source = Source.PRESUBSCRIPTIONS,
    ) -> None:
        """Raises KeyRevoked when the key is gone."""
        field, key_field = f"{source}:{api_key_id}", _key(api_key_id)
        await self._change_bindings(
            "routing_set", account_id, api_key_id, field, bindings, key_field, _IS_OF_BINDINGS
        )

    async def drop_bindings(
        self, account_id: str, api_key_id: str, source: Source = Source.PRESUBSCRIPTIONS
    ) -> None:
        field, key_field = f"{source}:{api_key_id}", _key(api_key_id)
        await self._change_bindings("routing_drop", account_id, api_key_id, key_field, field)

    async def add_line(
        self, account_id: str, api_key_id: str, line: str, *, source: Source, limit: int
    ) -> bool:
        """Adds a line (with its line end) to bindings that are stored as lines. Does not add it twice.

        False when there are `limit` lines. Raises KeyRevoked when the key is gone.
        """
        field, key_field = f"{source}:{api_key_id}", _key(api_key_id)
        status = await self._change_bindings(
            "routing_add_line", account_id, api_key_id, field, line, key_field, limit
        )
        return bool(status != b"full")

    async def drop_lines(self, account_id: str, api_key_id: str, prefix: str, *, source: Source) -> None:
        """Removes the lines with this prefix from bindings that are stored as lines."""
        field, key_field = f"{source}:{api_key_id}", _key(api_key_id)
        await self._change_bindings("routing_drop_lines", account_id, api_key_id, field, prefix, key_field)

    async def confirm_bindings(
        self, account_id: str, api_key_id: str, *, seen: str, version: str | None = None
    ) -> bool:
        """Gives the channel the version of its bindings in the routing table, if it has another one.

        False for a new channel that the table does not name yet: its first version comes with its name there.

        `seen` is a version that the channel has or had, `version` one that the table had later (None: to be
        read). The channel only moves on to later versions: each is read from the table after the one that it
        replaces was read from the channel, and replaces no other.
        """
        channel = keyspace.channel(api_key_id)
        while True:
            if version is None:
                fields = (_key(api_key_id), _channel(api_key_id, seen))
                (present, named), generation = await asyncio.gather(
                    self._redis.command("HMGET", keyspace.routing(account_id), *fields),
                    self._redis.command("HGET", channel, "generation"),
                )
                if named is None and generation is not None and generation.decode() == seen:
                    return False
                if present is None or present.decode() == seen:
                    # Without the key its channel goes too.
                    return True
                version = present.decode()
            found = await self._redis.script("channel_bind", [channel], seen, version)
            if found is None or found.decode() == version:
                return True
            seen, version = found.decode(), None

    async def stream_rules(self, account_id: str) -> bytes | None:
        """The rules of retained topics, in their stored form."""
        stored = await self._redis.command("HGET", keyspace.routing(account_id), STREAMS)
        return cast(bytes | None, stored)

    async def put_stream_rules(self, account_id: str, rules: bytes) -> None:
        """Replaces the rules of retained topics; b"" removes them. Raises NoSuchAccount."""
        if not rules:
            await self._drop(account_id, STREAMS)
            return
        try:
            await self._set(account_id, STREAMS, rules, only_with="")
        except KeyRevoked:
            raise NoSuchAccount from None

    async def put_session(self, account_id: str, session_id: str, bindings: bytes) -> None:
        """Replaces a session's bindings for this account's events, unless the account is being deleted."""
        with contextlib.suppress(KeyRevoked):
            await self._set(account_id, f"{Source.SESSION}:{session_id}", bindings, only_with="")

    async def drop_session(self, account_id: str, session_id: str) -> None:
        await self._drop(account_id, f"{Source.SESSION}:{session_id}")

    def learn_device_types(
        self, account_id: str, types: Mapping[str, str | None], *, deadline: Deadline | None = None
    ) -> list[asyncio.Future[Any]]:
        """As `DeviceTypes.learn`."""
        return self._device_types.learn(account_id, types, deadline=deadline)

    async def device_types(self, account_id: str, devices: Sequence[str]) -> dict[str, str]:
        """As `DeviceTypes.find`."""
        return await self._device_types.find(account_id, devices)

    async def has_channel(self, account_id: str, api_key_id: str, *, generation: str) -> bool:
        """Whether the table names the API key and its channel."""
        names = (_key(api_key_id), _channel(api_key_id, generation))
        version, named = await self._redis.command("HMGET", keyspace.routing(account_id), *names)
        return version is not None and named is not None

    async def names_page(
        self, account_id: str, cursor: str, *, count: int
    ) -> tuple[str, list[str], list[tuple[str, str]], list[str]]:
        """What `entries` returns, of about `count` fields, behind the next cursor: '' at the end."""
        following, found = await self._redis.command(
            "HSCAN", keyspace.routing(account_id), cursor or 0, "COUNT", count
        )
        return "" if int(following) == 0 else following.decode(), *_names_in(found[::2])

    async def entries(self, account_id: str) -> tuple[list[str], list[tuple[str, str]], list[str]]:
        """What the table names, also what is gone: API keys, channels as (API key, generation), sessions."""
        return _names_in(await self._fields(keyspace.routing(account_id)))

    async def _fields(self, name: str) -> list[bytes]:
        """The names of all fields, in steps: a table may be large. May miss what changes meanwhile."""
        fields: dict[bytes, None] = {}
        cursor: bytes | int = 0
        while True:
            cursor, stored = await self._redis.command("HSCAN", name, cursor, "COUNT", _PAGE_SIZE)
            # A scan may find a field twice.
            fields |= dict.fromkeys(stored[::2])
            if int(cursor) == 0:
                return list(fields)

    async def _set(
        self,
        account_id: str,
        field: str,
        value: str | bytes,
        *,
        only_with: str,
        is_of_bindings: int = 0,
    ) -> str:
        """Returns the version of the API key's bindings; '' without `only_with`."""
        status, *versions = await self._change(
            "routing_set", account_id, field, value, only_with, is_of_bindings
        )
        if status == b"revoked":
            raise KeyRevoked
        return str(versions[-1].decode())

    async def _drop(self, account_id: str, *fields: str) -> None:
        await self._change("routing_drop", account_id, "", *fields)

    async def _change_bindings(
        self, script: str, account_id: str, api_key_id: str, *arguments: Argument
    ) -> Any:
        """Changes bindings of an API key; returns the script's status."""
        status, *versions = await self._change(script, account_id, *arguments)
        if status == b"revoked":
            raise KeyRevoked
        if not versions:
            return status
        before, version = (each.decode() for each in versions)
        # Also without a change: its writer may have died before this line.
        await self.confirm_bindings(account_id, api_key_id, seen=before, version=version)
        return status

    async def _change(
        self, script: str, account_id: str, *arguments: Argument, version: str | None = None
    ) -> Any:
        """Gives the table a new random version, unless nothing changes."""
        names = names_for(script, account_id)
        return await self._redis.script(script, names, version or new_version(), *arguments)


_IS_OF_BINDINGS = 1
# What each script that changes a table takes as KEYS.
_NAMES = (keyspace.routing, keyspace.routing_changes, keyspace.counts)
_NAMES_OF = {
    "routing_set": (*_NAMES, keyspace.account, keyspace.channel_ids),
    "routing_enter": (*_NAMES, keyspace.account, keyspace.channel_ids, keyspace.names_of_channels),
    "routing_native": (*_NAMES, keyspace.account, keyspace.names_of_channels),
    "routing_drop": (*_NAMES, keyspace.channel_ids),
}
# Redis reads so many fields in one step.
_PAGE_SIZE = 250


def names_for(script: str, account_id: str) -> list[str]:
    """The KEYS of a script that changes a table."""
    return [name(account_id) for name in _NAMES_OF.get(script, _NAMES)]


def _names_in(fields: Iterable[bytes]) -> tuple[list[str], list[tuple[str, str]], list[str]]:
    keys, channels, sessions = list[str](), list[tuple[str, str]](), list[str]()
    for field in fields:
        kind, _, rest = field.decode().partition(":")
        if kind == "key":
            keys.append(rest)
        elif kind == "channel":
            api_key_id, _, generation = rest.partition(":")
            channels.append((api_key_id, generation))
        elif kind == Source.SESSION:
            sessions.append(rest)
    return keys, channels, sessions


def _key(api_key_id: str) -> str:
    return f"key:{api_key_id}"


def _channel(api_key_id: str, generation: str) -> str:
    return f"channel:{api_key_id}:{generation}"


def new_version() -> str:
    """Versions are random: a counter could repeat a number after Redis lost its last writes."""
    return secrets.token_hex(8)
