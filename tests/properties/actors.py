"""The engine's own parts on one event loop, whose every call to Redis the machine may hold up.

An actor is one process of an installation: a gateway, a reaper, an edge. Each has a connection of its own and
a gate before it; between two steps nothing moves, so an order of events happens again exactly.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextvars import ContextVar
from typing import Any

import orjson
from starlette.types import Message

from services.socket_edge import edge as edges
from services.socket_edge.edge import Edge, Timing
from services.socket_edge.held import LeaseHolder
from services.socket_edge.leased_socket import Limits
from services.socket_edge.pelion_socket import pelion_socket
from services.socket_edge.session_socket import SessionLimits
from shared.delivery.loop import AckScheduler, DeliveryLoop
from shared.model.channels import Lease
from shared.model.errors import StoreUnavailable
from shared.model.events import Event
from shared.redis.pipeline import Pipeline
from shared.runtime.websocket.protocol import Control
from shared.store.api_keys import ApiKeys
from shared.store.channels import Channels
from shared.store.inline_entries import InlineEntries, parse_inline_entries
from shared.store.leases import Claimed, Leases
from shared.store.queues import Batch, Queues
from shared.store.replicas import Heartbeat, new_instance_id
from shared.store.routing import Routing
from shared.store.sessions import Sessions
from shared.store.wakeups import Line, Wakeups
from shared.tokens import Principals
from shared.wire.pelion.subscriptions import compiled
from shared.wire.sessions import stored_wanted
from tests.properties.pending import Reader
from tests.properties.world import Gate, GatedCalls, World, begun

HOUR_MS = 3_600_000
# Small, so that windows fill and batches are cut: a socket begins with two notifications or so.
LIMITS = Limits(
    frame_bytes=48 * 1024,
    frame_count=2,
    in_flight_count=512,
    in_flight_bytes=4 * 1024 * 1024,
    ping_timeout_s=30.0,
)
_TIMING = Timing(ping_interval_s=20, heartbeat_s=10, redis_outage_limit_s=120, long_poll_wait_s=30)


_NO_SESSIONS = SessionLimits(
    idle_s=3600,
    most_per_address=None,
    destination="edge",
    trusted_proxies=(),
)


class ToldLeases(Leases):
    """Leases that tell the model what Redis did."""

    def __init__(self, calls: Pipeline, world: World) -> None:
        super().__init__(calls)
        self._world = world

    async def claim(self, api_key_id: str, *, owner: str) -> Claimed:
        claimed = await super().claim(api_key_id, owner=owner)
        _CLIENT.get().reader = self._world.pending.claimed(api_key_id, owner)
        return claimed

    async def release(self, lease: Lease, *, now_ms: int) -> bool:
        # The edge reads the wall clock; here it is as late as the machine says.
        now_ms = self._world.now_ms
        given_back = await super().release(lease, now_ms=now_ms)
        self._world.pending.released(lease.owner, now_ms=now_ms, given_back=given_back)
        return given_back


class ToldQueues(Queues):
    """Queues that tell the model what Redis did."""

    def __init__(self, calls: Pipeline, world: World) -> None:
        super().__init__(calls)
        self._world = world

    def _append(
        self, api_key_id: str, events: Sequence[Event], oldest: str, traceparent: str
    ) -> asyncio.Future[Any]:
        answer = super()._append(api_key_id, events, oldest, traceparent)
        return begun(self._appended(api_key_id, events, answer))

    async def _appended(self, api_key_id: str, events: Sequence[Event], answer: Awaitable[Any]) -> Any:
        found = await answer
        self._world.pending.appended(
            api_key_id, [int(event.id) for event in events], queued=found[0] == b"queued"
        )
        return found

    async def reclaim(self, lease: Lease) -> Batch:
        batch = await super().reclaim(lease)
        self._world.pending.taken_back(lease.owner)
        return batch

    async def ack_until(self, lease: Lease, *, until: str) -> int | None:
        confirmed = self._world.pending.confirmed_by(lease.owner)
        count = await super().ack_until(lease, until=until)
        self._world.pending.acked(lease.owner, confirmed, count=count)
        return count


class Actor:
    """One process: the store on a connection of its own, behind a gate."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.gate = Gate()
        self.tasks: set[asyncio.Task[None]] = set()
        self.calls = GatedCalls(world, self.gate)
        # RoutingTable are good for no time at all: the clock here is the machine's.
        self.routing = Routing(self.calls, compiled, fresh_s=0, spread_s=0)
        self.wakeups = Wakeups(self.calls)
        self.api_keys = ApiKeys(self.calls, self.routing, self.wakeups)
        self.channels = Channels(self.calls, self.routing, self.wakeups)
        self.leases = ToldLeases(self.calls, world)
        self.queues = ToldQueues(self.calls, world)
        # Of no concern to the model, but an edge has them.
        sessions = Sessions(self.calls, self.routing, self.wakeups, stored=stored_wanted)
        self.more = (Principals(self.api_keys), sessions)

    def begins(self, work: Coroutine[Any, Any, None]) -> None:
        """It goes on as far as its gate lets it; a Redis that is away ends it."""
        task = self.world.loop.create_task(self._until_redis_is_away(work))
        self.tasks.add(task)
        task.add_done_callback(self._ended)

    async def _until_redis_is_away(self, work: Coroutine[Any, Any, None]) -> None:
        with contextlib.suppress(StoreUnavailable):
            await work

    def _ended(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.world.pending.faults.append(repr(task.exception()))

    async def publish(self, account_id: str, events: Sequence[Event]) -> None:
        """As a gateway does: look up the routes, and queue, which wakeups by itself."""
        routes = await self.routing.table(account_id)
        wanted: dict[str, list[Event]] = {}
        for event in events:
            for api_key_id in routes.channels_for(event):
                wanted.setdefault(api_key_id, []).append(event)
        in_order = sorted(wanted, key=list(self.world.pending.keys).index)
        await self.queues.append_all([(api_key_id, wanted[api_key_id]) for api_key_id in in_order])

    def offers(self, drain: DeliveryLoop, carried: InlineEntries) -> None:
        """As an edge does with a wakeup that carries what was queued."""
        drain.offer(carried)


class Client:
    """A stock client's side of one socket: it reads all that comes, and answers when the machine says so."""

    def __init__(self, world: World, secret: str) -> None:
        self.reader: Reader | None = None
        self.open = True
        self.closing = False
        self._world = world
        self._secret = secret
        self._pings: list[tuple[bytes, int]] = []
        self._inbox: asyncio.Queue[Message] = asyncio.Queue()
        self._inbox.put_nowait({"type": "websocket.connect"})
        self._tell_pong: Callable[[bytes], None]
        self._control: Control = {
            "unread_bytes": lambda: 0,
            "last_ping_s": lambda: 0.0,
            "write": self._read,
            "hear_pongs": self._hear_pongs,
        }

    async def talks_to(self, edge: "GatedEdge") -> None:
        _CLIENT.set(self)
        scope = {
            "type": "websocket",
            "headers": [(b"authorization", b"Bearer " + self._secret.encode())],
            "subprotocols": [],
            "extensions": {"websocket.control": self._control},
        }
        try:
            await pelion_socket(edge, scope, self._receive, self._send)
        finally:
            self.open = False

    @property
    def owes_a_pong(self) -> bool:
        return bool(self._pings)

    def answers(self) -> None:
        """The pong to the newest ping, which stands for the older ones too."""
        payload, received = self._pings[-1]
        self._world.loop.call_soon(self._answer, payload, received)

    def _answer(self, payload: bytes, received: int) -> None:
        assert self.reader is not None
        self.reader.acked_until = received
        self._pings.clear()
        self._tell_pong(payload)

    def leaves(self) -> None:
        self.closing = True
        self._inbox.put_nowait({"type": "websocket.disconnect", "code": 1000})

    async def _receive(self) -> Message:
        return await self._inbox.get()

    def _read(self, texts: Sequence[bytes], ping: bytes | None) -> None:
        assert self.reader is not None
        for text in texts:
            for item in orjson.loads(text)["registrations"]:
                self._world.pending.sent(self.reader, int(item["ep"]))
        if ping is not None:
            self._pings.append((ping, len(self.reader.received)))

    def _hear_pongs(self, heard: Callable[[bytes], None]) -> None:
        self._tell_pong = heard

    async def _send(self, message: Message) -> None:
        if message["type"] in ("websocket.close", "websocket.abort"):
            self.leaves()


_CLIENT: ContextVar[Client] = ContextVar("client")


class ToldHeartbeat(Heartbeat):
    """A heartbeat at the machine's time, of which the model hears."""

    def __init__(self, calls: Pipeline, world: World, *, instance: str) -> None:
        super().__init__(calls, instance=instance, ttl_ms=HOUR_MS)
        self._world = world
        self._of = instance

    async def beat(self, *, now_ms: int) -> None:
        now_ms = self._world.now_ms
        await super().beat(now_ms=now_ms)
        self._world.pending.beaten(self._of, now_ms=now_ms)


class WatchedAckScheduler(AckScheduler):
    """Acks a moment later: when the machine says that it has passed."""

    @property
    def waits(self) -> bool:
        return bool(self._waiting)


class GatedEdge(Edge):
    """A real edge, without the loops that follow the clock: the machine delivers wakeups and heartbeats."""

    def __init__(self, world: World, number: int, *, actor: Callable[[World], Actor] = Actor) -> None:
        self.actor = a = actor(world)
        self.instance = new_instance_id(f"edge-{number}")
        self.clients: list[Client] = []
        self.missed_a_wakeup = False
        super().__init__(
            edges.Stores(a.calls.redis, a.api_keys, a.channels, a.leases, a.queues, a.wakeups, *a.more),
            ToldHeartbeat(a.calls, world, instance=self.instance),
            instance=self.instance,
            limits=LIMITS,
            timing=_TIMING,
            session_limits=_NO_SESSIONS,
            close_codes=2019,
        )
        self.acks: WatchedAckScheduler = WatchedAckScheduler()

    def opens(self, client: Client) -> None:
        self.clients.append(client)
        self.actor.begins(client.talks_to(self))

    def dies(self) -> None:
        """Nothing of it reaches Redis or a client any more."""
        self.actor.gate.close(after=0)
        self.clients.clear()

    async def beats(self) -> None:
        await self.heartbeat.beat()

    async def hears(self) -> None:
        """The wakeups that wait for it."""
        for message in self.actor.world.post.pop(self.instance, []):
            if (carried := parse_inline_entries(message)) is not None:
                self._passes_on(carried)
                continue
            words = message.decode().split()
            # In the order in which the keys were made: their ids are random.
            for api_key_id in filter(words.__contains__, self.actor.world.pending.keys):
                self.wakeups.dispatch([api_key_id])

    def _passes_on(self, carried: InlineEntries) -> None:
        numbers = [int(notification.event_id) for notification in carried.notifications]
        with self.actor.world.pending.carrying(carried.owner, numbers):
            for holder in self.registry.of(carried.channel):
                assert isinstance(holder, LeaseHolder)
                self.actor.offers(holder.loop, carried)

    def misses(self, count: int) -> None:
        """The first wakeups that wait for it are lost."""
        posted = self.actor.world.post.get(self.instance, [])
        self.missed_a_wakeup = self.missed_a_wakeup or bool(posted)
        del posted[:count]

    async def sweeps(self) -> None:
        self.missed_a_wakeup = False
        for connection in self.registry.all():
            connection.wake()

    def lost_redis(self) -> None:
        self.wakeups.dispatch(Line.LOST)

    async def has_redis_again(self) -> None:
        await self.heartbeat.beat()
        self.lost_redis()
        await self.sweeps()

    @property
    def is_behind(self) -> bool:
        """A call of it waits, or a wakeup for it is under way or lost."""
        posted = self.actor.world.post.get(self.instance)
        return bool(posted) or self.missed_a_wakeup or not self.actor.gate.is_open

    @property
    def knows_all(self) -> bool:
        """And Redis knows from it what clients have confirmed."""
        return not self.is_behind and not self.acks.waits
