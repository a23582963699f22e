"""A state machine of everything that can happen to bindings while events are published."""

import sys
from collections.abc import Callable, Mapping, Sequence

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from shared.redis.pipeline import Script
from tests.harness.valkey import Valkey
from tests.properties.actors import Actor
from tests.properties.machine import BUDGET
from tests.properties.routing_installation import RoutingActor, RoutingInstallation
from tests.properties.routing_model import ANY_TOPIC, DEVICE, EVERYBODY, Key
from tests.properties.world import World

# How often each of these may run in one example.
_FEW = {"revoke": 1, "abandon": 2}

TO_ONE = "to one"
SUBJECTS = st.lists(
    st.sampled_from(["a", "a", "b", DEVICE, EVERYBODY, TO_ONE]), min_size=1, max_size=3, unique=True
)
CHANGES: dict[str, Callable[[RoutingInstallation, RoutingActor, Key], None]] = {
    "bind a": lambda there, admin, key: there.bind(admin, key, ["a"]),
    "bind b": lambda there, admin, key: there.bind(admin, key, ["b"]),
    "bind both": lambda there, admin, key: there.bind(admin, key, ["a", "b"]),
    "bind all": lambda there, admin, key: there.bind(admin, key, [ANY_TOPIC]),
    "unbind": lambda there, admin, key: there.bind(admin, key, []),
    "bind device": lambda there, admin, key: there.bind_device(admin, key, bound=True),
    "unbind device": lambda there, admin, key: there.bind_device(admin, key, bound=False),
    "create": lambda there, admin, key: there.create_channel(admin, key),
    "delete": lambda there, admin, key: there.delete_channel(admin, key),
}
CHANGE = st.sampled_from([*CHANGES, "bind a", "unbind", "unbind", "unbind"])
TOPIC_CHANGE = st.sampled_from(["unbind", "bind b", "bind a"])
LINE_CHANGE = st.sampled_from(["bind device", "unbind device"])
LISTEN = st.lists(st.tuples(st.sampled_from([0, 1, None]), st.sampled_from(["a", "b"])), max_size=2)

WHICH = st.integers(0, 5)
GATEWAY = st.integers(0, 1)
ADMIN = st.integers(0, 1)
ACCOUNT = st.sampled_from([0, 0, 0, 1])
# The number of calls to Redis after which an actor is held up; None: it is not.
# It looks for the channel and makes it due.
_BEFORE_A_CREATION = 2
HOLD_UP = st.sampled_from([None, None, None, 0, 1, 2, 3])
# The same for changes: most are held up between the table and the channel.
DONE = st.sampled_from([None, 1])

ROUTING_BUDGET = settings(BUDGET, stateful_step_count=25)


