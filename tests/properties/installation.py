"""A whole installation on one event loop, and beside it the model that is told of all that happens."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from shared.delivery.acks import ACK_INTERVAL_S
from shared.model.api_keys import ApiKey, Scope, hash_of, new_id, new_secret
from shared.model.channels import Kind
from shared.model.events import DEVICE_REGISTRATIONS, Event
from shared.redis.pipeline import Script
from shared.store import keyspace
from tests.harness.valkey import Valkey
from tests.properties.actors import HOUR_MS, Actor, Client, GatedEdge
from tests.properties.pending import Key
from tests.properties.world import START_MS, World

IDLE_EXPIRY_MS = 24 * HOUR_MS
_KEYS = 2
_EDGES = 2


class _Alarms(logging.Handler):
    """An engine that logs an error has met what it was not made for."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__(logging.ERROR)
        self._faults = faults

    def emit(self, record: logging.LogRecord) -> None:
        self._faults.append(f"{record.getMessage()}: {record.exc_info and record.exc_info[1]!r}")


class Installation:
    """Two edges (a crashed one is replaced), a gateway, a reaper, an administrator, two living API keys."""

    def __init__(
        self, valkey: Valkey, *, scripts: Mapping[str, Script], actor: Callable[[World], Actor]
    ) -> None:
        self.valkey = valkey
        self.direct = valkey.client()
        self.direct.flushall()
        self._runner = asyncio.Runner()
        loop = self._runner.get_loop()
        # Timers wait for the machine as everything else does.
        self._loop_s = loop.time()
        loop.time = lambda: self._loop_s  # type: ignore[method-assign]
        self.world = World(loop, valkey.url, scripts)
        self.world.listens(self.direct)
        self.pending = self.world.pending
        self._alarms = _Alarms(self.pending.faults)
        for room in ("services", "shared"):
            logging.getLogger(room).addHandler(self._alarms)
        self._actor = actor
        self.redis_is_up = True
        self.account_id = new_id()
        self.generations: dict[str, list[str]] = {}
        self.edges: list[GatedEdge] = []
        self._dead: list[GatedEdge] = []
        self._secrets: dict[str, str] = {}
        self._instances = 0
        self._number = 0
        self.does(self._begin())

    async def _begin(self) -> None:
        self.gateway, self.reaper, self.admin = (self._actor(self.world) for _ in range(3))
        for _ in range(_EDGES):
            await self._start_edge()
        for _ in range(_KEYS):
            await self.register(await self._make_key())

    def does(self, work: Coroutine[Any, Any, None] | None = None) -> None:
        """One step: the work, and what follows from it, until everybody waits again."""

        async def step() -> None:
            if work is not None:
                await work
            await self.world.quiet()

        self._runner.run(step())

    def close(self) -> None:
        self.does(self._disconnect())
        for room in ("services", "shared"):
            logging.getLogger(room).removeHandler(self._alarms)
        self._runner.close()
        self.direct.close()

    async def _disconnect(self) -> None:
        for actor in (self.admin, *self.actors, *(edge.actor for edge in self._dead)):
            await actor.calls.redis.aclose()

    # Who there is

    @property
    def actors(self) -> list[Actor]:
        return [self.gateway, self.reaper, *(edge.actor for edge in self.edges)]

    @property
    def living(self) -> list[Key]:
        return [key for key in self.pending.keys.values() if not key.revoked]

    @property
    def clients(self) -> list[Client]:
        return [c for edge in self.edges for c in edge.clients if c.open and not c.closing]

    # API keys and their channels

    async def _make_key(self) -> Key:
        api_key_id = new_id()
        self._secrets[api_key_id] = new_secret(api_key_id)
        await self.admin.api_keys.create(self._record_of(api_key_id))
        self.pending.keys[api_key_id] = Key(api_key_id)
        return self.pending.keys[api_key_id]

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
        made = await self.admin.channels.create(self.account_id, key.id, kind=Kind.WEBSOCKET, now_ms=now_ms)
        self.pending.registered(key, now_ms=now_ms, made=made)
        found = self.direct.hget(keyspace.channel(key.id), "generation")
        generations = self.generations.setdefault(key.id, [])
        if found is not None and found.decode() not in generations:
            generations.append(found.decode())

    async def delete(self, key: Key) -> None:
        was_there = await self.admin.channels.delete(self.account_id, key.id, kind=Kind.WEBSOCKET)
        self.pending.deleted(key, was_there=was_there)

    async def revoke(self, key: Key) -> None:
        """And another key takes its place."""
        await self.admin.api_keys.revoke(self._record_of(key.id))
        self.pending.revoked(key)
        await self.register(await self._make_key())

    # Publishers, clients, the reaper

    def publishes(self, count: int) -> None:
        """To all channels of the account."""
        numbers = range(self._number, self._number + count)
        self._number += count
        events = [Event(str(n), DEVICE_REGISTRATIONS, b'{"ep":"%d"}' % n) for n in numbers]
        self.gateway.begins(self.gateway.publish(self.account_id, events))
        self.does()

    def connects(self, edge: GatedEdge, key: Key) -> None:
        async def opens() -> None:
            edge.opens(Client(self.world, self._secrets[key.id]))

        self.does(opens())

    def expires(self, key: Key, *, generation: str, late: bool) -> None:
        """The reaper looks at a channel. If it is late, its script waits behind its look at the owner."""
        self.reaper.gate.open()
        self.does()
        if late:
            self.reaper.gate.close(after=3 if key.channel and key.channel.owner else 1)
        self.reaper.begins(self._expire(key, generation, late))
        self.does()

    async def _expire(self, key: Key, generation: str, late: bool) -> None:
        now_ms = self.world.now_ms
        ended = await self.reaper.channels.expire(
            self.account_id,
            key.id,
            generation=generation,
            now_ms=now_ms,
            idle_expiry_ms=IDLE_EXPIRY_MS,
        )
        channel = key.channel
        is_it = generation == self.generations[key.id][-1]
        times = {"now_ms": now_ms, "idle_expiry_ms": IDLE_EXPIRY_MS}
        due = channel is not None and is_it and self.pending.is_due(channel, **times)
        self.pending.expired(key, ended=ended, due=due, late=late)

    # What happens to processes

    async def _start_edge(self) -> None:
        self._instances += 1
        edge = GatedEdge(self.world, self._instances, actor=self._actor)
        self.edges.append(edge)
        await edge.beats()

    def edge_crashes(self, edge: GatedEdge) -> None:
        """Its sockets are gone and nothing is released; its heartbeat ends, and another instance begins."""
        self.edges.remove(edge)
        self._dead.append(edge)
        if not edge.actor.gate.is_open:
            # Wakeups of its own may have waited there.
            for other in self.edges:
                other.missed_a_wakeup = True
        edge.dies()
        self.world.post.pop(edge.instance, None)
        self.direct.delete(keyspace.heartbeat(edge.instance))
        self.pending.died(edge.instance)
        self.does(self._start_edge())

    def redis_crashes(self) -> None:
        """What it has answered is on its disk; wakeups under way are not."""
        self.valkey.kill()
        self.redis_is_up = False
        for edge in self.edges:
            edge.lost_redis()
        self.world.post.clear()

    def redis_is_back(self) -> None:
        self.valkey.start()
        self.valkey.wait_ready()
        self.direct.close()
        self.direct = self.valkey.client()
        self.world.listens(self.direct)
        self.redis_is_up = True
        for edge in self.edges:
            edge.actor.begins(edge.has_redis_again())
            self.does()

    def time_passes(self, hours: int) -> None:
        """Edges whose calls get through say that they are live; timers go off."""
        self.world.now_ms += hours * HOUR_MS
        self._loop_s += 2
        for edge in self.edges:
            if edge.actor.gate.is_open:
                self.does(edge.beats())

    def clients_answer(self) -> None:
        """All of them, until all has been sent and confirmed that can be."""
        while answering := [client for client in self.clients if client.owes_a_pong]:
            for client in answering:
                client.answers()
            self.does()
        self.a_moment_passes()

    def a_moment_passes(self) -> None:
        """What clients have confirmed is acked."""
        self._loop_s += 2 * ACK_INTERVAL_S
        self.does()

    def gates_open(self) -> None:
        """All calls that wait are made, one actor's after the other's."""
        for actor in self.actors:
            actor.gate.open()
            self.does()

    def everybody_hears(self) -> None:
        for edge in self.edges:
            self.does(edge.hears())
            self.does(edge.sweeps())
