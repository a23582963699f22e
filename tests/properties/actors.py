"""The engine's own parts on one event loop, whose every call to Redis the machine may hold up.

An actor is one process of an installation: a gateway, a reaper, an edge. Each has a connection of its own and
a gate before it; between two steps nothing moves, so an order of events happens again exactly.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

import orjson
from starlette.types import Message

from services.socket_edge import edge as edges
from services.socket_edge.edge import Edge, Timing
from services.socket_edge.hold import Limits
from services.socket_edge.pelion_socket import pelion_socket
from services.socket_edge.session_sockets import SessionLimits
from shared.model.channels import Lease
from shared.model.errors import StoreUnavailable
from shared.model.events import Event
from shared.runtime.connections import connect
from shared.store.api_keys import ApiKeys
from shared.store.calls import Argument, Calls, Script, _Call
from shared.store.channels import Channels
from shared.store.leases import Claimed, Leases
from shared.store.nudges import Nudges
from shared.store.queues import Appended, Batch, Queues
from shared.store.replicas import Heartbeat, new_boot
from shared.store.routes import Routing
from shared.store.sessions import Sessions
from shared.tokens import Principals
from shared.wire.pelion.subscriptions import compiled
from shared.wire.sessions import stored_wanted
from tests.properties.owed import Owed, Reader

HOUR_MS = 3_600_000
START_MS = 1_700_000_000_000
# The loop has nothing to do when so many turns of it changed nothing.
_QUIET_TURNS = 12
# Small, so that windows fill and batches are cut: a socket begins with two notifications or so.
LIMITS = Limits(
    frame_bytes=48 * 1024,
    frame_count=2,
    in_flight_count=512,
    in_flight_bytes=4 * 1024 * 1024,
    ping_timeout_s=30.0,
)
_TIMING = Timing(ping_interval_s=20, heartbeat_s=10, redis_away_limit_s=120, long_poll_wait_s=30)


_NO_SESSIONS = SessionLimits(
    ping_interval_s=20,
    ping_timeout_s=20,
    idle_s=3600,
    most_per_address=None,
    destination="edge",
    trusted_proxies=(),
)


class World:
    """What all actors share: the model, the time, the nudges under way, and how busy they are."""

    def __init__(self, loop: asyncio.AbstractEventLoop, url: str, scripts: Mapping[str, Script]) -> None:
        self.loop = loop
        self.url = url
        self.scripts = scripts
        self.owed = Owed()
        self.now_ms = START_MS
        self.post: dict[str, set[str]] = {}
        self.calls_begun = 0
        self.calls_under_way = 0
        self._call_ended = asyncio.Event()
        # So that the model is told of things in the order in which Redis did them.
        self.one_at_a_time = asyncio.Lock()

    @contextlib.contextmanager
    def calling(self) -> Iterator[None]:
        self.calls_begun += 1
        self.calls_under_way += 1
        try:
            yield
        finally:
            self.calls_under_way -= 1
            self._call_ended.set()

    async def quiet(self) -> None:
        """Waits until everybody waits for the machine."""
        idle = 0
        while idle < _QUIET_TURNS:
            begun = self.calls_begun
            if self.calls_under_way:
                self._call_ended.clear()
                await self._call_ended.wait()
            else:
                await asyncio.sleep(0)
            idle = idle + 1 if begun == self.calls_begun and not self.calls_under_way else 0


class Gate:
    """Lets calls through, all or so many; the others stand in line."""

    def __init__(self) -> None:
        self._left: int | None = None
        self._line: deque[asyncio.Future[None]] = deque()

    @property
    def is_open(self) -> bool:
        return self._left is None

    def close(self, *, after: int) -> None:
        self._left = after

    def let_through(self, count: int) -> None:
        while count and self._line:
            first = self._line.popleft()
            if not first.done():
                first.set_result(None)
                count -= 1

    def open(self) -> None:
        self._left = None
        self.let_through(len(self._line))

    async def passed(self) -> None:
        if self._left is None:
            return
        if self._left > 0 and all(place.done() for place in self._line):
            self._left -= 1
            return
        self._line.append(asyncio.get_running_loop().create_future())
        await self._line[-1]


class GatedCalls(Calls):
    """Calls that pass a gate first; nudges are posted for the machine to deliver, or to lose."""

    def __init__(self, world: World, gate: Gate) -> None:
        self.redis = connect(world.url)
        super().__init__(self.redis, scripts=world.scripts)
        self._world = world
        self._gate = gate

    async def command(self, *arguments: Argument) -> Any:
        await self._gate.passed()
        with self._world.calling():
            answer = await super().command(*arguments)
        if arguments[0] == "PUBLISH":
            name, ids = str(arguments[1]), str(arguments[2])
            self._world.post.setdefault(name.removeprefix("nudge:"), set()).update(ids.split())
        return answer

    async def script(self, name: str, keys: Sequence[str], *arguments: Argument) -> Any:
        await self._gate.passed()
        with self._world.calling():
            return await super().script(name, keys, *arguments)

    async def _send(self, calls: list[_Call]) -> None:
        async with self._world.one_at_a_time:
            await super()._send(calls)


class ToldLeases(Leases):
    """Leases that tell the model what Redis did."""

    def __init__(self, calls: Calls, world: World) -> None:
        super().__init__(calls)
        self._world = world

    async def claim(self, api_key_id: str, *, owner: str) -> Claimed:
        claimed = await super().claim(api_key_id, owner=owner)
        _CLIENT.get().reader = self._world.owed.claimed(api_key_id, owner)
        return claimed

    async def release(self, lease: Lease, *, now_ms: int) -> bool:
        # The edge reads the wall clock; here it is as late as the machine says.
        now_ms = self._world.now_ms
        given_back = await super().release(lease, now_ms=now_ms)
        self._world.owed.released(lease.owner, now_ms=now_ms, given_back=given_back)
        return given_back


class ToldQueues(Queues):
    """Queues that tell the model what Redis did."""

    def __init__(self, calls: Calls, world: World) -> None:
        super().__init__(calls)
        self._world = world

    async def append(
        self, api_key_id: str, events: Sequence[Event], *, traceparent: str = ""
    ) -> tuple[Appended, str]:
        appended, owner = await super().append(api_key_id, events, traceparent=traceparent)
        numbers = [int(event.id) for event in events]
        self._world.owed.appended(api_key_id, numbers, queued=appended is Appended.QUEUED)
        return appended, owner

    async def look_again(self, lease: Lease) -> Batch:
        batch = await super().look_again(lease)
        self._world.owed.taken_back(lease.owner)
        return batch

    async def settle(self, lease: Lease, *, until: str) -> int | None:
        confirmed = self._world.owed.confirmed_by(lease.owner)
        count = await super().settle(lease, until=until)
        self._world.owed.settled(lease.owner, confirmed, count=count)
        return count


class Actor:
    """One process: the store on a connection of its own, behind a gate."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.gate = Gate()
        self.tasks: set[asyncio.Task[None]] = set()
        self.calls = GatedCalls(world, self.gate)
        self.routing = Routing(self.calls, compiled)
        self.nudges = Nudges(self.calls)
        self.api_keys = ApiKeys(self.calls, self.routing, self.nudges)
        self.channels = Channels(self.calls, self.routing, self.nudges)
        self.leases = ToldLeases(self.calls, world)
        self.queues = ToldQueues(self.calls, world)
        # Of no concern to the model, but an edge has them.
        sessions = Sessions(self.calls, self.routing, self.nudges, stored=stored_wanted)
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
            self.world.owed.faults.append(repr(task.exception()))

    async def publish(self, account_id: str, events: Sequence[Event]) -> None:
        """As a gateway does: look up the routes, queue, nudge."""
        routes = await self.routing.routes(account_id)
        wanted: dict[str, list[Event]] = {}
        for event in events:
            for api_key_id in routes.channels_for(event):
                wanted.setdefault(api_key_id, []).append(event)
        for api_key_id in sorted(wanted, key=list(self.world.owed.keys).index):
            _, owner = await self.queues.append(api_key_id, wanted[api_key_id])
            if owner:
                self.nudges.send(owner, api_key_id)


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

    async def talks_to(self, edge: "GatedEdge") -> None:
        _CLIENT.set(self)
        scope = {
            "type": "websocket",
            "headers": [(b"authorization", b"Bearer " + self._secret.encode())],
            "subprotocols": [],
            "extensions": {"websocket.control": {"unread_bytes": lambda: 0}},
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
        payload, _ = self._pings[-1]
        self._inbox.put_nowait({"type": "websocket.pong", "bytes": payload})

    def leaves(self) -> None:
        self.closing = True
        self._inbox.put_nowait({"type": "websocket.disconnect", "code": 1000})

    async def _receive(self) -> Message:
        message = await self._inbox.get()
        if message["type"] == "websocket.pong" and self.reader is not None:
            self.reader.confirmed = next(n for payload, n in self._pings if payload == message["bytes"])
            self._pings.clear()
        return message

    async def _send(self, message: Message) -> None:
        match message["type"]:
            case "websocket.send":
                assert self.reader is not None
                for item in orjson.loads(message["utf8"])["registrations"]:
                    self._world.owed.sent(self.reader, int(item["ep"]))
            case "websocket.ping":
                assert self.reader is not None
                self._pings.append((message["bytes"], len(self.reader.received)))
            case "websocket.close" | "websocket.abort":
                self.leaves()


_CLIENT: ContextVar[Client] = ContextVar("client")


class ToldHeartbeat(Heartbeat):
    """A heartbeat at the machine's time, of which the model hears."""

    def __init__(self, calls: Calls, world: World, *, boot: str) -> None:
        super().__init__(calls, boot=boot, ttl_ms=HOUR_MS)
        self._world = world
        self._of = boot

    async def beat(self, *, now_ms: int) -> None:
        now_ms = self._world.now_ms
        await super().beat(now_ms=now_ms)
        self._world.owed.beaten(self._of, now_ms=now_ms)


class GatedEdge(Edge):
    """A real edge, without the loops that follow the clock: the machine delivers nudges and heartbeats."""

    def __init__(self, world: World, number: int, *, actor: Callable[[World], Actor] = Actor) -> None:
        self.actor = a = actor(world)
        self.boot = new_boot(f"edge-{number}")
        self.clients: list[Client] = []
        self.missed_a_nudge = False
        super().__init__(
            edges.Stores(a.calls.redis, a.api_keys, a.channels, a.leases, a.queues, a.nudges, *a.more),
            ToldHeartbeat(a.calls, world, boot=self.boot),
            boot=self.boot,
            limits=LIMITS,
            timing=_TIMING,
            session_limits=_NO_SESSIONS,
            close_codes=2019,
        )

    def opens(self, client: Client) -> None:
        self.clients.append(client)
        self.actor.begins(client.talks_to(self))

    def dies(self) -> None:
        """Nothing of it reaches Redis or a client any more."""
        self.actor.gate.close(after=0)
        self.clients.clear()

    async def beats(self) -> None:
        await self._try_to_beat()

    async def hears(self) -> None:
        """The nudges that wait for it."""
        posted = self.actor.world.post.pop(self.boot, set())
        # In the order in which the keys were made: their ids are random.
        for api_key_id in filter(posted.__contains__, self.actor.world.owed.keys):
            self._heard(api_key_id)

    async def sweeps(self) -> None:
        self.missed_a_nudge = False
        for hold in self._all():
            hold.drain.wake()

    def lost_redis(self) -> None:
        for hold in self._all():
            hold.drain.doubt()

    async def has_redis_again(self) -> None:
        await self._try_to_beat()
        self.lost_redis()
        await self.sweeps()

    @property
    def knows_all(self) -> bool:
        """No call of it waits, and no nudge for it is under way or lost."""
        posted = self.actor.world.post.get(self.boot)
        return self.actor.gate.is_open and not self.missed_a_nudge and not posted
