"""What a gateway must know of an account to route its events: keys, channels and bindings, with one version.

Each gateway keeps a compiled copy and checks the version before every publish, so a change that was
answered is honoured by the next publish through any gateway.
"""

import secrets
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

from shared.model.bindings import Fields
from shared.model.errors import KeyRevoked
from shared.model.routes import Routes
from shared.store import keyspace
from shared.store.calls import Calls

_COPIES = 1000


class Routing:
    """Reads and changes the routes of accounts. `compile_bindings` turns a stored binding into patterns."""

    def __init__(self, calls: Calls, compile_bindings: Callable[[bytes], tuple[Fields, ...]]) -> None:
        self._calls = calls
        self._compile = compile_bindings
        self._copies: OrderedDict[str, Routes] = OrderedDict()

    async def routes(self, account_id: str) -> Routes:
        """The account's routes as they stand now."""
        name = keyspace.routes(account_id)
        version = (await self._calls.command("HGET", name, "version") or b"").decode()
        copy = self._copies.get(account_id)
        if copy is None or copy.version != version:
            copy = self._compiled(await self._calls.command("HGETALL", name))
            self._copies[account_id] = copy
        self._copies.move_to_end(account_id)
        if len(self._copies) > _COPIES:
            self._copies.popitem(last=False)
        return copy

    def _compiled(self, stored: Sequence[bytes] | Mapping[bytes, bytes]) -> Routes:
        pairs = stored.items() if isinstance(stored, Mapping) else zip(stored[::2], stored[1::2], strict=True)
        version, api_keys, expiring = "", set[str](), dict[str, int]()
        channels, bindings = set[str](), dict[str, tuple[Fields, ...]]()
        for field, value in pairs:
            kind, _, name = field.decode().partition(":")
            api_key_id = name[:32]
            match kind:
                case "version":
                    version = value.decode()
                case "key":
                    api_keys.add(api_key_id)
                    if value:
                        expiring[api_key_id] = int(value)
                case "channel":
                    channels.add(api_key_id)
                case "bindings":
                    bindings[api_key_id] = self._compile(value)
        return Routes(
            version=version,
            api_keys=frozenset(api_keys),
            channels=frozenset(channels),
            bindings=bindings,
            expiring=expiring,
        )

    async def add_key(self, account_id: str, api_key_id: str, *, expires_at_ms: int | None = None) -> None:
        expires = "" if expires_at_ms is None else str(expires_at_ms)
        await self._set(account_id, f"key:{api_key_id}", expires, only_with="")

    async def drop_key(self, account_id: str, api_key_id: str, *, incarnation: str) -> None:
        """Forgets the key, its bindings and, if it had one, its channel."""
        fields = [f"key:{api_key_id}", f"bindings:{api_key_id}", f"channel:{api_key_id}:{incarnation}"]
        await self._drop(account_id, fields)

    async def add_channel(self, account_id: str, api_key_id: str, *, incarnation: str) -> None:
        """Raises KeyRevoked when the key has gone meanwhile.

        Each incarnation has a field of its own, so that late words about an old one touch no newer.
        """
        field = f"channel:{api_key_id}:{incarnation}"
        await self._set(account_id, field, "", only_with=f"key:{api_key_id}")

    async def drop_channel(self, account_id: str, api_key_id: str, *, incarnation: str) -> None:
        await self._drop(account_id, [f"channel:{api_key_id}:{incarnation}"])

    async def bindings(self, account_id: str, api_key_id: str) -> bytes | None:
        """The bindings of an API key, as they were stored."""
        found: bytes | None = await self._calls.command(
            "HGET", keyspace.routes(account_id), f"bindings:{api_key_id}"
        )
        return found

    async def put_bindings(self, account_id: str, api_key_id: str, bindings: bytes) -> None:
        """Raises KeyRevoked when the key has gone meanwhile."""
        await self._set(account_id, f"bindings:{api_key_id}", bindings, only_with=f"key:{api_key_id}")

    async def drop_bindings(self, account_id: str, api_key_id: str) -> None:
        await self._drop(account_id, [f"bindings:{api_key_id}"])

    async def learn_device_types(self, account_id: str, types: Mapping[str, str | None]) -> None:
        """Remembers the type of each device; None forgets it."""
        name = keyspace.device_types(account_id)
        known = [part for device, kind in types.items() if kind is not None for part in (device, kind)]
        gone = [device for device, kind in types.items() if kind is None]
        if known:
            await self._calls.command("HSET", name, *known)
        if gone:
            await self._calls.command("HDEL", name, *gone)

    async def device_types(self, account_id: str, devices: Sequence[str]) -> dict[str, str]:
        """The types of those devices that have told theirs."""
        found = await self._calls.command("HMGET", keyspace.device_types(account_id), *devices)
        return {
            device: kind.decode() for device, kind in zip(devices, found, strict=True) if kind is not None
        }

    async def accounts(self) -> AsyncIterator[list[str]]:
        """The ids of all accounts with routes, in lots. One may come twice, or not at all if it is new."""
        cursor: bytes | int = 0
        while True:
            pattern = keyspace.routes("*")
            cursor, names = await self._calls.command("SCAN", cursor, "MATCH", pattern, "COUNT", 1000)
            if names:
                yield [keyspace.id_in(name) for name in names]
            if int(cursor) == 0:
                return

    async def mentioned(self, account_id: str) -> tuple[list[str], list[tuple[str, str]]]:
        """What the routes name, right or not: API keys, and channels as (API key, incarnation)."""
        keys, channels = list[str](), list[tuple[str, str]]()
        for field in await self._calls.command("HKEYS", keyspace.routes(account_id)):
            kind, _, name = field.decode().partition(":")
            if kind == "key":
                keys.append(name)
            elif kind == "channel":
                api_key_id, _, incarnation = name.partition(":")
                channels.append((api_key_id, incarnation))
        return keys, channels

    async def _set(self, account_id: str, field: str, value: str | bytes, *, only_with: str) -> None:
        names = [keyspace.routes(account_id)]
        if not await self._calls.script("route_set", names, _new_version(), field, value, only_with):
            raise KeyRevoked

    async def _drop(self, account_id: str, fields: Sequence[str]) -> None:
        await self._calls.script("route_drop", [keyspace.routes(account_id)], _new_version(), *fields)


def _new_version() -> str:
    return secrets.token_hex(8)
