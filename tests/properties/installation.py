"""A whole installation on one event loop, and the model beside it."""

from collections.abc import Callable, Mapping

from shared.delivery.acks import ACK_INTERVAL_S
from shared.model.api_keys import ApiKey, Scope, hash_of, new_id, new_secret
from shared.model.channels import Kind
from shared.model.events import DEVICE_REGISTRATIONS, Event
from shared.redis.pipeline import Script
from shared.store import keyspace
from tests.harness.valkey import Valkey
from tests.properties.ack_client import FrameClient
from tests.properties.actors import HOUR_MS, Actor, Client, GatedEdge
from tests.properties.model import Key
from tests.properties.stage import Stage
from tests.properties.world import START_MS, World

IDLE_EXPIRY_MS = 24 * HOUR_MS
_KEYS = 2
_EDGES = 2


class Installation(Stage):
    """Two edges (a crashed one is replaced), a gateway, a reaper, an administrator, and two live API keys."""

    def __init__(
        self, valkey: Valkey, *, scripts: Mapping[str, Script], actor: Callable[[World], Actor]
    ) -> None:
        super().__init__(valkey, scripts=scripts)
        self.world.record_wakeups(self.direct)
        self.model = self.world.model
        self._actor = actor
        self.redis_is_up = True
        self.account_id = new_id()
        self.generations: dict[str, list[str]] = {}
        self.edges: list[GatedEdge] = []
        self._dead: list[GatedEdge] = []
        self._secrets: dict[str, str] = {}
        self._instances = 0
        self._number = 0
        self.run(self._begin())

    async def _begin(self) -> None:
        self.gateway, self.reaper, self.admin = (self._actor(self.world) for _ in range(3))
        for _ in range(_EDGES):
            await self._start_edge()
        for _ in range(_KEYS):
            await self.register(await self._make_key())

    def close(self) -> None:
        self.end([self.admin, *self.actors, *(edge.actor for edge in self._dead)])

    # Actors, keys and clients

    @property
    def actors(self) -> list[Actor]:
        return [self.gateway, self.reaper, *(edge.actor for edge in self.edges)]

    @property
    def live_keys(self) -> list[Key]:
        return [key for key in self.model.keys.values() if not key.revoked]

    @property
    def clients(self) -> list[Client]:
        return [c for edge in self.edges for c in edge.clients if c.open and not c.closing]

    # API keys and their channels

    async def _make_key(self) -> Key:
        api_key_id = new_id()
        self._secrets[api_key_id] = new_secret(api_key_id)
        await self.admin.api_keys.create(self._record_of(api_key_id))
        self.model.keys[api_key_id] = Key(api_key_id)
        return self.model.keys[api_key_id]

    def _record_of(self, api_key_id: str) -> ApiKey:
        return ApiKey(
            id=api_key_id,
            account_id=self.account_id,
            name="receiver",
            scopes=frozenset({Scope.RECEIVE}),
            created_at_ms=START_MS,
            secret_hash=hash_of(self._secrets[api_key_id]),
        )

    async def register(self, key: Key) -> None:
        now_ms = self.world.now_ms
        created = await self.admin.channels.create(self.account_id, key.id, kind=Kind.WEBSOCKET)
        self.model.record_creation(key, now_ms=now_ms, created=created)
        generation = self.direct.hget(keyspace.channel(key.id), "generation")
        generations = self.generations.setdefault(key.id, [])
        if generation is not None and generation.decode() not in generations:
            generations.append(generation.decode())

    async def delete(self, key: Key) -> None:
        existed = await self.admin.channels.delete(self.account_id, key.id, kind=Kind.WEBSOCKET)
        self.model.record_deletion(key, existed=existed)

    async def revoke(self, key: Key) -> None:
        """Revokes the key and creates another in its place."""
        await self.admin.api_keys.revoke(self._record_of(key.id))
        self.model.record_revocation(key)
        await self.register(await self._make_key())

    # Publishers, clients, the reaper

    def publish(self, count: int) -> None:
        """Publishes so many events to all channels of the account."""
        numbers = range(self._number, self._number + count)
        self._number += count
        events = [Event(str(n), DEVICE_REGISTRATIONS, b'{"ep":"%d"}' % n) for n in numbers]
        self.gateway.start(self.gateway.publish(self.account_id, events))
        self.run()

    def connect(self, edge: GatedEdge, key: Key) -> None:
        async def opens() -> None:
            edge.open(Client(self.world, self._secrets[key.id]))

        self.run(opens())

    def open_natively(self, edge: GatedEdge, key: Key) -> None:
        """Opens a native socket, whose client then opens the key's channel."""

        async def opens() -> None:
            edge.open(FrameClient(self.world, self._secrets[key.id], key.id))

        self.run(opens())

    def expire(self, key: Key, *, generation: str, late: bool) -> None:
        """The reaper visits a channel; a late one is held up between its read of the owner and its script."""
        self.reaper.gate.open()
        self.run()
        if late:
            self.reaper.gate.close(after=3 if key.channel and key.channel.owner else 1)
        self.reaper.start(self._expire(key, generation, late))
        self.run()

    async def _expire(self, key: Key, generation: str, late: bool) -> None:
        ended = await self.reaper.channels.expire(
            self.account_id, key.id, generation=generation, idle_expiry_ms=IDLE_EXPIRY_MS
        )
        channel = key.channel
        is_current = generation == self.generations[key.id][-1]
        times = {"now_ms": self.world.now_ms, "idle_expiry_ms": IDLE_EXPIRY_MS}
        due = channel is not None and is_current and self.model.is_due(channel, **times)
        self.model.record_expiry(key, ended=ended, due=due, late=late)

    # Processes

    async def _start_edge(self) -> None:
        self._instances += 1
        edge = GatedEdge(self.world, self._instances, actor=self._actor)
        self.edges.append(edge)
        await edge.beat_now()

    def crash_edge(self, edge: GatedEdge) -> None:
        """Ends its sockets and its heartbeat without releasing anything, and starts another instance."""
        self.edges.remove(edge)
        self._dead.append(edge)
        if not edge.actor.gate.is_open:
            # Wakeups that it was about to publish are lost.
            for other in self.edges:
                other.lost_a_wakeup = True
        edge.crash()
        self.world.in_flight.pop(edge.instance, None)
        self.direct.delete(keyspace.heartbeat(edge.instance))
        self.model.record_crash(edge.instance)
        self.run(self._start_edge())

    def crash_redis(self) -> None:
        """Kills Redis: answered writes are on its disk, wakeups in flight are lost."""
        self.valkey.kill()
        self.redis_is_up = False
        for edge in self.edges:
            edge.lose_redis()
        self.world.in_flight.clear()

    def restart_redis(self) -> None:
        self.valkey.start()
        self.valkey.wait_ready()
        self.direct.close()
        self.direct = self.valkey.client()
        self.world.set_time_of(self.direct)
        self.world.record_wakeups(self.direct)
        self.redis_is_up = True
        for edge in self.edges:
            edge.actor.start(edge.regain_redis())
            self.run()

    def advance_time(self, hours: int) -> None:
        """Advances the clocks: timers fire, and edges whose calls get through send heartbeats."""
        self.world.now_ms += hours * HOUR_MS
        if self.redis_is_up:
            self.world.set_time_of(self.direct)
        self._loop_s += 2
        for edge in self.edges:
            if edge.actor.gate.is_open:
                self.run(edge.beat_now())

    def let_time_pass(self, seconds: float) -> None:
        """Timers fire; the clock of Redis stands still."""
        self._loop_s += seconds
        self.run()

    def answer_pings(self) -> None:
        """Answers all pings, until nothing more can be sent and confirmed."""
        while answering := [client for client in self.clients if client.has_open_ping]:
            for client in answering:
                client.pong()
            self.run()
            self.let_time_pass(max(client.waits_s for client in answering))
        self.flush_acks()

    def flush_acks(self) -> None:
        """Ends the ack interval: what clients have confirmed is acked."""
        self._loop_s += 2 * ACK_INTERVAL_S
        self.run()

    def open_gates(self) -> None:
        """Opens all gates, one actor after the other."""
        for actor in self.actors:
            actor.gate.open()
            self.run()

    def deliver_wakeups(self) -> None:
        for edge in self.edges:
            self.run(edge.receive_wakeups())
            self.run(edge.sweep())