class RoutingChanges(RuleBasedStateMachine):
    """The rules. An actor that is held up at its gate is a stopped process."""

    def __init__(
        self, valkey: Valkey, *, scripts: Mapping[str, Script], actor: Callable[[World], Actor] = RoutingActor
    ) -> None:
        super().__init__()
        self._there = RoutingInstallation(valkey, scripts=scripts, actor=actor)
        self._left = dict(_FEW)

    @initialize()
    def begin(self) -> None:
        """Starts with one binding that both gateways know."""
        self.change(admin=0, which=0, what="bind a", hold_up=None)
        for gateway in range(len(self._there.gateways)):
            self.publish(gateway=gateway, account=0, subjects=["a"], hold_up=None)

    def _key(self, which: int, account: int | None = None) -> Key:
        keys = [key for key in self._there.model.keys if account is None or key.account == account]
        return keys[which % len(keys)]

    def _held_up(self) -> list[RoutingActor]:
        return [actor for actor in self._there.actors if not actor.gate.is_open]

    # Publishers

    @rule(gateway=GATEWAY, account=ACCOUNT, subjects=SUBJECTS, hold_up=HOLD_UP)
    def publish(self, gateway: int, account: int, subjects: Sequence[str], hold_up: int | None) -> None:
        addressee = self._key(len(subjects), account).id
        named = [addressee if subject == TO_ONE else subject for subject in subjects]
        _hold_up(self._there.gateways[gateway], hold_up)
        self._there.publish(gateway, account, named)

    # Administrators and sessions

    @rule(admin=ADMIN, which=WHICH, what=CHANGE, hold_up=HOLD_UP)
    def change(self, admin: int, which: int, what: str, hold_up: int | None) -> None:
        _hold_up(self._there.admins[admin], hold_up)
        CHANGES[what](self._there, self._there.admins[admin], self._key(which))

    @rule(admin=ADMIN, which=WHICH, wanted=LISTEN, hold_up=HOLD_UP)
    def listen(
        self, admin: int, which: int, wanted: Sequence[tuple[int | None, str]], hold_up: int | None
    ) -> None:
        sessions = self._there.model.sessions
        session = sessions[which % len(sessions)]
        if self._there.may_listen(session):
            _hold_up(self._there.admins[admin], hold_up)
            self._there.listen(self._there.admins[admin], session, wanted)

    @precondition(lambda self: self._left["revoke"])
    @rule(admin=ADMIN, which=WHICH, hold_up=HOLD_UP)
    def revoke(self, admin: int, which: int, hold_up: int | None) -> None:
        """Revokes a key, and creates another one in its place."""
        self._left["revoke"] -= 1
        _hold_up(self._there.admins[admin], hold_up)
        key = self._key(which)
        self._there.revoke(self._there.admins[admin], key)
        self._there.create_key(self._there.admins[admin], key.account)

    @precondition(lambda self: self._left["abandon"] and self._held_up_admins())
    @rule(which=WHICH)
    def abandon(self, which: int) -> None:
        """An administrator dies, perhaps between the table and the channel."""
        self._left["abandon"] -= 1
        admins = self._held_up_admins()
        self._there.abandon(admins[which % len(admins)])

    def _held_up_admins(self) -> list[RoutingActor]:
        return [admin for admin in self._there.admins if not admin.gate.is_open]

    # What often meets

    @rule(gateway=GATEWAY, which=WHICH, what=CHANGE, after=st.integers(0, 2), count=st.integers(3, 14))
    def publish_around_a_change(self, gateway: int, which: int, what: str, after: int, count: int) -> None:
        """A gateway stops with publishes under way, and goes on a little before the next one arrives."""
        self._open()
        self.publish(gateway=gateway, account=0, subjects=["a"], hold_up=after)
        self.publish(gateway=gateway, account=0, subjects=["a"], hold_up=None)
        self.change(admin=0, which=which, what=what, hold_up=None)
        self._go_on(gateway, count)
        self.publish(gateway=gateway, account=0, subjects=["a"], hold_up=None)
        self._open()

    @rule(gateway=GATEWAY, which=WHICH, what=CHANGE, done=st.integers(1, 2), after=st.integers(0, 2))
    def publish_in_a_change(self, gateway: int, which: int, what: str, done: int, after: int) -> None:
        """A gateway has read the table, and the channel changes while publishes are under way to it."""
        self._open()
        self.change(admin=0, which=which, what=what, hold_up=done)
        self.publish(gateway=gateway, account=0, subjects=["b"], hold_up=None)
        self.publish(gateway=gateway, account=0, subjects=["a"], hold_up=after)
        self.publish(gateway=gateway, account=0, subjects=["a"], hold_up=None)
        # Behind the reads of the versions: the append of the first, before the other one's.
        self._go_on(gateway, 1)
        self._open()
        self.publish(gateway=1 - gateway, account=0, subjects=["a"], hold_up=None)

    @rule(gateway=GATEWAY, which=WHICH, other=WHICH, before=st.integers(5, 7), between=st.integers(7, 9))
    def publish_in_rounds(self, gateway: int, which: int, other: int, before: int, between: int) -> None:
        """A repair has reached one channel, and is on its way to another one when the first one changes."""
        self._open()
        self.change(admin=0, which=other, what="bind a", hold_up=None)
        self.publish(gateway=gateway, account=0, subjects=["a"], hold_up=0)
        self._go_on(gateway, before)
        self.change(admin=0, which=which, what="bind device", hold_up=1)
        self._go_on(gateway, between)
        self.publish(gateway=gateway, account=0, subjects=["a"], hold_up=1)
        self.publish(gateway=gateway, account=0, subjects=["a"], hold_up=None)
        self._open()

    @rule(gateway=GATEWAY, which=WHICH, what=LINE_CHANGE, then=TOPIC_CHANGE)
    def publish_after_a_late_change(self, gateway: int, which: int, what: str, then: str) -> None:
        """One administrator is late with the channel, and another one has changed more since."""
        self._open()
        self.change(admin=0, which=which, what=what, hold_up=1)
        for topic in ("b", "a"):
            self.publish(gateway=gateway, account=0, subjects=[topic], hold_up=None)
        self.change(admin=1, which=which, what=then, hold_up=None)
        self._there.admins[0].gate.open()
        self._there.run()
        self.publish(gateway=gateway, account=0, subjects=["a"], hold_up=None)

    @rule(gateway=GATEWAY, which=WHICH, before=st.integers(0, 2), between=st.integers(1, 4), done=DONE)
    def publish_to_a_new_channel(
        self, gateway: int, which: int, before: int, between: int, done: int | None
    ) -> None:
        """A channel is replaced, perhaps not in the table yet, while publishes are under way to it."""
        self._open()
        self.publish(gateway=gateway, account=0, subjects=["a"], hold_up=before)
        self.publish(gateway=gateway, account=0, subjects=["a"], hold_up=None)
        self.change(admin=0, which=which, what="delete", hold_up=done)
        if done is None:
            self._go_on(gateway, between)
        begun = None if done is None else _BEFORE_A_CREATION + done
        self.change(admin=1, which=which, what="create", hold_up=begun)
        if done is not None:
            self._go_on(gateway, between)
            self.publish(gateway=1 - gateway, account=0, subjects=["a"], hold_up=None)
        self._there.gateways[gateway].gate.open()
        self._there.run()
        self._open()

    def _go_on(self, gateway: int, count: int) -> None:
        """So many calls, each after all that follows from the one before."""
        for _ in range(count):
            self._there.gateways[gateway].gate.let_through(1)
            self._there.run()

    def _open(self) -> None:
        self._there.open_gates()

    # Gates

    @rule(gateway=GATEWAY, after=st.integers(0, 3))
    def hold_up(self, gateway: int, after: int) -> None:
        _hold_up(self._there.gateways[gateway], after)

    @precondition(lambda self: self._held_up())
    @rule(which=WHICH, count=st.sampled_from([1, 2, None]))
    def let_through(self, which: int, count: int | None) -> None:
        """Releases some calls of one actor, or all of its calls."""
        actors = self._held_up()
        gate = actors[which % len(actors)].gate
        if count is None:
            gate.open()
        else:
            gate.let_through(count)
        self._there.run()

    # Invariants

    @invariant()
    def invariants_hold(self) -> None:
        self._there.check_now()

    def teardown(self) -> None:
        """Skips the final check after a failure: it would report a consequence."""
        failed = sys.exc_info()[1] is not None
        try:
            if not failed:
                self._there.check_end()
        finally:
            self._there.close()


def _hold_up(actor: RoutingActor, after: int | None) -> None:
    if after is not None:
        actor.gate.close(after=after)
