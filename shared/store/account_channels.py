"""Channels as objects of an account: native ones are made, changed and listed here, those of API keys shown.

A native channel's record, channel and queue lie in its own slot; its name, its place in the list and its
entry in the routing table in the account's. It is made in this order: its name, its due time, record and
channel (unfinished), its entry in the routing table with its bindings; then it is finished. One that is
unfinished after a minute is ended by the reaper, so a crash leaves neither a channel without an entry in the
routing table nor one without its bindings.
"""

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from shared import telemetry
from shared.model.account_channels import AccountChannel, ChannelRecord, ChannelSettings, NewChannel
from shared.model.bindings import Source
from shared.model.callbacks import Callback
from shared.model.channels import ANY_DISPATCHER, Kind, instance_of
from shared.model.errors import KeyRevoked, NameTaken, NoSuchAccount, NoSuchChannel
from shared.model.webhooks import WebhookPolicy
from shared.redis.pipeline import Argument, RedisCommands
from shared.store import keyspace
from shared.store.channels import Channels
from shared.store.due_channels import DueChannels
from shared.store.native_fields import (
    CHANNEL,
    RECORD,
    callback_fields,
    channel_from,
    pairs,
    record_from,
    record_of,
    settings_fields,
)
from shared.store.replicas import Replicas
from shared.store.routing import Routing, new_version
from shared.store.wakeups import Wakeups

CREATION_MS = 60_000
"""A creation that takes longer has been cut short."""


