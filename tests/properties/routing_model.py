"""The model of routing: which channels and sessions a publish must reach, and which it must not.

Changes and publishes overlap, so the model keeps facts that may be uncertain (facts.py).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from shared.model.errors import Invalid
from tests.properties.facts import Changes, Fact, Value, all_of, flag

# Topics, and what stands for the events that other rules match: those of a device, and those for everybody.
TOPICS = ("a", "b")
DEVICE = "lamp"
EVERYBODY = "everybody"
ANY_TOPIC = "#"


def _unset() -> Fact:
    return Fact({False})


@dataclass(eq=False)
class Key:
    """An API key with its channel and its bindings."""

    id: str
    account: int
    exists: Fact = field(default_factory=_unset)
    channel: Fact = field(default_factory=_unset)
    topics: Fact = field(default_factory=lambda: Fact({frozenset()}))
    line: Fact = field(default_factory=_unset)

    def wants(self, subject: str, *, since: int) -> bool | None:
        """Whether its channel gets an event with this subject; None: uncertain."""
        return all_of([flag(self.exists, since), flag(self.channel, since), self._binds(subject, since)])

    def _binds(self, subject: str, since: int) -> bool | None:
        if subject == EVERYBODY:
            return True
        if subject == DEVICE:
            return flag(self.line, since)
        if subject not in TOPICS:
            return subject == self.id
        return _matches(self.topics.certain(since=since), subject)


@dataclass(eq=False)
class Listener:
    """A session, with the patterns that it has in the tables of accounts; None stands for every account."""

    id: str
    tables: dict[int | None, Fact]

    def wants(self, account: int, subject: str, *, since: int) -> bool | None:
        if subject not in TOPICS:
            return False
        wanted = [_matches(self.tables[a].certain(since=since), subject) for a in (account, None)]
        return True if True in wanted else None if None in wanted else False


def _matches(patterns: Value | None, topic: str) -> bool | None:
    if patterns is None:
        return None
    assert isinstance(patterns, frozenset)
    return topic in patterns or ANY_TOPIC in patterns


class EventId(NamedTuple):
    """Publishes are numbered in the order in which they begin, and their events within them."""

    publish: int
    place: int


@dataclass(eq=False)
class Publish:
    """One publish through one gateway, as it goes. `held` are the queues that had its events at its end."""

    number: int
    gateway: int
    account: int
    subjects: Sequence[str]
    began: int
    ended: int | None = None
    held: Mapping[str, set[int]] = field(default_factory=dict)


class RoutingModel(Changes):
    """All keys, sessions and publishes, and every violation."""

    def __init__(self, violations: list[str], *, accounts: int) -> None:
        super().__init__(violations)
        self.keys: list[Key] = []
        self.sessions: list[Listener] = []
        self.publishes: list[Publish] = []
        self._accounts = accounts

    # Changes

    def add_key(self, api_key_id: str, *, account: int) -> Key:
        self.keys.append(Key(api_key_id, account))
        return self.keys[-1]

    def add_session(self, session_id: str) -> Listener:
        tables = {account: Fact({frozenset()}) for account in (*range(self._accounts), None)}
        self.sessions.append(Listener(session_id, tables))
        return self.sessions[-1]

    # Publishes

    def begin_publish(self, gateway: int, account: int, subjects: Sequence[str]) -> Publish:
        number = len(self.publishes)
        self.publishes.append(Publish(number, gateway, account, subjects, began=self.tick()))
        return self.publishes[-1]

    def end_publish(
        self, publish: Publish, counts: list[int] | Exception, queues: Mapping[str, list[EventId]]
    ) -> None:
        """Checks what the queues hold of the publish now that it is answered."""
        self.check(publish.ended is None, f"publish {publish.number} ended twice")
        publish.ended = self.tick()
        publish.held = {
            name: {event.place for event in queue if event.publish == publish.number}
            for name, queue in queues.items()
        }
        for index, subject in enumerate(publish.subjects):
            self._check_event(publish, index, subject, counts)
        self._check_error(publish, counts)

    def _check_event(self, publish: Publish, index: int, subject: str, counts: list[int] | Exception) -> None:
        since, event = publish.began, f"event {publish.number}.{index}"
        wanted: list[bool | None] = []
        for key in self.keys:
            wants = key.account == publish.account and key.wants(subject, since=since)
            holds = index in publish.held.get(key.id, ())
            wanted.append(wants)
            self.check(wants is not False or not holds, f"{event} is queued without a binding")
            if not isinstance(counts, Exception):
                self.check(not wants or holds, f"{event} is not queued for its binding")
        for session in self.sessions:
            wants = session.wants(publish.account, subject, since=since)
            holds = index in publish.held.get(session.id, ())
            wanted.append(wants)
            if not isinstance(counts, Exception):
                self.check(not wants or holds, f"{event} is not queued for its session")
        if not isinstance(counts, Exception):
            low, high = wanted.count(True), len(wanted) - wanted.count(False)
            self.check(low <= counts[index] <= high, f"{event} has the count {counts[index]}")

    def _check_error(self, publish: Publish, counts: list[int] | Exception) -> None:
        """Only an unknown addressee is an error, and it always is."""
        exists = [flag(key.exists, publish.began) for key in self.keys if key.id in publish.subjects]
        if isinstance(counts, Exception):
            expected = isinstance(counts, Invalid) and not all(exists)
            self.check(expected, f"publish {publish.number}: {counts!r}")
        else:
            self.check(False not in exists, f"publish {publish.number} has an unknown addressee")

    # Queues

    def check_queue(self, name: str, queue: Sequence[EventId]) -> None:
        """Checks the whole queue of a channel or a session.

        A session has no order while bindings change: it refuses nothing, and gets what is missing later.
        """
        is_channel = name in {key.id for key in self.keys}
        twice = [event for event, count in Counter(queue).items() if count > 1]
        self.check(not twice, f"{twice} twice in a queue")
        last_of: dict[tuple[int, int], EventId] = {}
        latest_begin = 0
        for event in queue:
            publish = self.publishes[event.publish]
            arrival = (publish.gateway, publish.account)
            last = last_of.get(arrival)
            in_order = not is_channel or last is None or last <= event
            self.check(in_order, f"{last} before {event}: out of order at a gateway")
            last_of[arrival] = event
            in_time = publish.ended is None or publish.ended > latest_begin
            self.check(in_time, f"{event} is behind a publish that began after its answer")
            latest_begin = max(latest_begin, publish.began)
            late = publish.ended is not None and event.place not in publish.held.get(name, ())
            self.check(not late, f"{event} is queued after its answer")
