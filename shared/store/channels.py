"""The life of an API key's channel: made, looked at, deleted."""

import secrets
from collections.abc import AsyncIterator

from shared.model.channels import ChannelState, Kind, boot_of
from shared.model.errors import KeyRevoked, KindConflict
from shared.store import keyspace
from shared.store.calls import Calls
from shared.store.nudges import Nudges
from shared.store.replicas import Replicas
from shared.store.routes import Routing


class Channels:
    """Keeps channels. A channel's record is in its own slot, its mention in the account's routes."""

    def __init__(self, calls: Calls, routing: Routing, nudges: Nudges) -> None:
        self._calls = calls
        self._routing = routing
        self._nudges = nudges
        self._replicas = Replicas(calls)

    async def create(
        self, account_id: str, api_key_id: str, *, kind: Kind, now_ms: int, serialization: bytes = b""
    ) -> bool:
        """Makes the channel if there is none; tells whether it did. What is given changes one that is there.

        Raises KindConflict when one of another kind is there, KeyRevoked when the key is gone.
        """
        i = api_key_id
        names = [keyspace.api_key(i), keyspace.channel(i), keyspace.lease(i)]
        fresh = (kind, secrets.token_hex(8), now_ms, serialization)
        word, *found = await self._calls.script("channel_create", names, *fresh)
        if word == b"revoked":
            raise KeyRevoked
        existing, incarnation, owner = (value.decode() for value in found)
        if existing != kind:
            raise KindConflict(existing=existing)
        if owner and serialization:
            self._nudges.send(owner, i)
        # Also when it existed: whoever made it may have died before this line.
        await self._routing.add_channel(account_id, i, incarnation=incarnation)
        return bool(word == b"created")

    async def state(self, api_key_id: str) -> ChannelState | None:
        """The channel as it is now; None when there is none."""
        name = keyspace.channel(api_key_id)
        found = await self._calls.command("HMGET", name, "kind", "serialization", "dropped")
        kind, serialization, dropped = found
        if kind is None:
            return None
        owner = await self._calls.command("GET", keyspace.lease(api_key_id))
        size = await self._calls.command("XLEN", keyspace.queue(api_key_id))
        connected = owner is not None and (await self._replicas.seen(boot_of(owner.decode()))).live
        return ChannelState(
            kind=Kind(kind.decode()),
            connected=connected,
            queue_size=int(size),
            dropped=int(dropped or 0),
            serialization=serialization or b"",
        )

    async def all(self) -> AsyncIterator[list[str]]:
        """The API key ids of all channels, in lots, as `Calls.names` finds them."""
        async for names in self._calls.names(keyspace.channel("*")):
            yield [keyspace.id_in(name) for name in names]

    async def expire(
        self, account_id: str, api_key_id: str, *, incarnation: str, now_ms: int, idle_expiry_ms: int
    ) -> bool:
        """Ends the channel if it has had no socket for so long; tells whether it did.

        The time counts from the last release, the last heartbeat of an owner that is gone, or the making.
        """
        i = api_key_id
        owner = (await self._calls.command("GET", keyspace.lease(i)) or b"").decode()
        last_ms = 0
        if owner:
            seen = await self._replicas.seen(boot_of(owner))
            if seen.live:
                return False
            last_ms = seen.last_ms
        names = [keyspace.channel(i), keyspace.lease(i), keyspace.queue(i), keyspace.receipts(i)]
        judged_by = (incarnation, owner, last_ms, now_ms, idle_expiry_ms)
        word, *_ = await self._calls.script("channel_expire", names, *judged_by)
        if word != b"expired":
            return False
        await self._routing.drop_channel(account_id, i, incarnation=incarnation)
        return True

    async def whose(self, api_key_id: str) -> tuple[str, str]:
        """The channel's account and incarnation, each '' when it is not there."""
        account = await self._calls.command("HGET", keyspace.api_key(api_key_id), "account_id")
        incarnation = await self._calls.command("HGET", keyspace.channel(api_key_id), "incarnation")
        return (account or b"").decode(), (incarnation or b"").decode()

    async def delete(self, account_id: str, api_key_id: str, *, kind: Kind) -> bool:
        """Ends the channel and its queue, and tells its socket's owner; False when there was none."""
        i = api_key_id
        names = [keyspace.channel(i), keyspace.lease(i), keyspace.queue(i), keyspace.receipts(i)]
        word, *found = await self._calls.script("channel_delete", names, kind)
        if word == b"absent":
            return False
        if found[1]:
            self._nudges.send(found[1].decode(), i)
        # Should this step fail, the routes name a channel that is gone, and appends to it answer so.
        await self._routing.drop_channel(account_id, i, incarnation=found[0].decode())
        return True