class AccountChannels:
    """Makes, reads, changes and ends the channels of accounts."""

    def __init__(
        self, redis: RedisCommands, routing: Routing, wakeups: Wakeups, *, channels: Channels
    ) -> None:
        self._redis = redis
        self._routing = routing
        self._wakeups = wakeups
        self._channels = channels
        self._replicas = Replicas(redis)
        self._due = DueChannels(redis)
        self.names = channels.native_names

    async def create(self, new: NewChannel) -> None:
        """Raises NameTaken, NoSuchAccount; NoSuchChannel when it took too long, and the reaper ended it."""
        if new.name:
            await self._take_name(new.account_id, new.name, new.id)
        # First, or a channel whose creator dies after the next line would never be visited.
        await self._due.bring_forward(new.id)
        generation, version = secrets.token_hex(8), new_version()
        record, settings = record_of(new), settings_fields(new.settings, new.kind)
        channel = {
            "kind": new.kind,
            "generation": generation,
            "bindings_version": version,
            **{field: value for field, value in settings.items() if value != ""},
            **({} if new.callback is None else callback_fields(new.callback, new.policy)),
        }
        names = keyspace.channel_names(new.id)[:2]
        await self._redis.script("channel_make", names, len(record), *pairs(record), *pairs(channel))
        # Again: a visit may have found no channel in between.
        await self._due.bring_forward(new.id)
        if new.kind is Kind.WEBHOOK:
            await self._redis.command("SADD", keyspace.WEBHOOKS, f"{new.id}:{generation}")
        entry = ChannelRecord(new.id, new.account_id, is_native=True, name=new.name, customer=new.customer)
        try:
            if new.name:
                await self._take_name(new.account_id, new.name, new.id)
            while not await self._routing.enter(
                entry, generation=generation, version=version, bindings=new.bindings
            ):
                await self._take_name(new.account_id, new.name, new.id)
        except (NameTaken, NoSuchAccount):
            await self._channels.delete(new.account_id, new.id, kind=new.kind)
            if new.name:
                await self.names.drop(new.account_id, new.name, new.id)
            raise
        if not await self._redis.command("HDEL", keyspace.channel(new.id), "unfinished"):
            # The reaper ended it, perhaps before it was in the table.
            await self._channels.unindex(new.account_id, new.id, kind=new.kind, generation=generation)
            raise NoSuchChannel

    async def _take_name(self, account_id: str, name: str, channel: str) -> None:
        """Raises NameTaken, NoSuchAccount."""
        await self.names.take(account_id, name, channel, on_stale=self._update_table_of)

    async def _update_table_of(self, stale: str) -> None:
        """A renaming was cut short, and the routing table may have the name of before: ends it."""
        if (record := await self.record(stale)) is not None and record.is_native:
            with contextlib.suppress(KeyRevoked):
                if not await self._routing.set_native(record):
                    # Nor has it the name of its record: it is found by its id.
                    await self._routing.set_native(replace(record, name=""))

    async def record(self, channel: str) -> ChannelRecord | None:
        """Whose channel, or whose API key, it is; None for an unknown id."""
        account, *fields = await self._redis.command("HMGET", keyspace.api_key(channel), *RECORD)
        return None if account is None else record_from(channel, account, *fields)

    async def read(self, channel: str) -> AccountChannel | None:
        """The channel as it is now; None without one, or before its creation has ended."""
        [found] = await self.read_some([channel])
        return found

    async def read_some(self, channels: Sequence[str]) -> list[AccountChannel | None]:
        """The same of several."""
        found = await asyncio.gather(*map(self._read, channels))
        owners = {owner for _, owner, _ in found if owner}
        live = await self._replicas.live_instances(owners)
        return [
            None
            if fields is None
            else channel_from(channel, fields, size, is_held=instance_of(owner) in live)
            for channel, (fields, owner, size) in zip(channels, found, strict=True)
        ]

    async def _read(self, channel: str) -> tuple[list[bytes | None] | None, str, int]:
        record, fields, size = await asyncio.gather(
            self._redis.command("HMGET", keyspace.api_key(channel), *RECORD),
            self._redis.command("HMGET", keyspace.channel(channel), *CHANNEL),
            self._redis.command("XLEN", keyspace.queue(channel)),
        )
        if record[0] is None or fields[0] is None or fields[-1] is not None:
            return None, "", 0
        return [*record, *fields], (fields[3] or b"").decode(), int(size)

    async def bindings(self, record: ChannelRecord) -> bytes:
        """Its bindings by topics, in their stored form."""
        stored = await self._routing.bindings(record.account_id, record.id, Source.TOPICS)
        return stored or b"[]"

    async def change(
        self,
        channel: AccountChannel,
        *,
        name: str | None = None,
        customer: str | None = None,
        settings: ChannelSettings | None = None,
    ) -> None:
        """Changes what is not None of a native channel ('' ends a name or a customer).

        An event that is published afterwards is matched by its new name and customer. Raises NameTaken,
        NoSuchAccount, NoSuchChannel.
        """
        before = channel.record
        assert before.is_native, "the record of an API key is its own"
        given = {"name": name, "customer": customer}
        of_record = {field: value for field, value in given.items() if value is not None}
        of_channel = {} if settings is None else settings_fields(settings, channel.kind)
        if name:
            await self._take_name(before.account_id, name, before.id)
        had = [before.name, name or ""]
        try:
            after = await self._write(channel, of_record, of_channel)
            had.append(after.name)
            # Also what the record had before: a change that was cut short may not have reached the table.
            if of_record:
                await self._enter_change(channel, after, name=name)
        except (NameTaken, NoSuchChannel):
            await self._drop_unused(before, had)
            raise
        if of_record:
            await self._drop_unused(before, had)
        if settings is not None:
            # Something may be due earlier now.
            await self._due.bring_forward(before.id)

    async def _enter_change(self, channel: AccountChannel, after: ChannelRecord, *, name: str | None) -> None:
        """Raises NameTaken, NoSuchChannel."""
        try:
            await self._enter(after)
        except NameTaken:
            if name is not None:
                await self._give_back(channel, name)
                raise
            # Another change has written that name, and will be refused it.
            await self._enter_customer(after)

    async def _drop_unused(self, record: ChannelRecord, names: Sequence[str]) -> None:
        """Frees the names that the table does not have for the channel: it may have a newer one than this."""
        for name in dict.fromkeys(names):
            if name:
                await self.names.drop_former(record.account_id, name, record.id)

    async def _enter(self, record: ChannelRecord) -> None:
        """Writes the record's name and customer in the routing table. Raises NameTaken, NoSuchChannel."""
        if record.name:
            await self._take_name(record.account_id, record.name, record.id)
        try:
            while not await self._routing.set_native(record):
                await self._take_name(record.account_id, record.name, record.id)
        except KeyRevoked:
            await self._drop_unused(record, [record.name])
            raise NoSuchChannel from None

    async def _enter_customer(self, record: ChannelRecord) -> None:
        """Writes the record's customer in the routing table, beside the name that the table has."""
        if (named := await self._routing.native(record.account_id, record.id)) is None:
            raise NoSuchChannel
        try:
            await self._routing.set_native(replace(record, name=named[0]))
        except KeyRevoked:
            raise NoSuchChannel from None

    async def _give_back(self, channel: AccountChannel, refused: str) -> None:
        """A channel gets the name that it had before, instead of one that another has got.

        It has none if that is another's by now, and stays as it is if it was changed again or has ended.
        """
        with contextlib.suppress(NoSuchChannel):
            for former in dict.fromkeys((channel.record.name, "")):
                try:
                    if former:
                        await self._take_name(channel.record.account_id, former, channel.record.id)
                    after = await self._write(channel, {"name": former}, {}, only_named=refused)
                    refused = former
                    await self._enter(after)
                except NameTaken:
                    continue
                return

    async def _write(
        self,
        channel: AccountChannel,
        of_record: Mapping[str, Argument],
        of_channel: Mapping[str, Argument],
        *,
        only_named: str = "",
        newer_than: int = 0,
    ) -> ChannelRecord:
        """The record afterwards. Raises NoSuchChannel, also when it has another name than `only_named`."""
        names = keyspace.channel_names(channel.record.id)[:2]
        condition = (channel.generation, only_named, newer_than)
        found = await self._redis.script(
            "channel_change", names, *condition, len(of_record), *pairs(of_record), *pairs(of_channel)
        )
        if not found:
            raise NoSuchChannel
        name, customer, revision = found
        return replace(channel.record, name=name.decode(), customer=customer.decode(), revision=int(revision))

    async def change_webhook(
        self, channel: AccountChannel, change: Callable[[AccountChannel], tuple[Callback, WebhookPolicy]]
    ) -> None:
        """Gives a native webhook the URL, headers and policy that `change` makes of its present ones.

        What is pending goes there at once. Repeats `change` when another one came between. Raises what
        `change` raises, NoSuchChannel.
        """
        found: AccountChannel | None = channel
        status = b"changed"
        while status == b"changed":
            if found is None or found.generation != channel.generation:
                raise NoSuchChannel
            fields = pairs(callback_fields(*change(found)))
            names = [keyspace.channel(channel.record.id)]
            condition = (channel.generation, found.config_version)
            status = await self._redis.script("webhook_change", names, *condition, *fields)
            if status == b"changed":
                found = await self.read(channel.record.id)
        if status == b"absent":
            raise NoSuchChannel
        self._wakeups.send_webhook_changed(ANY_DISPATCHER, channel.record.id)

    async def put_bindings(self, record: ChannelRecord, bindings: bytes) -> None:
        """Replaces its bindings by topics; b'' removes them. Raises NoSuchChannel."""
        try:
            if bindings:
                await self._routing.put_bindings(record.account_id, record.id, bindings, source=Source.TOPICS)
            else:
                await self._routing.drop_bindings(record.account_id, record.id, Source.TOPICS)
        except KeyRevoked:
            raise NoSuchChannel from None

    async def repair(self, record: ChannelRecord) -> int:
        """Writes again what the account's slot should have of a native channel; 1 if something was missing.

        A channel that is being renamed or ended has its own way.
        """
        channel = await self.read(record.id)
        if channel is None:
            return 0
        record, repairs = channel.record, 0
        try:
            if record.name and await self.names.find(record.account_id, record.name) != record.id:
                repairs = 1
                await self._take_name(record.account_id, record.name, record.id)
            if await self._routing.native(record.account_id, record.id) != (record.name, record.customer):
                repairs = 1
                # Redis may have lost the newest revisions of the record, but not those of the table.
                revision = await self._routing.native_revision(record.account_id, record.id)
                await self._enter(await self._write(channel, {}, {}, newer_than=revision))
        except (NameTaken, NoSuchAccount, NoSuchChannel):
            # It has ended. Or another one has got its name, which Redis had lost: it is found by its id.
            return 0
        return repairs

    async def pause(self, channel: str) -> bool:
        """From now on Redis refuses claims and reads; the owner lets go. False without a channel."""
        found = await self._redis.script("channel_pause", [keyspace.channel(channel)], "1", "")
        if found and found[1]:
            self._wakeups.send(found[1].decode(), channel)
        return bool(found)

    async def resume(self, channel: str) -> bool:
        """Ends a pause. A webhook goes on, also if it is disabled; sockets come back by themselves.

        False without a channel.
        """
        found = await self._redis.script(
            "channel_pause", [keyspace.channel(channel)], "", secrets.token_hex(8)
        )
        if found:
            kind, owner = found[0], (found[1] or b"").decode()
            if kind == b"webhook":
                self._wakeups.send(ANY_DISPATCHER, channel)
            elif owner:
                # It may not have noticed the pause, and got no wakeup meanwhile.
                self._wakeups.send(owner, channel)
        return bool(found)

    async def purge(self, channel: AccountChannel) -> int:
        """Drops everything pending; how much that was. Raises NoSuchChannel."""
        names = keyspace.channel_names(channel.record.id)[1:]
        dropped = int(await self._redis.script("queue_purge", names, channel.generation))
        if dropped < 0:
            raise NoSuchChannel
        telemetry.dropped.add(dropped, {"reason": "purged"})
        return dropped

    async def delete(self, channel: AccountChannel) -> bool:
        """Ends the channel with its queue, and wakes its owner; False when it was gone."""
        record = channel.record
        return await self._channels.delete(record.account_id, record.id, kind=channel.kind)
