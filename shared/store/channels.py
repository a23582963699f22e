"""Channels: creation, state, expiry and deletion."""

import asyncio
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

import orjson

from shared.model.account_channels import ChannelRecord
from shared.model.callbacks import Callback
from shared.model.channels import ANY_DISPATCHER, ChannelState, Kind, instance_of
from shared.model.errors import KeyRevoked, KindConflict
from shared.redis.pipeline import RedisCommands
from shared.store import keyspace
from shared.store.channel_names import ChannelNames
from shared.store.due_channels import DueChannels
from shared.store.replicas import Replicas
from shared.store.routing import Routing
from shared.store.wakeups import Wakeups


@dataclass(frozen=True, slots=True)
class ChannelRef:
    """A channel's account, generation and kind; '' or None where the key or the channel does not exist.

    `native` is its record, if it is a native one. `is_unfinished`: its creation has not ended.
    """

    account: str
    generation: str
    kind: Kind | None
    native: ChannelRecord | None = None
    is_unfinished: bool = False


@dataclass(frozen=True, slots=True)
class ChannelTimes:
    """What says when something of a channel is due; times in ms by the clock of its Redis.

    `idle_since_ms`: its creation or its last release; of a webhook, its creation or its last append.
    `pending_since_ms`: no pending notification is older; None while nothing is pending. `idle_expiry_ms` and
    `lifetime_ms` are its own, None where the installation's hold; 0 for no expiry. The queue of a native
    webhook has another lifetime than the installation's. `unfinished_since_ms`: when its creation began, if
    that has not ended.
    """

    kind: Kind
    generation: str
    owner: str
    idle_since_ms: int
    pending_since_ms: int | None
    idle_expiry_ms: int | None = None
    lifetime_ms: int | None = None
    is_native_webhook: bool = False
    unfinished_since_ms: int | None = None


