"""The names of an account's native channels: each belongs to one of them.

A name is taken before the channel's record is written, and once more after that. A gateway that finds it
taken by a channel whose record has no such name takes it away: its creation, its renaming or its end was cut
short. If that was not so, the second attempt of the other one finds the name taken, and undoes what it has
written. So no request waits for a crashed gateway.

The routing table lies beside the index. It takes a name only for the channel that has it here, in one step
(routing_enter.lua, routing_native.lua), and a name that it has is taken away from no channel. So two channels
never have one name there.
"""

import asyncio
from collections.abc import Awaitable, Callable

from shared.model.errors import NameTaken, NoSuchAccount
from shared.redis.pipeline import RedisCommands
from shared.store import keyspace
from shared.store.name_index import entry_of, id_in, name_in
from shared.store.routing_tables import native_entry_begins

# Each further one finds a name that has come to another channel meanwhile.
_ATTEMPTS = 5


class ChannelNames:
    """A sorted set of `<name> NUL <id>` in each account's slot."""

    def __init__(self, redis: RedisCommands) -> None:
        self._redis = redis

    async def take(
        self, account_id: str, name: str, channel: str, *, on_stale: Callable[[str], Awaitable[None]]
    ) -> None:
        """Gives the name to the channel, if it is free. Raises NameTaken, NoSuchAccount.

        `on_stale` is called with a channel that it is to be taken away from: it writes in the routing table
        what the channel's record has.
        """
        names = [
            keyspace.names_of_channels(account_id),
            keyspace.account(account_id),
            keyspace.routing(account_id),
        ]
        begins, stale = native_entry_begins(name), ""
        for _ in range(_ATTEMPTS):
            status, *found = await self._redis.script(
                "channel_name_take", names, name, channel, stale, begins
            )
            if status == b"gone":
                raise NoSuchAccount
            if status == b"taken":
                return
            stale = found[0].decode()
            if await self._name(stale) == name:
                break
            await on_stale(stale)
        # Or the table is newer than what Redis has of the record: the reaper's repair ends that.
        raise NameTaken(by=stale)

    async def drop(self, account_id: str, name: str, channel: str) -> None:
        """Frees the name of a channel that has ended."""
        await self._redis.command("ZREM", keyspace.names_of_channels(account_id), entry_of(name, channel))

    async def drop_former(self, account_id: str, name: str, channel: str) -> None:
        """Frees a name that the channel had, unless it has it again."""
        names = [keyspace.names_of_channels(account_id), keyspace.routing(account_id)]
        await self._redis.script("channel_name_drop", names, name, channel, native_entry_begins(name))

    async def find(self, account_id: str, name: str) -> str | None:
        """The channel with this name, as the index has it: its record decides."""
        low, high = b"[" + name.encode() + b"\0", b"(" + name.encode() + b"\1"
        index = keyspace.names_of_channels(account_id)
        found = await self._redis.command("ZRANGEBYLEX", index, low, high, "LIMIT", 0, 1)
        return id_in(found[0]) if found else None

    async def drop_stale(self, account_id: str, cursor: str, *, count: int) -> str:
        """Drops, of about `count` names, those whose channel has another one or is gone.

        Returns the cursor of the next ones, '' at the end.
        """
        index = keyspace.names_of_channels(account_id)
        following, found = await self._redis.command("ZSCAN", index, cursor or 0, "COUNT", count)
        entries = found[::2]
        names = await asyncio.gather(*(self._name(id_in(entry)) for entry in entries))
        for entry, name in zip(entries, names, strict=True):
            if name != name_in(entry):
                await self.drop_former(account_id, name_in(entry), id_in(entry))
        return "" if int(following) == 0 else following.decode()

    async def _name(self, channel: str) -> str | None:
        name = await self._redis.command("HGET", keyspace.api_key(channel), "name")
        return None if name is None else str(name.decode())
