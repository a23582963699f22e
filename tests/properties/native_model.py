"""The model of native channels: which of them a publish must reach, and which it must not.

What a channel then delivers is for the model of delivery (model.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from shared.model.errors import Invalid, StoreUnavailable
from tests.properties.facts import Change, Changes, Fact, all_of, flag
from tests.properties.model import Key


def _unknown() -> Fact:
    return Fact({""})


@dataclass(frozen=True)
class Address:
    """How an event finds its channels: by the id or the name of one (`to`), or by its topic."""

    topic: str = "#"
    id: str = ""
    name: str = ""
    customer: str = ""

    @property
    def is_to_one(self) -> bool:
        return bool(self.id or self.name)


@dataclass(eq=False)
class Native:
    """A native channel. Its id is never used again."""

    key: Key
    tail: tuple[int, int] = (0, 0)
    """The last entry that was appended, when Redis was last looked at."""
    exists: Fact = field(default_factory=lambda: Fact({False}))
    name: Fact = field(default_factory=_unknown)
    customer: Fact = field(default_factory=_unknown)
    topics: Fact = field(default_factory=lambda: Fact({frozenset()}))

    @property
    def id(self) -> str:
        return self.key.id

    def wants(self, address: Address, *, since: int) -> bool | None:
        """Whether it gets an event with this address; None: uncertain."""
        return all_of([flag(self.exists, since), *self._matches(address, since)])

    def _matches(self, address: Address, since: int) -> list[bool | None]:
        if address.id:
            return [self.id == address.id]
        if address.name:
            return [_is(self.name, address.name, since)]
        topics = self.topics.certain(since=since)
        assert topics is None or isinstance(topics, frozenset)
        by_topic = None if topics is None else address.topic in topics
        return [by_topic, _is(self.customer, address.customer, since) if address.customer else True]

    def may_be_named(self, name: str) -> bool:
        return True in self.exists.possible and name in self.name.possible


def _is(fact: Fact, value: str, since: int) -> bool | None:
    if value not in fact.possible and fact.since <= since:
        return False
    certain = fact.certain(since=since)
    return None if certain is None else certain == value


@dataclass(eq=False)
class Publish:
    """One publish through one gateway, of events with ascending numbers."""

    gateway: object
    address: Address
    numbers: range
    began: int
    is_answered: bool = False


class NativeModel(Changes):
    """All native channels and publishes, and every violation."""

    def __init__(self, violations: list[str]) -> None:
        super().__init__(violations)
        self.natives: list[Native] = []
        self.was_cut_short = False
        """Whether a change failed or died: names may be left, until the reaper comes."""
        self._publish_of: dict[int, Publish] = {}

    def add(self, key: Key) -> Native:
        self.natives.append(Native(key))
        return self.natives[-1]

    def of(self, channel: str) -> Native:
        [native] = [native for native in self.natives if native.id == channel]
        return native

    # Changes

    def end_change(self, change: Change) -> None:
        super().end_change(change)
        if change.overlapped:
            # Of names given at once the reaper may find one that no channel has.
            self.was_cut_short = True
        for name in {value for fact, value in change.values.items() if self._is_name(fact) and value}:
            holders = [n for n in self.natives if self.has_name(n, str(name))]
            self.check(len(holders) <= 1, f"{name} is the name of several channels")

    def has_name(self, native: Native, name: str) -> bool:
        """It certainly exists, with this name."""
        exists, its_name = native.exists.certain(since=self.now), native.name.certain(since=self.now)
        return exists is True and its_name == name

    def _is_name(self, fact: Fact) -> bool:
        return any(native.name is fact for native in self.natives)

    def abandon_change(self, change: Change) -> None:
        super().abandon_change(change)
        self.was_cut_short = True

    def check_taken(self, native: Native, name: str) -> None:
        """A name was refused to a channel."""
        others = [other for other in self.natives if other is not native]
        self.check(any(other.may_be_named(name) for other in others), f"the free name {name} was refused")

    # Publishes

    def begin_publish(self, gateway: object, address: Address, numbers: range) -> Publish:
        publish = Publish(gateway, address, numbers, began=self.tick())
        self._publish_of |= dict.fromkeys(numbers, publish)
        return publish

    def check_append(self, channel: str, log: Sequence[int], numbers: Sequence[int]) -> None:
        """Checks events that are at the end of the log of this channel now."""
        native = self.of(channel)
        for number in numbers:
            publish = self._publish_of[number]
            wanted = native.wants(publish.address, since=publish.began)
            self.check(wanted is not False, f"{number} was queued for a channel that it is not for")
            self.check(not publish.is_answered, f"{number} was queued after its answer")
            before = log[: log.index(number)]
            late = [n for n in before if n > number and self._publish_of[n].gateway is publish.gateway]
            self.check(not late, f"{number} was queued behind {late}")
            self.check(log.count(number) == 1, f"{number} was queued twice")

    def end_publish(self, publish: Publish, counts: list[int] | Exception) -> None:
        self.tick()
        publish.is_answered = not isinstance(counts, StoreUnavailable)
        if isinstance(counts, StoreUnavailable):
            return
        wanted = [native.wants(publish.address, since=publish.began) for native in self.natives]
        if isinstance(counts, Exception):
            is_unknown = publish.address.is_to_one and True not in wanted
            self.check(isinstance(counts, Invalid) and is_unknown, f"a publish was refused: {counts!r}")
            return
        low, high = wanted.count(True), len(wanted) - wanted.count(False)
        self.check(high or not publish.address.is_to_one, "an event has an unknown addressee")
        for number, count in zip(publish.numbers, counts, strict=True):
            self.check(low <= count <= high, f"{number} has the count {count}, not {low} to {high}")
            for native, wants in zip(self.natives, wanted, strict=True):
                log = native.key.channel.log if native.key.channel else ()
                self.check(not wants or number in log, f"{number} is not queued for its channel")
