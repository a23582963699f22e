"""A state machine of everything that can happen to channels, for the real services and the model."""

import sys
from collections.abc import Callable, Mapping
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from shared.redis.pipeline import Script
from tests.harness.valkey import Valkey
from tests.properties import invariants
from tests.properties.actors import Actor, Client, GatedEdge
from tests.properties.installation import Installation
from tests.properties.model import Key
from tests.properties.world import World

# How often each destructive step may run in one example. A start of Redis is slow.
_FEW = {"crash of redis": 1, "crash of an edge": 2, "revoke": 2, "delete": 2, "leave": 3}

WHICH_MAX = 6
WHICH = st.integers(0, WHICH_MAX)
# The number of calls to Redis after which an actor is held up; None: it is not.
HOLD_UP = st.sampled_from([None, None, None, None, None, 0, 1, 2, 3])

# A quick look; each machine also runs for long, in `make test-long`, with other examples each time.
BUDGET = settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=16,
    stateful_step_count=40,
    phases=(Phase.generate,),
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)


class Notifications(RuleBasedStateMachine):
    """The rules. Concurrency is a rule that holds its actor up, and `let_through` some steps later."""

    def __init__(
        self, valkey: Valkey, *, scripts: Mapping[str, Script], actor: Callable[[World], Actor] = Actor
    ) -> None:
        super().__init__()
        self._there = Installation(valkey, scripts=scripts, actor=actor)
        self._left = dict(_FEW)

    @initialize()
    def begin(self) -> None:
        """Starts with pending notifications and a socket: most faults need both."""
        self._there.publish(3)
        self._there.connect(self._edge(0), self._key(0))

    def _may(self, what: str) -> bool:
        return self._there.redis_is_up and self._left[what] > 0

    # Selection by number

    def _key(self, which: int) -> Key:
        """A live key; WHICH_MAX selects the first key that was created, revoked or not."""
        if which == WHICH_MAX:
            return next(iter(self._there.model.keys.values()))
        live_keys = self._there.live_keys
        return live_keys[which % len(live_keys)]

    def _without_channel(self) -> list[Key]:
        return [key for key in self._there.live_keys if key.channel is None]

    def _edge(self, which: int) -> GatedEdge:
        return self._there.edges[which % len(self._there.edges)]

    def _answering(self) -> list[Client]:
        return [client for client in self._there.clients if client.has_open_ping]

    def _held_up(self) -> list[Actor]:
        return [actor for actor in self._there.actors if not actor.gate.is_open]

    def _behind(self) -> list[GatedEdge]:
        return [edge for edge in self._there.edges if edge.is_behind]

    # Publishers and customers

    @precondition(lambda self: self._there.redis_is_up)
    @rule(count=st.integers(1, 5), hold_up=HOLD_UP, heard=st.booleans())
    def publish(self, count: int, hold_up: int | None, heard: bool) -> None:
        """Publishes; the edges may receive the wakeups at once."""
        _hold_up(self._there.gateway, hold_up)
        self._there.publish(count)
        for edge in self._there.edges if heard else ():
            self._there.run(edge.receive_wakeups())

    @precondition(lambda self: self._there.redis_is_up and self._there.clients)
    @rule(lost=st.booleans(), answered=st.booleans())
    def publish_in_a_row(self, lost: bool, answered: bool) -> None:
        """Publishes twice; the first wakeups may be lost, and clients may answer their pings before."""
        if answered:
            self._there.answer_pings()
        self.publish(count=1, hold_up=None, heard=False)
        for edge in self._there.edges if lost else ():
            edge.lose_wakeups(1)
        self.publish(count=1, hold_up=None, heard=True)

    @precondition(lambda self: self._there.redis_is_up and self._without_channel())
    @rule()
    def register(self) -> None:
        for key in self._there.live_keys:
            self._there.run(self._there.register(key))

    @precondition(lambda self: self._may("delete"))
    @rule(which=WHICH, registers_again=st.booleans())
    def delete(self, which: int, registers_again: bool) -> None:
        self._left["delete"] -= 1
        key = self._key(which)
        self._there.run(self._there.delete(key))
        if registers_again and not key.revoked:
            self._there.run(self._there.register(key))

    @precondition(lambda self: self._may("revoke"))
    @rule(which=WHICH)
    def revoke(self, which: int) -> None:
        self._left["revoke"] -= 1
        live_keys = self._there.live_keys
        self._there.run(self._there.revoke(live_keys[which % len(live_keys)]))

    @precondition(lambda self: self._may("revoke"))
    @rule(which=WHICH, after=st.integers(0, 2))
    def publish_and_revoke(self, which: int, after: int) -> None:
        """A publisher reads the routing table, and appends after the key was revoked."""
        self.publish(count=1, hold_up=after, heard=False)
        self.revoke(which=which)
        self.let_through(which=0, count=None)

    # Clients

    @rule(which_edge=WHICH, which_key=WHICH, hold_up=HOLD_UP)
    def connect(self, which_edge: int, which_key: int, hold_up: int | None) -> None:
        """Opens a socket for a channel that may have one already, or be gone."""
        edge = self._edge(which_edge)
        _hold_up(edge.actor, hold_up)
        self._there.connect(edge, self._key(which_key))

    @precondition(lambda self: self._there.redis_is_up)
    @rule(which_edge=WHICH, which_key=WHICH, after=st.integers(0, 3))
    def connect_and_publish(self, which_edge: int, which_key: int, after: int) -> None:
        """Publishes during a handshake."""
        self.connect(which_edge=which_edge, which_key=which_key, hold_up=after)
        self.publish(count=1, hold_up=None, heard=True)
        self.let_through(which=0, count=None)

    @precondition(lambda self: self._there.clients)
    @rule(which=WHICH, which_edge=WHICH, hold_up=HOLD_UP, old_leaves=st.booleans())
    def take_over(self, which: int, which_edge: int, hold_up: int | None, old_leaves: bool) -> None:
        """Opens a second socket with the key of an open one, which its client may close."""
        clients = self._there.clients
        old = clients[which % len(clients)]
        if old.reader is None:
            return
        edge = self._edge(which_edge)
        _hold_up(edge.actor, hold_up)
        self._there.connect(edge, old.reader.key)
        if old_leaves and old.open:
            old.close()
            self._there.run()

    @precondition(lambda self: self._answering())
    @rule(which=WHICH, leaves=st.booleans(), acks=st.booleans())
    def pong(self, which: int, leaves: bool, acks: bool) -> None:
        """A client answers its ping and may close at once; the ack follows now, or later."""
        clients = self._answering()
        client = clients[which % len(clients)]
        client.pong()
        if leaves and which == 0:
            client.close()
        self._there.run()
        if acks:
            self._there.flush_acks()

    @precondition(lambda self: self._there.clients and self._left["leave"])
    @rule(which=WHICH)
    def leave(self, which: int) -> None:
        self._left["leave"] -= 1
        clients = self._there.clients
        clients[which % len(clients)].close()
        self._there.run()

    # Time

    @precondition(lambda self: any(edge.acks.waits for edge in self._there.edges))
    @rule()
    def ack(self) -> None:
        self._there.flush_acks()

    @precondition(lambda self: self._there.redis_is_up)
    @rule(which=WHICH, old=st.booleans(), late=st.booleans(), hours=st.sampled_from([0, 11, 25]))
    def expire(self, which: int, old: bool, late: bool, hours: int) -> None:
        """Time passes, and the reaper visits a channel, perhaps with an old generation."""
        self._there.advance_time(hours)
        key = self._key(which)
        self._there.expire(key, generation=self._there.generations[key.id][0 if old else -1], late=late)

    @precondition(lambda self: self._there.redis_is_up)
    @rule(which=WHICH, which_edge=WHICH)
    def expire_and_connect(self, which: int, which_edge: int) -> None:
        """A client reconnects after a day, while the reaper expires its channel."""
        self.expire(which=which, old=False, late=True, hours=25)
        self.connect(which_edge=which_edge, which_key=which, hold_up=None)
        self.let_through(which=0, count=None)

    # Processes

    @precondition(lambda self: all(edge.actor.gate.is_open for edge in self._there.edges))
    @rule(which=WHICH, after=st.integers(0, 2))
    def hold_up(self, which: int, after: int) -> None:
        """Delays an edge's calls to Redis."""
        _hold_up(self._edge(which).actor, after)

    @precondition(lambda self: self._held_up())
    @rule(which=WHICH, count=st.sampled_from([1, 2, None]))
    def let_through(self, which: int, count: int | None) -> None:
        """Releases some calls of one actor, or all calls."""
        held_up = self._held_up()
        actor = held_up[which % len(held_up)]
        # The model records an expiry as a whole.
        if count is None or actor is self._there.reaper:
            self._there.open_gates()
        else:
            actor.gate.let_through(count)
            self._there.run()

    @precondition(lambda self: self._behind())
    @rule(which=WHICH, lost=st.sampled_from([0, 0, 0, 1, 9]))
    def hear(self, which: int, lost: int) -> None:
        """An edge receives its wakeups, or loses the first ones and sweeps later."""
        behind = self._behind()
        edge = behind[which % len(behind)]
        posted = self._there.world.in_flight.get(edge.instance)
        if posted and lost:
            edge.lose_wakeups(lost)
        else:
            self._there.run(edge.receive_wakeups() if posted else edge.sweep())

    @precondition(lambda self: self._may("crash of an edge"))
    @rule(which=WHICH)
    def crash_of_an_edge(self, which: int) -> None:
        self._left["crash of an edge"] -= 1
        self._there.crash_edge(self._edge(which))

    @precondition(lambda self: self._may("crash of redis"))
    @rule()
    def crash_of_redis(self) -> None:
        self._left["crash of redis"] -= 1
        self._there.crash_redis()

    @precondition(lambda self: not self._there.redis_is_up)
    @rule()
    def redis_is_back(self) -> None:
        self._there.restart_redis()

    # Invariants

    @invariant()
    def invariants_hold(self) -> None:
        invariants.check_now(self._there)

    def teardown(self) -> None:
        """Skips the final check after a failure: it would report a consequence."""
        failed = sys.exc_info()[1] is not None
        try:
            if not failed:
                invariants.check_end(self._there)
        finally:
            if not self._there.redis_is_up:
                self._there.restart_redis()
            self._there.close()


def _hold_up(actor: Actor, after: int | None) -> None:
    if after is not None:
        actor.gate.close(after=after)


def search(
    valkey: Valkey,
    *,
    scripts: Mapping[str, Script],
    actor: Callable[..., Any] = Actor,
    machine: Callable[..., RuleBasedStateMachine] = Notifications,
    budget: settings = BUDGET,
) -> None:
    """Runs the machine. Raises AssertionError with the violation and the steps to it."""

    def start() -> RuleBasedStateMachine:
        return machine(valkey, scripts=scripts, actor=actor)

    # Any factory works; the types ask for a class.
    run_state_machine_as_test(start, settings=budget)  # type: ignore[arg-type]
