"""Everything that can happen to channels, at random: to the real engine, and to the model beside it."""

import sys
from collections.abc import Callable, Mapping

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
from tests.properties import truth
from tests.properties.actors import Actor, Client, GatedEdge
from tests.properties.installation import Installation
from tests.properties.pending import Key
from tests.properties.world import World

# What ends much is rare, so that there is something to end; and a start of Redis takes long.
_FEW = {"crash of redis": 1, "crash of an edge": 2, "revoke": 2, "delete": 2, "leave": 3}

WHICH_MAX = 6
WHICH = st.integers(0, WHICH_MAX)
# After how many of its calls to Redis somebody is held up; mostly nobody is.
HOLD_UP = st.sampled_from([None, None, None, None, None, 0, 1, 2, 3])

# The same examples each time, so that a test that passes here passes elsewhere too.
BUDGET = settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=40,
    stateful_step_count=40,
    phases=(Phase.generate,),
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)


class Notifications(RuleBasedStateMachine):
    """The rules. Two at once are one that holds its actor up, and `let_through` some steps later."""

    def __init__(
        self, valkey: Valkey, *, scripts: Mapping[str, Script], actor: Callable[[World], Actor] = Actor
    ) -> None:
        super().__init__()
        self._there = Installation(valkey, scripts=scripts, actor=actor)
        self._left = dict(_FEW)

    @initialize()
    def begin(self) -> None:
        """Not with nothing: most of what can go wrong needs something that is pending, and a socket."""
        self._there.publishes(3)
        self._there.connects(self._edge(0), self._key(0))

    def _may(self, what: str) -> bool:
        return self._there.redis_is_up and self._left[what] > 0

    # Which of them

    def _key(self, which: int) -> Key:
        """One that lives; the last number stands for the first that was made, revoked or not."""
        if which == WHICH_MAX:
            return next(iter(self._there.pending.keys.values()))
        living = self._there.living
        return living[which % len(living)]

    def _edge(self, which: int) -> GatedEdge:
        return self._there.edges[which % len(self._there.edges)]

    def _answering(self) -> list[Client]:
        return [client for client in self._there.clients if client.owes_a_pong]

    def _held_up(self) -> list[Actor]:
        return [actor for actor in self._there.actors if not actor.gate.is_open]

    def _behind(self) -> list[GatedEdge]:
        return [edge for edge in self._there.edges if edge.is_behind]

    # What publishers and customers do

    @precondition(lambda self: self._there.redis_is_up)
    @rule(count=st.integers(1, 5), hold_up=HOLD_UP, heard=st.booleans())
    def publish(self, count: int, hold_up: int | None, heard: bool) -> None:
        """Wakeups may be heard at once."""
        _holds_up(self._there.gateway, hold_up)
        self._there.publishes(count)
        for edge in self._there.edges if heard else ():
            self._there.does(edge.hears())

    @precondition(lambda self: self._there.redis_is_up and self._there.clients)
    @rule(lost=st.booleans(), answered=st.booleans())
    def publish_in_a_row(self, lost: bool, answered: bool) -> None:
        """Two publishes; the wakeups of the first may be lost, and clients may have confirmed all before."""
        if answered:
            self._there.clients_answer()
        self.publish(count=1, hold_up=None, heard=False)
        for edge in self._there.edges if lost else ():
            edge.misses(1)
        self.publish(count=1, hold_up=None, heard=True)

    @precondition(lambda self: self._there.redis_is_up and any(k.channel is None for k in self._there.living))
    @rule()
    def register(self) -> None:
        for key in self._there.living:
            self._there.does(self._there.register(key))

    @precondition(lambda self: self._may("delete"))
    @rule(which=WHICH, registers_again=st.booleans())
    def delete(self, which: int, registers_again: bool) -> None:
        self._left["delete"] -= 1
        key = self._key(which)
        self._there.does(self._there.delete(key))
        if registers_again and not key.revoked:
            self._there.does(self._there.register(key))

    @precondition(lambda self: self._may("revoke"))
    @rule(which=WHICH)
    def revoke(self, which: int) -> None:
        self._left["revoke"] -= 1
        living = self._there.living
        self._there.does(self._there.revoke(living[which % len(living)]))

    @precondition(lambda self: self._may("revoke"))
    @rule(which=WHICH, after=st.integers(0, 2))
    def publish_and_revoke(self, which: int, after: int) -> None:
        """A publisher has seen the channel in the routes, and queues when its key is gone."""
        self.publish(count=1, hold_up=after, heard=False)
        self.revoke(which=which)
        self.let_through(which=0, count=None)

    # What clients do

    @rule(which_edge=WHICH, which_key=WHICH, hold_up=HOLD_UP)
    def connect(self, which_edge: int, which_key: int, hold_up: int | None) -> None:
        """A socket, for a channel that may have one already, or be gone."""
        edge = self._edge(which_edge)
        _holds_up(edge.actor, hold_up)
        self._there.connects(edge, self._key(which_key))

    @precondition(lambda self: self._there.redis_is_up)
    @rule(which_edge=WHICH, which_key=WHICH, after=st.integers(0, 3))
    def connect_and_publish(self, which_edge: int, which_key: int, after: int) -> None:
        """Something is published while a handshake is under way."""
        self.connect(which_edge=which_edge, which_key=which_key, hold_up=after)
        self.publish(count=1, hold_up=None, heard=True)
        self.let_through(which=0, count=None)

    @precondition(lambda self: self._there.clients)
    @rule(which=WHICH, which_edge=WHICH, hold_up=HOLD_UP, old_leaves=st.booleans())
    def take_over(self, which: int, which_edge: int, hold_up: int | None, old_leaves: bool) -> None:
        """Another socket, with the key of one that is open, and that its client may then close by itself."""
        clients = self._there.clients
        old = clients[which % len(clients)]
        if old.reader is None:
            return
        edge = self._edge(which_edge)
        _holds_up(edge.actor, hold_up)
        self._there.connects(edge, old.reader.key)
        if old_leaves and old.open:
            old.leaves()
            self._there.does()

    @precondition(lambda self: self._answering())
    @rule(which=WHICH, leaves=st.booleans(), acks=st.booleans())
    def pong(self, which: int, leaves: bool, acks: bool) -> None:
        """A client answers; some close at once behind it. What it confirms is acked soon, or in a while."""
        clients = self._answering()
        client = clients[which % len(clients)]
        client.answers()
        if leaves and which == 0:
            client.leaves()
        self._there.does()
        if acks:
            self._there.a_moment_passes()

    @precondition(lambda self: self._there.clients and self._left["leave"])
    @rule(which=WHICH)
    def leave(self, which: int) -> None:
        self._left["leave"] -= 1
        clients = self._there.clients
        clients[which % len(clients)].leaves()
        self._there.does()

    # What time does

    @precondition(lambda self: any(edge.acks.waits for edge in self._there.edges))
    @rule()
    def ack(self) -> None:
        self._there.a_moment_passes()

    @precondition(lambda self: self._there.redis_is_up)
    @rule(which=WHICH, old=st.booleans(), late=st.booleans(), hours=st.sampled_from([0, 11, 25]))
    def expire(self, which: int, old: bool, late: bool, hours: int) -> None:
        """Time passes, and the reaper looks at a channel, or at an generation that it heard of long ago."""
        self._there.time_passes(hours)
        key = self._key(which)
        self._there.expires(key, generation=self._there.generations[key.id][0 if old else -1], late=late)

    @precondition(lambda self: self._there.redis_is_up)
    @rule(which=WHICH, which_edge=WHICH)
    def expire_and_connect(self, which: int, which_edge: int) -> None:
        """A client that was away for a day comes back while the reaper is at its channel."""
        self.expire(which=which, old=False, late=True, hours=25)
        self.connect(which_edge=which_edge, which_key=which, hold_up=None)
        self.let_through(which=0, count=None)

    # What happens to processes

    @precondition(lambda self: all(edge.actor.gate.is_open for edge in self._there.edges))
    @rule(which=WHICH, after=st.integers(0, 2))
    def hold_up(self, which: int, after: int) -> None:
        """An edge's calls to Redis get slow."""
        _holds_up(self._edge(which).actor, after)

    @precondition(lambda self: self._held_up())
    @rule(which=WHICH, count=st.sampled_from([1, 2, None]))
    def let_through(self, which: int, count: int | None) -> None:
        """Some calls of one actor, or all that wait anywhere."""
        held_up = self._held_up()
        actor = held_up[which % len(held_up)]
        # Of an expiry the model is told when it is over, not in the middle.
        if count is None or actor is self._there.reaper:
            self._there.gates_open()
        else:
            actor.gate.let_through(count)
            self._there.does()

    @precondition(lambda self: self._behind())
    @rule(which=WHICH, lost=st.sampled_from([0, 0, 0, 1, 9]))
    def hear(self, which: int, lost: int) -> None:
        """The wakeups for an edge reach it, or the first are lost; then only its slow sweep helps."""
        behind = self._behind()
        edge = behind[which % len(behind)]
        posted = self._there.world.post.get(edge.instance)
        if posted and lost:
            edge.misses(lost)
        else:
            self._there.does(edge.hears() if posted else edge.sweeps())

    @precondition(lambda self: self._may("crash of an edge"))
    @rule(which=WHICH)
    def crash_of_an_edge(self, which: int) -> None:
        self._left["crash of an edge"] -= 1
        self._there.edge_crashes(self._edge(which))

    @precondition(lambda self: self._may("crash of redis"))
    @rule()
    def crash_of_redis(self) -> None:
        self._left["crash of redis"] -= 1
        self._there.redis_crashes()

    @precondition(lambda self: not self._there.redis_is_up)
    @rule()
    def redis_is_back(self) -> None:
        self._there.redis_is_back()

    # What must be true

    @invariant()
    def is_right(self) -> None:
        truth.is_right(self._there)

    def teardown(self) -> None:
        """After something wrong was found the end would tell of something else."""
        found = sys.exc_info()[1] is not None
        try:
            if not found:
                truth.ends_well(self._there)
        finally:
            if not self._there.redis_is_up:
                self._there.redis_is_back()
            self._there.close()


def _holds_up(actor: Actor, after: int | None) -> None:
    if after is not None:
        actor.gate.close(after=after)


def searches(
    valkey: Valkey,
    *,
    scripts: Mapping[str, Script],
    actor: Callable[[World], Actor] = Actor,
    budget: settings = BUDGET,
) -> None:
    """Raises AssertionError with what is wrong, and the steps to it."""

    def begins() -> Notifications:
        return Notifications(valkey, scripts=scripts, actor=actor)

    # Anything that makes a machine will do; its types ask for a class.
    run_state_machine_as_test(begins, settings=budget)  # type: ignore[arg-type]
