"""The services' own parts on one event loop. The machine can hold up each of their calls to Redis.

An actor is one process of an installation: a gateway, a reaper, an edge. Each has its own connection behind a
gate. Nothing runs between two steps, so that an order of events can be repeated exactly.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Sequence
from contextvars import ContextVar
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import orjson
from starlette.types import Message

from services.composition import Stores
from services.socket_edge.edge import Edge
from services.socket_edge.handshakes import serve_socket
from services.socket_edge.held import LeaseHolder
from services.socket_edge.pelion_socket import open_pelion_socket
from shared.delivery.acks import AckScheduler
from shared.delivery.loop import DeliveryLoop
from shared.model.channels import Lease
from shared.model.errors import StoreUnavailable
from shared.model.events import Event
from shared.native_tokens import NativeTokens
from shared.publish.publisher import Publisher
from shared.publish.publishing import Publishing
from shared.publish.request import Posted
from shared.publish.stores import PublishStores
from shared.redis.connection import OnReply
from shared.redis.pipeline import Pipeline, hand_over
from shared.runtime.settings import Settings
from shared.runtime.websocket.control import Control
from shared.store.account_channels import AccountChannels
from shared.store.api_keys import ApiKeys
from shared.store.channels import Channels
from shared.store.inline_entries import InlineEntries, parse_inline_entries
from shared.store.leases import Claimed, Leases
from shared.store.queues import Queues
from shared.store.quotas import AccountQuotas
from shared.store.receipts import Receipts
from shared.store.replicas import Heartbeat, new_instance_id
from shared.store.routing import Routing
from shared.store.sessions import Sessions
from shared.store.shared_appends import QUEUED, status_of
from shared.store.stream_reads import StreamReads
from shared.store.streams import Streams
from shared.store.tickets import Tickets
from shared.store.token_keys import TokenKeys
from shared.store.wakeups import Wakeups
from shared.tokens import Principals
from shared.wire.events import Form
from shared.wire.pelion.subscriptions import compiled
from shared.wire.sessions import encode_patterns
from tests.properties.model import Reader
from tests.properties.world import Gate, GatedPipeline, World, started

HOUR_MS = 3_600_000
# Small, so that windows fill and batches are cut: a new socket is sent about two notifications.
_SETTINGS = Settings(batch_limit=2, in_flight_limit=512, in_flight_bytes=4 * 1024 * 1024, ping_timeout_s=30)


class ReportingLeases(Leases):
    """Leases that report to the model what Redis did."""

    def __init__(self, calls: Pipeline, world: World) -> None:
        super().__init__(calls)
        self._world = world

    async def claim(self, api_key_id: str, *, owner: str) -> Claimed:
        claimed = await super().claim(api_key_id, owner=owner)
        CLIENT.get().reader = self._world.model.record_claim(api_key_id, owner)
        return claimed

    async def release(self, lease: Lease) -> bool:
        released = await super().release(lease)
        # Not when it was asked for: it may have been held up.
        self._world.model.record_release(lease.owner, now_ms=self._world.now_ms, released=released)
        return released


class ReportingQueues(Queues):
    """Queues that report to the model what Redis did."""

    def __init__(self, calls: Pipeline, world: World) -> None:
        super().__init__(calls)
        self._world = world

    def begin_append(self, api_key_id: str, events: Sequence[Event], **more: Any) -> asyncio.Future[Any]:
        reply = super().begin_append(api_key_id, events, **more)
        return started(self._report_append(reply, api_key_id, events))

    def append_then(
        self, on_reply: OnReply, api_key_id: str, events: Sequence[Event], *, size_bytes: int, **more: Any
    ) -> None:
        self.begin_append(api_key_id, events, **more).add_done_callback(partial(hand_over, on_reply))

    async def _report_append(
        self, pending: asyncio.Future[Any], api_key_id: str, events: Sequence[Event]
    ) -> Any:
        reply = await pending
        status = status_of(reply)
        if status != b"stale":
            numbers = [int(event.id) for event in events]
            self._world.model.record_append(api_key_id, numbers, queued=status == QUEUED)
            if status == QUEUED:
                self._world.on_append(api_key_id, numbers)
        return reply

    async def reclaim(self, lease: Lease) -> None:
        await super().reclaim(lease)
        self._world.model.record_reclaim(lease.owner)

    def begin_ack(self, lease: Lease, *, until: str) -> asyncio.Future[int]:
        # A loop that stops does not wait for an ack under way, which Redis does all the same.
        return asyncio.shield(started(self._ack(lease, super().begin_ack(lease, until=until))))

    async def _ack(self, lease: Lease, acking: asyncio.Future[int]) -> int:
        acked = self._world.model.acked_count(lease.owner)
        count = await acking
        self._world.model.record_ack(lease.owner, acked, count=None if count < 0 else count)
        return count


class Actor:
    """One process: the store on its own connection, behind a gate."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.gate = Gate()
        self.tasks: set[asyncio.Task[None]] = set()
        self.calls = GatedPipeline(world, self.gate)
        self.routing = Routing(self.calls, compiled)
        self.wakeups = Wakeups(self.calls)
        self.api_keys = ApiKeys(self.calls, self.routing, self.wakeups)
        self.channels = Channels(self.calls, self.routing, self.wakeups)
        self.account_channels = AccountChannels(
            self.calls, self.routing, self.wakeups, channels=self.channels
        )
        self.leases = ReportingLeases(self.calls, world)
        self.queues = ReportingQueues(self.calls, world)
        # An edge needs them; the model does not.
        self.sessions = Sessions(self.calls, self.routing, self.wakeups, encode=encode_patterns)
        self.principals = Principals(self.api_keys)
        self.quotas = AccountQuotas(self.calls)
        self.stream_reads = StreamReads(self.calls)
        self.streams = Streams(self.calls, self.routing)
        self.native_tokens = NativeTokens(TokenKeys(self.calls))
        self.tickets = Tickets(self.calls)
        stores = PublishStores(self.routing, self.queues, self.sessions, Receipts(self.calls))
        self.publisher = Publisher(stores)

    def stores(self, heartbeat: Heartbeat, *, instance: str) -> Stores:
        """As an edge has them."""
        names = (
            *("api_keys", "channels", "account_channels", "leases", "queues", "wakeups"),
            *("principals", "quotas", "routing", "sessions", "stream_reads", "streams"),
            *("native_tokens", "tickets"),
        )
        mine = {name: getattr(self, name) for name in names}
        return cast(
            Stores,
            SimpleNamespace(redis=self.calls.redis, heartbeat=heartbeat, instance=instance, **mine),
        )

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Starts work that runs as far as the gate lets it, and ends when Redis is away."""
        task = self.world.loop.create_task(self._until_redis_is_away(work))
        self.tasks.add(task)
        task.add_done_callback(self._ended)

    async def _until_redis_is_away(self, work: Coroutine[Any, Any, None]) -> None:
        with contextlib.suppress(StoreUnavailable):
            await work

    def _ended(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.world.model.violations.append(repr(task.exception()))

    async def publish(self, account_id: str, events: Sequence[Event]) -> None:
        """Publishes as a gateway does."""
        await self.publisher.publish(Posted(account_id, events, b"", Form.JSON, None))

    def offer(self, loop: DeliveryLoop, inline: InlineEntries) -> None:
        """Passes inline entries on, as an edge does."""
        loop.deliver_inline(inline)


class Client:
    """The client of one socket: it reads everything, and answers pings when the machine says so."""

    is_waiting = False
    """It should have been sent something by now."""
    waits_s = 0.0
    """How long it has to wait for what it will be sent."""

    def __init__(self, world: World, secret: str, *, channel: str = "") -> None:
        """`channel`: which one its URL names."""
        self.reader: Reader | None = None
        self.open = True
        self.closing = False
        self._world = world
        self._secret = secret
        self._query = f"channel={channel}".encode() if channel else b""
        self._pings: list[tuple[bytes, int]] = []
        self._inbox: asyncio.Queue[Message] = asyncio.Queue()
        self._inbox.put_nowait({"type": "websocket.connect"})
        self._on_pong: Callable[[bytes], None]
        self._control: Control = {
            "unread_bytes": lambda: 0,
            "last_ping_s": lambda: 0.0,
            "write": self._read,
            "hear_control_frames": lambda _: None,
            "hear_messages": lambda *_: None,
            "hold_messages": lambda _: None,
            "write_encoded": lambda _: None,
            "buffered_bytes": lambda: 0,
            "hear_room": lambda _: None,
            "hear_pongs": self._hear_pongs,
        }

    async def run(self, edge: "GatedEdge") -> None:
        CLIENT.set(self)
        scope = {
            "type": "websocket",
            "query_string": self._query,
            "headers": [(b"authorization", b"Bearer " + self._secret.encode())],
            "subprotocols": [],
            "extensions": {"websocket.control": self._control},
        }
        try:
            await serve_socket(open_pelion_socket, edge, scope, self._receive, self._send)
        finally:
            self.open = False

    @property
    def has_open_ping(self) -> bool:
        return bool(self._pings)

    def pong(self) -> None:
        """Answers the newest ping, which confirms the older ones too."""
        payload, received = self._pings[-1]
        self._world.loop.call_soon(self._send_pong, payload, received)

    def _send_pong(self, payload: bytes, received: int) -> None:
        assert self.reader is not None
        self.reader.acked_until = received
        self._pings.clear()
        self._on_pong(payload)

    def close(self) -> None:
        self.closing = True
        self._inbox.put_nowait({"type": "websocket.disconnect", "code": 1000})

    async def _receive(self) -> Message:
        return await self._inbox.get()

    def _read(self, texts: Sequence[bytes], ping: bytes | None) -> None:
        assert self.reader is not None
        for text in texts:
            frame = orjson.loads(text)
            numbers = [int(item["ep"]) for item in frame.get("registrations", ())]
            for number in numbers or [int(item["id"]) for item in frame["events"]]:
                self._world.model.record_send(self.reader, number)
        if ping is not None:
            self._pings.append((ping, len(self.reader.received)))

    def _hear_pongs(self, on_pong: Callable[[bytes], None]) -> None:
        self._on_pong = on_pong

    async def _send(self, message: Message) -> None:
        if message["type"] in ("websocket.close", "websocket.abort"):
            self.close()


CLIENT: ContextVar[Client] = ContextVar("client")


class ReportingHeartbeat(Heartbeat):
    """A heartbeat at the machine's time that reports to the model."""

    def __init__(self, calls: Pipeline, world: World, *, instance: str) -> None:
        super().__init__(calls, instance=instance, ttl_ms=HOUR_MS)
        self._world = world
        self._of = instance

    async def beat(self) -> None:
        now_ms = self._world.now_ms
        await super().beat()
        self._world.model.record_heartbeat(self._of, now_ms=now_ms)


