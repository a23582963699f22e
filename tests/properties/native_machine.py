"""A state machine of everything that can happen to native channels while events are published."""

import sys
from collections.abc import Callable, Mapping

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from shared.redis.pipeline import Script
from tests.harness.valkey import Valkey
from tests.properties import native_invariants
from tests.properties.actors import Actor, Client, GatedEdge
from tests.properties.machine import BUDGET
from tests.properties.native_installation import NativeActor, NativeInstallation
from tests.properties.native_model import Address, Native
from tests.properties.world import World

# How often each of these may run in one example. A start of Redis is slow.
_FEW = {
    "create": 4,
    "delete": 3,
    "abandon": 2,
    "crash of a gateway": 1,
    "crash of an edge": 1,
    "crash of redis": 1,
}

NAME = st.sampled_from(["n", "n", "m", ""])
GIVEN_NAME = st.sampled_from(["n", "m"])
CUSTOMER = st.sampled_from(["", "c", "d"])
TOPICS = st.sampled_from([(), ("a",), ("a",), ("a", "b")])
CHANGES: dict[str, Callable[[NativeInstallation, NativeActor, Native], None]] = {
    "name n": lambda there, admin, native: there.rename(admin, native, "n"),
    "name m": lambda there, admin, native: there.rename(admin, native, "m"),
    "no name": lambda there, admin, native: there.rename(admin, native, ""),
    "customer c": lambda there, admin, native: there.give_to(admin, native, "c"),
    "customer d": lambda there, admin, native: there.give_to(admin, native, "d"),
    "no customer": lambda there, admin, native: there.give_to(admin, native, ""),
    "bind a": lambda there, admin, native: there.bind(admin, native, ["a"]),
    "bind b": lambda there, admin, native: there.bind(admin, native, ["b"]),
    "unbind": lambda there, admin, native: there.bind(admin, native, []),
    "pause": lambda there, admin, native: there.pause(admin, native),
    "resume": lambda there, admin, native: there.resume(admin, native),
    "purge": lambda there, admin, native: there.purge(admin, native),
}
CHANGE = st.sampled_from([*CHANGES, "pause", "resume", "purge"])
NAMING = st.sampled_from(["name n", "name m", "no name", "customer c", "no customer"])
HOWS = ("topic", "customer c", "customer d", "id", "name n", "name m")
HOW = st.sampled_from(["topic", *HOWS])

WHICH = st.integers(0, 5)
HOLD_UP = st.sampled_from([None, None, None, None, 0, 1, 2, 3, 5])

# The same for changes of names: most stop around the record, or before the routing table.
DONE = st.sampled_from([3, 4, 5, 6, 7, 7, 8, 8, 9])

NATIVE_BUDGET = settings(BUDGET, max_examples=12, stateful_step_count=30)


