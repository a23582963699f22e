"""Lists of an account's channels, page by page.

A page looks at a bounded number of channels, also where few of them are wanted: so it may have few, or none,
and still a next one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from shared.model.account_channels import AccountChannel, Activity, id_shown, shown_id
from shared.model.channels import Kind
from shared.redis.pipeline import RedisCommands
from shared.store import keyspace
from shared.store.account_channels import AccountChannels
from shared.store.name_index import cursor_of, id_in, name_in, page

_LOT = 100
_MOST_LOOKED_AT = 1000


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which channels to list. `name_prefix`: in the order of their names, and only those that have one."""

    kind: Kind | None = None
    state: Activity | None = None
    customer: str | None = None
    name_prefix: str | None = None

    def includes(self, channel: AccountChannel) -> bool:
        return (
            (self.kind is None or channel.kind is self.kind)
            and (self.state is None or channel.state == self.state)
            and (self.customer is None or channel.record.customer == self.customer)
        )


@dataclass(frozen=True, slots=True)
class _Entry:
    """A channel that an index has, with the name that it has there, and where to go on behind it."""

    channel: str
    name: str | None
    cursor: str


class ChannelPages:
    """Reads the indexes of an account's slot, and the channels that they name."""

    def __init__(self, redis: RedisCommands, channels: AccountChannels) -> None:
        self._redis = redis
        self._channels = channels

    async def page(
        self, account_id: str, wanted: Wanted, *, after: str, count: int
    ) -> tuple[list[AccountChannel], str | None]:
        """At most `count` channels behind `after` ('' or that of the page before).

        Also returns the `after` of the next page, None on the last. Raises ValueError for an `after` that no
        such page returned.
        """
        found = list[AccountChannel]()
        looked_at, has_more = 0, True
        while has_more:
            if looked_at >= _MOST_LOOKED_AT or len(found) == count:
                return found, after
            entries, has_more = await self._entries(account_id, wanted.name_prefix, after=after)
            looked_at += len(entries)
            channels = await self._channels.read_some([entry.channel for entry in entries])
            for entry, channel in zip(entries, channels, strict=True):
                if len(found) == count:
                    return found, after
                after = entry.cursor
                is_there = channel is not None and channel.record.account_id == account_id
                if channel is None or not is_there or entry.name not in (None, channel.record.name):
                    continue
                if wanted.includes(channel):
                    found.append(channel)
        return found, None

    async def _entries(
        self, account_id: str, prefix: str | None, *, after: str
    ) -> tuple[Sequence[_Entry], bool]:
        if prefix is None:
            return await self._by_id(account_id, after)
        index = keyspace.names_of_channels(account_id)
        entries, has_more = await page(self._redis, index, prefix, after=after, count=_LOT)
        return [_Entry(id_in(each), name_in(each), cursor_of(each)) for each in entries], has_more

    async def _by_id(self, account_id: str, after: str) -> tuple[Sequence[_Entry], bool]:
        low = "-"
        if after:
            channel = id_shown(after)
            if channel is None:
                raise ValueError
            # Behind every generation of it.
            low = f"({channel};"
        index = keyspace.channel_ids(account_id)
        members = await self._redis.command("ZRANGEBYLEX", index, low, "+", "LIMIT", 0, _LOT + 1)
        # While a channel is replaced, two generations of it are there.
        ids = dict.fromkeys(member.partition(b":")[0].decode() for member in members[:_LOT])
        return [_Entry(each, None, shown_id(each)) for each in ids], len(members) > _LOT