class WatchedAckScheduler(AckScheduler):
    """An ack scheduler whose interval the machine ends."""

    @property
    def waits(self) -> bool:
        return bool(self._waiting)


class GatedEdge(Edge):
    """A real edge without its timed loops: the machine delivers wakeups and heartbeats."""

    def __init__(self, world: World, number: int, *, actor: Callable[[World], Actor] = Actor) -> None:
        self.actor = a = actor(world)
        self.instance = new_instance_id(f"edge-{number}")
        self.clients: list[Client] = []
        self.lost_a_wakeup = False
        super().__init__(
            a.stores(ReportingHeartbeat(a.calls, world, instance=self.instance), instance=self.instance),
            _SETTINGS,
            # No client of the machine publishes by a socket.
            publishing=cast(Publishing, SimpleNamespace(publisher=a.publisher)),
        )
        self.acks: WatchedAckScheduler = WatchedAckScheduler()
        self.ping_spacing_s = 0

    def open(self, client: Client) -> None:
        self.clients.append(client)
        self.actor.start(client.run(self))

    def crash(self) -> None:
        """Cuts it off from Redis and from its clients."""
        self.actor.gate.close(after=0)
        self.clients.clear()

    async def beat_now(self) -> None:
        await self.heartbeat.beat()

    async def receive_wakeups(self) -> None:
        """Handles the wakeups in flight to it."""
        for message in self.actor.world.in_flight.pop(self.instance, []):
            if (inline := parse_inline_entries(message)) is not None:
                self._deliver_inline(inline)
                continue
            words = message.decode().split()
            # In the order of creation: ids are random, and an example must repeat exactly.
            for api_key_id in filter(words.__contains__, self.actor.world.model.keys):
                self.wakeups.on_messages([api_key_id.encode()])

    def _deliver_inline(self, inline: InlineEntries) -> None:
        numbers = [int(notification.event_id) for notification in inline.notifications]
        with self.actor.world.model.delivering_inline(inline.owner, numbers):
            for holder in self.registry.of(inline.channel):
                assert isinstance(holder, LeaseHolder)
                self.actor.offer(holder.loop, inline)

    def lose_wakeups(self, count: int) -> None:
        """Loses the first wakeups in flight to it."""
        posted = self.actor.world.in_flight.get(self.instance, [])
        self.lost_a_wakeup = self.lost_a_wakeup or bool(posted)
        del posted[:count]

    async def sweep(self) -> None:
        self.lost_a_wakeup = False
        for connection in self.registry.all():
            connection.wake()

    def lose_redis(self) -> None:
        self.wakeups.on_lost()

    async def regain_redis(self) -> None:
        await self.heartbeat.beat()
        self.lose_redis()
        await self.sweep()

    @property
    def is_behind(self) -> bool:
        """A call waits, or a wakeup is in flight or lost."""
        posted = self.actor.world.in_flight.get(self.instance)
        return bool(posted) or self.lost_a_wakeup or not self.actor.gate.is_open

    @property
    def is_quiescent(self) -> bool:
        """Nothing is behind, and all confirmed notifications are acked."""
        return not self.is_behind and not self.acks.waits