class NativeChannels(RuleBasedStateMachine):
    """The rules. An actor that is held up at its gate is a stopped process."""

    def __init__(
        self, valkey: Valkey, *, scripts: Mapping[str, Script], actor: Callable[[World], Actor] = NativeActor
    ) -> None:
        super().__init__()
        self._there = NativeInstallation(valkey, scripts=scripts, actor=actor)
        self._left = dict(_FEW)

    @initialize()
    def begin(self) -> None:
        """Starts with two channels; the first one has a name, a socket, and pending notifications."""
        there = self._there
        there.create(there.admins[0], name="n", customer="c", topics=["a"])
        there.create(there.admins[0], name="", customer="", topics=["a"])
        there.open_socket(there.edges[0], native=self._native(0))
        self.publish(gateway=0, how="topic", which=1, count=3, hold_up=None, heard=True)

    def _may(self, what: str) -> bool:
        return self._there.redis_is_up and self._left[what] > 0

    def _native(self, which: int) -> Native:
        """Also one that has ended."""
        natives = self._there.natives.natives
        return natives[-1 - which % len(natives)] if which > 1 else natives[which % len(natives)]

    def _edge(self, which: int) -> GatedEdge:
        return self._there.edges[which % len(self._there.edges)]

    def _admin(self, which: int, hold_up: int | None) -> NativeActor:
        admin = self._there.admins[which % len(self._there.admins)]
        _hold_up(admin, hold_up)
        return admin

    def _held_up(self) -> list[Actor]:
        return [actor for actor in self._there.actors if not actor.gate.is_open]

    def _dying(self) -> list[NativeActor]:
        return [admin for admin in self._there.admins if admin.changes]

    def _answering(self) -> list[Client]:
        return [client for client in self._there.clients if client.has_open_ping]

    def _behind(self) -> list[GatedEdge]:
        return [edge for edge in self._there.edges if edge.is_behind]

    # Publishers

    @precondition(lambda self: self._there.redis_is_up)
    @rule(gateway=WHICH, how=HOW, which=WHICH, count=st.integers(1, 3), hold_up=HOLD_UP, heard=st.booleans())
    def publish(
        self, gateway: int, how: str, which: int, count: int, hold_up: int | None, heard: bool
    ) -> None:
        """Publishes; the edges may receive the wakeups at once."""
        actor = self._there.gateways[gateway % len(self._there.gateways)]
        _hold_up(actor, hold_up)
        self._there.publish_to(actor, self._address(how, which), count)
        for edge in self._there.edges if heard else ():
            self._there.run(edge.receive_wakeups())

    def _address(self, how: str, which: int) -> Address:
        kind, _, value = how.partition(" ")
        match kind:
            case "id":
                return Address(id=self._native(which).id)
            case "name":
                return Address(name=value)
            case _:
                return Address("a" if which % 3 else "b", customer=value)

    # Administrators

    @precondition(lambda self: self._may("create"))
    @rule(admin=WHICH, name=NAME, customer=CUSTOMER, topics=TOPICS, hold_up=HOLD_UP)
    def create(
        self, admin: int, name: str, customer: str, topics: tuple[str, ...], hold_up: int | None
    ) -> None:
        self._left["create"] -= 1
        self._there.create(self._admin(admin, hold_up), name=name, customer=customer, topics=topics)

    @precondition(lambda self: self._there.redis_is_up)
    @rule(admin=WHICH, which=WHICH, what=CHANGE, hold_up=HOLD_UP)
    def change(self, admin: int, which: int, what: str, hold_up: int | None) -> None:
        CHANGES[what](self._there, self._admin(admin, hold_up), self._native(which))

    @precondition(lambda self: self._may("delete"))
    @rule(admin=WHICH, which=WHICH, hold_up=HOLD_UP, again=st.booleans())
    def delete(self, admin: int, which: int, hold_up: int | None, again: bool) -> None:
        """Deletes a channel, and perhaps makes one with the same name."""
        self._left["delete"] -= 1
        self._there.delete_native(self._admin(admin, hold_up), self._native(which))
        if again and self._may("create"):
            self.create(admin=admin + 1, name="n", customer="", topics=("a",), hold_up=None)

    @precondition(lambda self: self._there.redis_is_up)
    @rule(which=WHICH, what=NAMING, done=DONE, same=st.booleans(), other=WHICH, then=NAMING, how=HOW)
    def change_during_a_change(
        self, which: int, what: str, done: int, same: bool, other: int, then: str, how: str
    ) -> None:
        """Two administrators change names and customers at once, and a gateway publishes when one is done."""
        self._there.open_gates()
        self.change(admin=0, which=which, what=what, hold_up=done)
        self.change(admin=1, which=which if same else other, what=then, hold_up=None)
        self.publish(gateway=0, how=how, which=1, count=1, hold_up=None, heard=False)
        self._there.open_gates()
        self.publish(gateway=1, how=how, which=1, count=1, hold_up=None, heard=False)

    @precondition(lambda self: self._may("abandon"))
    @rule(which=WHICH, what=NAMING, done=DONE, how=HOW)
    def change_again_after_a_crash(self, which: int, what: str, done: int, how: str) -> None:
        """An administrator dies in a change, which is made again."""
        self._there.open_gates()
        self._left["abandon"] -= 1
        self.change(admin=0, which=which, what=what, hold_up=done)
        self._there.abandon(self._there.admins[0])
        self.change(admin=0, which=which, what=what, hold_up=None)
        self.publish(gateway=0, how=how, which=1, count=1, hold_up=None, heard=False)

    @precondition(lambda self: self._left["abandon"] and self._dying())
    @rule(which=WHICH)
    def abandon(self, which: int) -> None:
        """An administrator dies in the middle of a change."""
        self._left["abandon"] -= 1
        dying = self._dying()
        self._there.abandon(dying[which % len(dying)])

    @precondition(lambda self: self._there.redis_is_up and self._there.reaper.gate.is_open)
    @rule(repairs=st.booleans())
    def reap(self, repairs: bool) -> None:
        if repairs:
            self._there.repair()
        else:
            self._there.end_unfinished()

    # Clients

    @rule(edge=WHICH, which=WHICH, hold_up=HOLD_UP)
    def connect(self, edge: int, which: int, hold_up: int | None) -> None:
        """Opens a socket by an id: the channel may have one already, be paused, or be gone."""
        _hold_up(self._edge(edge).actor, hold_up)
        self._there.open_socket(self._edge(edge), native=self._native(which))

    @rule(edge=WHICH, name=GIVEN_NAME, hold_up=HOLD_UP)
    def connect_by_name(self, edge: int, name: str, hold_up: int | None) -> None:
        _hold_up(self._edge(edge).actor, hold_up)
        self._there.open_socket(self._edge(edge), name=name)

    @precondition(lambda self: self._answering())
    @rule(which=WHICH, acks=st.booleans())
    def pong(self, which: int, acks: bool) -> None:
        clients = self._answering()
        clients[which % len(clients)].pong()
        self._there.run()
        if acks:
            self._there.flush_acks()

    @precondition(lambda self: self._there.clients)
    @rule(which=WHICH)
    def leave(self, which: int) -> None:
        clients = self._there.clients
        clients[which % len(clients)].close()
        self._there.run()

    # Processes

    @precondition(lambda self: self._held_up())
    @rule(which=WHICH, count=st.sampled_from([1, 2, None]))
    def let_through(self, which: int, count: int | None) -> None:
        """Releases some calls of one actor, or all calls."""
        held_up = self._held_up()
        if count is None:
            self._there.open_gates()
        else:
            held_up[which % len(held_up)].gate.let_through(count)
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

    @precondition(lambda self: self._there.redis_is_up)
    @rule()
    def sweep(self) -> None:
        for edge in self._there.edges:
            self._there.run(edge.sweep())

    @precondition(lambda self: self._may("crash of a gateway"))
    @rule(which=WHICH)
    def crash_of_a_gateway(self, which: int) -> None:
        self._left["crash of a gateway"] -= 1
        gateways = self._there.gateways
        self._there.crash_gateway(gateways[which % len(gateways)])

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
        native_invariants.check_now(self._there)

    def teardown(self) -> None:
        """Skips the final check after a failure: it would report a consequence."""
        failed = sys.exc_info()[1] is not None
        try:
            if not failed:
                native_invariants.check_end(self._there)
        finally:
            if not self._there.redis_is_up:
                self._there.restart_redis()
            self._there.close()


def _hold_up(actor: Actor, after: int | None) -> None:
    if after is not None:
        actor.gate.close(after=after)