class Channels:
    """Keeps channels. A record lies in its channel's slot; the account's routing table names the channel."""

    def __init__(self, redis: RedisCommands, routing: Routing, wakeups: Wakeups) -> None:
        self._redis = redis
        self._routing = routing
        self._wakeups = wakeups
        self._replicas = Replicas(redis)
        self._due = DueChannels(redis)
        self.native_names = ChannelNames(redis)

    async def create(
        self, account_id: str, api_key_id: str, *, kind: Kind, serialization: bytes = b""
    ) -> bool:
        """Creates the channel, or changes the serialization of an existing one. False when it existed.

        Raises KindConflict when a channel of another kind exists, KeyRevoked when the key does not.
        """
        fields = {"serialization": serialization} if serialization else {}
        return await self._create(account_id, api_key_id, kind, fields)

    async def put_webhook(
        self, account_id: str, api_key_id: str, callback: Callback, *, serialization: bytes
    ) -> bool:
        """Creates a webhook channel, or replaces the configuration of an existing one. False when it existed.

        Pending notifications go to the new URL at once. Raises what `create` does.
        """
        fields = {
            "url": callback.url.encode(),
            "headers": orjson.dumps(dict(callback.headers)),
            "serialization": serialization,
            "config_version": secrets.token_hex(8).encode(),
        }
        created = await self._create(account_id, api_key_id, Kind.WEBHOOK, fields)
        self._wakeups.send_webhook_changed(ANY_DISPATCHER, api_key_id)
        return created

    async def _create(
        self, account_id: str, api_key_id: str, kind: Kind, fields: Mapping[str, bytes]
    ) -> bool:
        names = keyspace.channel_names(api_key_id)[:2]
        pairs = [part for pair in fields.items() for part in pair]
        status, *reply = await self._redis.script("channel_create", names, kind, "", *pairs)
        if status == b"absent":
            # First, or a channel whose creator dies after the next line would never expire.
            await self._due.bring_forward(api_key_id)
            new = secrets.token_hex(8)
            status, *reply = await self._redis.script("channel_create", names, kind, new, *pairs)
            # Again: a visit may have found no channel in between.
            await self._due.bring_forward(api_key_id)
        if status == b"revoked":
            raise KeyRevoked
        existing, generation, owner = (value.decode() for value in reply)
        if existing != kind:
            raise KindConflict(existing=existing)
        if owner and fields:
            self._wakeups.send(owner, api_key_id)
        # Index an existing channel too: its creator may have died before this line.
        await self.index(account_id, api_key_id, kind=kind, generation=generation)
        return bool(status == b"created")

    async def index(self, account_id: str, api_key_id: str, *, kind: Kind, generation: str) -> None:
        """Adds the channel to the routing table, and a webhook to the dispatchers' sweep."""
        if kind is Kind.WEBHOOK:
            await self._redis.command("SADD", keyspace.WEBHOOKS, f"{api_key_id}:{generation}")
        await self._routing.add_channel(account_id, api_key_id, generation=generation)

    async def is_swept(self, api_key_id: str, generation: str) -> bool:
        """Whether the dispatchers' sweep knows this webhook."""
        member = f"{api_key_id}:{generation}"
        return bool(await self._redis.command("SISMEMBER", keyspace.WEBHOOKS, member))

    async def unindex(self, account_id: str, api_key_id: str, *, kind: Kind, generation: str) -> None:
        """Undoes `index` for a channel that has ended. Of a native one, which has ended for ever, nothing is
        left."""
        if kind is Kind.WEBHOOK:
            await self._redis.command("SREM", keyspace.WEBHOOKS, f"{api_key_id}:{generation}")
        native = await self._routing.native(account_id, api_key_id)
        if native is None:
            await self._routing.drop_channel(account_id, api_key_id, generation=generation)
            return
        name, _ = native
        if name:
            await self.native_names.drop(account_id, name, api_key_id)
        # Last: the reaper finds the rest by it.
        await self._routing.drop_key(account_id, api_key_id, generation=generation)

    async def state(self, api_key_id: str) -> ChannelState | None:
        """The present state of the channel; None when there is none."""
        name = keyspace.channel(api_key_id)
        kind, owner, serialization, dropped = await self._redis.command(
            "HMGET", name, "kind", "owner", "serialization", "dropped"
        )
        if kind is None:
            return None
        size = await self._redis.command("XLEN", keyspace.queue(api_key_id))
        connected = owner is not None and (await self._replicas.state(instance_of(owner.decode()))).live
        return ChannelState(
            kind=Kind(kind.decode()),
            connected=connected,
            pending=int(size),
            dropped=int(dropped or 0),
            serialization=serialization or b"",
        )

    async def callback(self, api_key_id: str) -> Callback | None:
        """The URL and headers of the webhook channel; None when there is none."""
        name = keyspace.channel(api_key_id)
        url, headers = await self._redis.command("HMGET", name, "url", "headers")
        return None if url is None else Callback(url.decode(), orjson.loads(headers))

    async def times(self, api_key_id: str) -> ChannelTimes | None:
        """When something of the channel may be due; None when there is no channel."""
        fields = await self._redis.command("HMGET", keyspace.channel(api_key_id), *_TIMES)
        kind, generation, owner, created, released, tail, first, idle_expiry, limits, unfinished = fields
        if kind is None:
            return None
        used_ms = _ms_of(tail) if kind == b"webhook" else int(released or 0)
        return ChannelTimes(
            kind=Kind(kind.decode()),
            generation=generation.decode(),
            owner=(owner or b"").decode(),
            idle_since_ms=max(int(created or 0), used_ms),
            pending_since_ms=_ms_of(first) if first else None,
            idle_expiry_ms=None if idle_expiry is None else int(idle_expiry),
            lifetime_ms=parse_limits(limits)[1],
            is_native_webhook=(limits or b"").rstrip(b"p").endswith(b"w"),
            unfinished_since_ms=None if unfinished is None else int(created or 0),
        )

    async def oldest_pending_ms(self, api_key_id: str) -> int | None:
        """When the oldest pending notification was queued; None while nothing is pending."""
        entries = await self._redis.command("XRANGE", keyspace.queue(api_key_id), "-", "+", "COUNT", 1)
        return _ms_of(entries[0][0]) if entries else None

    async def expire(self, account_id: str, api_key_id: str, *, generation: str, idle_expiry_ms: int) -> bool:
        """Ends a channel that has had no live owner for `idle_expiry_ms`; False when it stays.

        The idle time begins with the last release, the last heartbeat of a dead owner, or the creation.
        """
        owner = (await self._redis.command("HGET", keyspace.channel(api_key_id), "owner") or b"").decode()
        last_heartbeat_ms = 0
        if owner:
            instance = await self._replicas.state(instance_of(owner))
            if instance.live:
                return False
            last_heartbeat_ms = instance.last_heartbeat_ms
        names = keyspace.channel_names(api_key_id)[1:]
        times = (last_heartbeat_ms, idle_expiry_ms)
        status, *_ = await self._redis.script("channel_expire", names, generation, owner, *times)
        if status != b"expired":
            return False
        await self.unindex(account_id, api_key_id, kind=Kind.WEBSOCKET, generation=generation)
        return True

    async def abandon(self, ref: ChannelRef, channel: str, *, after_ms: int) -> bool:
        """Ends a native channel whose creation has lasted so long; False when it stays."""
        names = keyspace.channel_names(channel)[1:]
        if not await self._redis.script("channel_abandon", names, ref.generation, after_ms):
            return False
        await self.unindex(ref.account, channel, kind=ref.kind or Kind.WEBSOCKET, generation=ref.generation)
        # The routing table may not have its name yet.
        if ref.native is not None and ref.native.name:
            await self.native_names.drop(ref.account, ref.native.name, channel)
        return True

    async def expire_idle_webhook(
        self, account_id: str, api_key_id: str, *, generation: str, idle_expiry_ms: int
    ) -> bool:
        """Ends a webhook channel that nothing was queued for during `idle_expiry_ms`; False when it stays."""
        names = keyspace.channel_names(api_key_id)[1:]
        status, *_ = await self._redis.script("webhook_expire", names, generation, idle_expiry_ms)
        if status != b"expired":
            return False
        await self.unindex(account_id, api_key_id, kind=Kind.WEBHOOK, generation=generation)
        return True

    async def ref(self, api_key_id: str) -> ChannelRef:
        """The account of the API key, and the generation and kind of its channel."""
        (account, *record), (generation, kind, unfinished) = await asyncio.gather(
            self._redis.command(
                "HMGET", keyspace.api_key(api_key_id), "account_id", "native", "name", "customer"
            ),
            self._redis.command("HMGET", keyspace.channel(api_key_id), "generation", "kind", "unfinished"),
        )
        account_id = (account or b"").decode()
        native = None
        if record[0] is not None:
            name, customer = ((value or b"").decode() for value in record[1:])
            native = ChannelRecord(api_key_id, account_id, is_native=True, name=name, customer=customer)
        return ChannelRef(
            account_id,
            (generation or b"").decode(),
            Kind(kind.decode()) if kind else None,
            native,
            is_unfinished=unfinished is not None,
        )

    async def delete(self, account_id: str, api_key_id: str, *, kind: Kind) -> bool:
        """Ends the channel with its queue and wakes its owner; False when there is none of this kind."""
        names = keyspace.channel_names(api_key_id)[1:]
        status, *fields = await self._redis.script("channel_delete", names, kind)
        if status == b"absent":
            return False
        generation, owner, _ = fields
        if owner:
            wake = self._wakeups.send_webhook_changed if kind is Kind.WEBHOOK else self._wakeups.send
            wake(owner.decode(), api_key_id)
        # If this step fails the table names a missing channel: appends find none, and the reaper repairs it.
        await self.unindex(account_id, api_key_id, kind=kind, generation=generation.decode())
        # The reaper's next round removes its due time.
        await self._due.bring_forward(api_key_id)
        return True


_TIMES = (
    *("kind", "generation", "owner", "created_at_ms", "released_at_ms", "tail", "first"),
    *("idle_expiry_ms", "limits", "unfinished"),
)


def parse_limits(stored: bytes | None) -> tuple[int | None, int | None]:
    """A queue's own limits of bytes and of age in ms; None where it has none."""
    size_bytes, _, age_ms = (stored or b"").rstrip(b"wp").partition(b" ")
    return int(size_bytes) if size_bytes else None, int(age_ms) if age_ms else None


def _ms_of(entry_id: bytes | None) -> int:
    return int((entry_id or b"0").partition(b"-")[0])
