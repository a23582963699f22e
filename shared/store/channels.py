"""The life of an API key's channel: made, looked at, deleted."""

import secrets
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

import orjson

from shared.model.callbacks import Callback
from shared.model.channels import ANY_DISPATCHER, ChannelState, Kind, instance_of
from shared.model.errors import KeyRevoked, KindConflict
from shared.redis.pipeline import RedisCommands
from shared.store import keyspace
from shared.store.replicas import Replicas
from shared.store.routing import Routing
from shared.store.wakeups import Wakeups


@dataclass(frozen=True, slots=True)
class ChannelRef:
    """A channel's account, generation and kind; what is not there is '' or None."""

    account: str
    generation: str
    kind: Kind | None


class Channels:
    """Keeps channels. A channel's record is in its own slot, its mention in the account's table."""

    def __init__(self, redis: RedisCommands, routing: Routing, wakeups: Wakeups) -> None:
        self._redis = redis
        self._routing = routing
        self._wakeups = wakeups
        self._replicas = Replicas(redis)

    async def create(
        self, account_id: str, api_key_id: str, *, kind: Kind, now_ms: int, serialization: bytes = b""
    ) -> bool:
        """Makes the channel if there is none; tells whether it did. What is given changes one that is there.

        Raises KindConflict when one of another kind is there, KeyRevoked when the key is gone.
        """
        given = {"serialization": serialization} if serialization else {}
        return await self._create(account_id, api_key_id, kind, now_ms=now_ms, given=given)

    async def put_webhook(
        self, account_id: str, api_key_id: str, callback: Callback, *, now_ms: int, serialization: bytes
    ) -> bool:
        """Makes a webhook channel, or gives the one that is there all it is to have from now on.

        What waits in its queue goes to the new URL at once. Tells and raises what `create` does.
        """
        given = {
            "url": callback.url.encode(),
            "headers": orjson.dumps(dict(callback.headers)),
            "serialization": serialization,
            "setup": secrets.token_hex(8).encode(),
        }
        made = await self._create(account_id, api_key_id, Kind.WEBHOOK, now_ms=now_ms, given=given)
        self._wakeups.send(ANY_DISPATCHER, api_key_id)
        return made

    async def _create(
        self, account_id: str, api_key_id: str, kind: Kind, *, now_ms: int, given: Mapping[str, bytes]
    ) -> bool:
        i = api_key_id
        names = [keyspace.api_key(i), keyspace.channel(i), keyspace.lease(i)]
        pairs = [part for pair in given.items() for part in pair]
        word, *found = await self._redis.script(
            "channel_create", names, kind, secrets.token_hex(8), now_ms, *pairs
        )
        if word == b"revoked":
            raise KeyRevoked
        existing, generation, owner = (value.decode() for value in found)
        if existing != kind:
            raise KindConflict(existing=existing)
        if owner and given:
            self._wakeups.send(owner, i)
        # Also when it existed: whoever made it may have died before this line.
        await self.index(account_id, i, kind=kind, generation=generation)
        return bool(word == b"created")

    async def index(self, account_id: str, api_key_id: str, *, kind: Kind, generation: str) -> None:
        """Says where others look that the channel is there: in the table, and where dispatchers look."""
        if kind is Kind.WEBHOOK:
            await self._redis.command("SADD", keyspace.WEBHOOKS, f"{api_key_id}:{generation}")
        await self._routing.add_channel(account_id, api_key_id, generation=generation)

    async def unindex(self, account_id: str, api_key_id: str, *, kind: Kind, generation: str) -> None:
        """Takes back what `mention` said, of a channel that has ended."""
        if kind is Kind.WEBHOOK:
            await self._redis.command("SREM", keyspace.WEBHOOKS, f"{api_key_id}:{generation}")
        await self._routing.drop_channel(account_id, api_key_id, generation=generation)

    async def state(self, api_key_id: str) -> ChannelState | None:
        """The channel as it is now; None when there is none."""
        name = keyspace.channel(api_key_id)
        found = await self._redis.command("HMGET", name, "kind", "serialization", "dropped")
        kind, serialization, dropped = found
        if kind is None:
            return None
        owner = await self._redis.command("GET", keyspace.lease(api_key_id))
        size = await self._redis.command("XLEN", keyspace.queue(api_key_id))
        connected = owner is not None and (await self._replicas.seen(instance_of(owner.decode()))).live
        return ChannelState(
            kind=Kind(kind.decode()),
            connected=connected,
            queue_size=int(size),
            dropped=int(dropped or 0),
            serialization=serialization or b"",
        )

    async def callback(self, api_key_id: str) -> Callback | None:
        """Where the webhook channel's notifications go; None when there is no such channel."""
        name = keyspace.channel(api_key_id)
        url, headers = await self._redis.command("HMGET", name, "url", "headers")
        return None if url is None else Callback(url.decode(), orjson.loads(headers))

    async def all(self) -> AsyncIterator[list[str]]:
        """The API key ids of all channels, in lots, as `RedisCommands.scan` finds them."""
        async for names in self._redis.scan(keyspace.channel("*")):
            yield [keyspace.id_in(name) for name in names]

    async def expire(
        self, account_id: str, api_key_id: str, *, generation: str, now_ms: int, idle_expiry_ms: int
    ) -> bool:
        """Ends a channel that has had no socket, or no poll, for so long; tells whether it did.

        The time counts from the last release, the last heartbeat of an owner that is gone, or the making.
        """
        i = api_key_id
        owner = (await self._redis.command("GET", keyspace.lease(i)) or b"").decode()
        last_ms = 0
        if owner:
            seen = await self._replicas.seen(instance_of(owner))
            if seen.live:
                return False
            last_ms = seen.last_ms
        names = [keyspace.channel(i), keyspace.lease(i), keyspace.queue(i), keyspace.receipts(i)]
        judged_by = (generation, owner, last_ms, now_ms, idle_expiry_ms)
        word, *_ = await self._redis.script("channel_expire", names, *judged_by)
        if word != b"expired":
            return False
        await self._routing.drop_channel(account_id, i, generation=generation)
        return True

    async def expire_idle_webhook(
        self, account_id: str, api_key_id: str, *, generation: str, now_ms: int, idle_expiry_ms: int
    ) -> bool:
        """Ends a webhook channel that nothing was queued for so long; tells whether it did."""
        names = keyspace.of_a_queue(api_key_id)[1:]
        word, *_ = await self._redis.script("webhook_expire", names, generation, now_ms, idle_expiry_ms)
        if word != b"expired":
            return False
        await self.unindex(account_id, api_key_id, kind=Kind.WEBHOOK, generation=generation)
        return True

    async def ref(self, api_key_id: str) -> ChannelRef:
        """ChannelRef channel it is, and which."""
        account = await self._redis.command("HGET", keyspace.api_key(api_key_id), "account_id")
        name = keyspace.channel(api_key_id)
        generation, kind = await self._redis.command("HMGET", name, "generation", "kind")
        found = Kind(kind.decode()) if kind else None
        return ChannelRef((account or b"").decode(), (generation or b"").decode(), found)

    async def delete(self, account_id: str, api_key_id: str, *, kind: Kind) -> bool:
        """Ends the channel and its queue, and tells its socket's owner; False when there was none."""
        i = api_key_id
        names = [keyspace.channel(i), keyspace.lease(i), keyspace.queue(i), keyspace.receipts(i)]
        word, *found = await self._redis.script("channel_delete", names, kind)
        if word == b"absent":
            return False
        if found[1]:
            self._wakeups.send(found[1].decode(), i)
        # Should this step fail, the table name a channel that is gone, and appends to it answer so.
        await self.unindex(account_id, i, kind=kind, generation=found[0].decode())
        return True
