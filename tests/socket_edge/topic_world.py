"""A stream in memory whose replies and wakeups come when a test lets them, and what readers may not hear.

Each event knows the one before it when it was appended. A reader may hear an event only if it was behind that
one, or was told where it is instead: so a hole, a double or another order is found, whatever Redis has lost.
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from services.socket_edge.streams.topic_hub import TopicHub
from services.socket_edge.streams.topic_reader import Delivery, Started
from services.socket_edge.streams.topic_reading import Reading
from services.socket_edge.streams.topic_turns import Memory
from shared.model.errors import StoreUnavailable
from shared.model.events import Event
from shared.model.streams import BEGINNING, Mark, NotRecovered, Resumed, Retained, Start
from shared.store.stream_wakeups import live_name

ACCOUNT, TOPIC = "a" * 32, "orders"
PAGE = 3
_TURNS = 12
# Of three events.
_LITTLE_BYTES = 3500


@dataclass(frozen=True)
class Entry:
    number: int
    offset: str
    is_private: bool
    before: int
    """The number of the entry before it when it was appended; 0 of the first."""


class World:
    """One stream, and a hub that reads it."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.entries: list[Entry] = []
        self.all: dict[int, Entry] = {}
        self.epoch = ""
        self.last = self.trimmed = BEGINNING
        self.reason: NotRecovered | None = None
        self._epochs = 0
        self.wakeups: list[bytes] = []
        self.replies: list[tuple[asyncio.Future[None], bool]] = []
        self.is_subscribed = False
        self.fails = False
        self.readers: list[Reader] = []
        self.violations: list[str] = []
        self.memory_bytes = 0
        self.hub: TopicHub

    # What a stream does

    def append(self, count: int) -> None:
        if not self.epoch:
            self._epochs += 1
            self.epoch = f"{self._epochs:x}"
            self.last = self.trimmed = BEGINNING
        before, added = self.last, []
        for _ in range(count):
            number = len(self.all) + 1
            previous = self.entries[-1].number if self.entries else _order(self.last)[0]
            entry = Entry(number, f"{number}-0", self.random.random() < 0.2, previous)
            self.all[number] = entry
            self.entries.append(entry)
            added.append(entry)
            self.last = entry.offset
        if self.random.random() < 0.15:
            self._wake(f"-{self.epoch}", before, self.last)
            return
        parts = [[e.offset, str(e.number), "1", "", "", ""] for e in added if not e.is_private]
        self._wake(f"+{self.epoch}", before, self.last, *(part for each in parts for part in each))

    def _wake(self, *parts: str) -> None:
        if self.is_subscribed:
            self.wakeups.append("\0".join(parts).encode())

    def trim(self, count: int) -> None:
        if gone := self.entries[:count]:
            self.entries = self.entries[count:]
            self.trimmed, self.reason = gone[-1].offset, NotRecovered.TRIMMED

    def purge(self) -> None:
        if self.epoch:
            self.entries = []
            self.trimmed, self.reason = self.last, NotRecovered.PURGED
            self._epochs += 1
            self.epoch = f"{self._epochs:x}"
            self._wake(f"-{self.epoch}", self.last, self.last)

    def lose_end(self, count: int) -> None:
        """Redis comes back without its last writes: whoever was subscribed has lost its connection."""
        if self.entries[count:]:
            self.entries = self.entries[:-count]
            self.last = self.entries[-1].offset
            self.resubscribe()

    def lose_all(self) -> None:
        self.entries, self.epoch = [], ""
        self.resubscribe()

    def resubscribe(self) -> None:
        self.lose_subscription()
        self.subscribe()

    def lose_subscription(self) -> None:
        if self.is_subscribed:
            self.is_subscribed = False
            self.wakeups.clear()
            self.hub.on_lost([self.name])

    def subscribe(self) -> None:
        if not self.is_subscribed and self.name in self.hub._feeds:
            self.is_subscribed = True
            self.hub.on_subscribed(self.name)

    @property
    def name(self) -> bytes:
        return live_name(ACCOUNT, TOPIC).encode()

    # What readers of it ask

    async def resume(
        self, account_id: str, topic: str, since: Mark | Start, *, count: int, size_bytes: int
    ) -> Resumed:
        page, reply = self._resumed(since), asyncio.get_running_loop().create_future()
        self.replies.append((reply, self.fails))
        fails = self.fails
        await reply
        if fails:
            raise StoreUnavailable(why="the test says so")
        return page

    def _resumed(self, since: Mark | Start) -> Resumed:
        offset, reason = self._place_of(since)
        at = _order(offset)
        page = [each for each in self.entries if _order(each.offset) > at][:PAGE]
        return Resumed(
            epoch=self.epoch,
            reason=reason,
            offset=offset,
            first=self.entries[0].offset if self.entries else "",
            last=self.last if self.epoch else offset,
            events=[_retained(each) for each in page if not each.is_private],
            until=page[-1].offset if page else offset,
        )

    def _place_of(self, since: Mark | Start) -> tuple[str, NotRecovered | None]:
        if isinstance(since, Start):
            starts = {Start.LATEST: self.last, Start.EARLIEST: self.trimmed}
            return (starts[since] if self.epoch else BEGINNING), None
        if not self.epoch:
            return since.offset, NotRecovered.LOST if since.epoch else None
        offset = since.offset
        if since.epoch and since.epoch != self.epoch:
            why = NotRecovered.PURGED if self.reason is NotRecovered.PURGED else NotRecovered.LOST
            return self.trimmed, why
        if _order(offset) <= _order(self.trimmed):
            return self.trimmed, None if offset == self.trimmed else self.reason or None
        if any(each.offset == offset for each in self.entries):
            return offset, None
        behind = [each.offset for each in self.entries if _order(each.offset) <= _order(offset)]
        known = not since.epoch and not behind
        return (behind[-1] if behind else self.trimmed), None if known else NotRecovered.LOST

    async def note_readers(self, *_: object, **__: object) -> None:
        """Nobody asks."""

    # What a test does

    def join(self, since: Mark | Start) -> None:
        reader = Reader(self)
        self.readers.append(reader)
        reader.reading = self.hub.join(ACCOUNT, TOPIC, reader, since=since)

    def deliver(self, count: int) -> None:
        some, self.wakeups = self.wakeups[:count], self.wakeups[count:]
        if some:
            self.hub.on_messages([(self.name, each) for each in some])

    def drop_wakeup(self) -> None:
        if self.wakeups:
            del self.wakeups[self.random.randrange(len(self.wakeups))]

    def reply(self) -> None:
        if self.replies:
            reply, _ = self.replies.pop(self.random.randrange(len(self.replies)))
            reply.set_result(None)

    async def turns(self, count: int) -> None:
        for _ in range(count):
            await asyncio.sleep(0)

    async def come_to_rest(self) -> None:
        """All that is under way arrives, and a sweep finds what no wakeup tells."""
        self.fails = False
        for reader in self.readers:
            reader.has_room.set()
        self.subscribe()
        for _ in range(60):
            self.deliver(len(self.wakeups))
            while self.replies:
                self.reply()
            await self.turns(_TURNS)
        if feed := self.hub._feeds.get(self.name):
            feed.sweep()
        for _ in range(60):
            self.deliver(len(self.wakeups))
            while self.replies:
                self.reply()
            await self.turns(_TURNS)
        for reader in self.readers:
            reader.check_has_all()
        feed = self.hub._feeds.get(self.name)
        is_at_rest = feed is None or len(feed._live) == len(feed.readings)
        if is_at_rest and self.hub.memory._left_bytes != self.memory_bytes:
            self.violations.append("something is kept at rest")

    def precedes(self, number: int, other: int) -> bool:
        """Whether only entries that are for others lie between the two, or none."""
        before = self.all[other].before
        while before != number and before and self.all[before].is_private:
            before = self.all[before].before
        return before == number


class Reader:
    """Checks each thing that it hears."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.mark: Mark | None = None
        self.heard: set[int] = set()
        self.has_room = asyncio.Event()
        self.has_room.set()
        self.has_left = False
        self.reading: Reading

    def on_start(self, started: Started) -> None:
        self._must(not self.has_left, "called after it has left")
        self._must(self.mark is None or started.reason is not None, "started again without a reason")
        self.mark = started.mark

    def on_events(self, delivery: Delivery) -> None:
        self._must(not self.has_left, "called after it has left")
        self._must(self.mark is not None, "events before the start")
        behind = _numbers(self.mark)
        for number in [int(each.event.id) for each in delivery.events]:
            self._must(number not in self.heard, f"{number} twice")
            is_next = any(self._world.precedes(at, number) for at in behind)
            self._must(is_next, f"{number} behind {behind}: something is missing, and nobody said so")
            self.heard.add(number)
            behind = [number]
        self.mark = delivery.mark

    async def until_room(self) -> bool:
        await self.has_room.wait()
        return True

    def leave(self) -> None:
        self.has_left = True
        self.reading.leave()

    def check_has_all(self) -> None:
        """At rest a reader is where the stream is."""
        world = self._world
        if self.has_left:
            return
        self._must(self.mark is not None, "never started")
        if world.epoch:
            end = Mark(world.epoch, world.last)
            self._must(self.mark == end, f"stuck at {self.mark}, and the stream is at {end}")

    def _must(self, holds: bool, otherwise: str) -> None:
        if not holds:
            self._world.violations.append(otherwise)


class Subscription:
    """Confirms names when the test does."""

    def __init__(self, *_: object) -> None:
        self.names: set[str] = set()

    def add(self, name: str) -> None:
        self.names.add(name)

    def remove(self, name: str) -> None:
        self.names.discard(name)

    async def run(self) -> None:
        """Nothing is to be done."""


Step = Callable[[World], None]


def steps(world: World) -> Sequence[tuple[float, Step]]:
    """What may happen next, and how likely each is."""
    chance = world.random

    def since(_: World) -> Mark | Start:
        marks = [reader.mark for reader in world.readers if reader.mark is not None]
        some: list[Mark | Start] = [*Start, *chance.sample(marks, min(2, len(marks)))]
        if world.all:
            some.append(Mark(world.epoch, f"{chance.randint(1, len(world.all) + 1)}-0"))
        return chance.choice(some)

    def of_reader(do: Callable[[Reader], None]) -> Step:
        return lambda world: do(chance.choice(world.readers)) if world.readers else None

    return [
        (6, lambda world: world.append(chance.randint(1, 4))),
        (8, lambda world: world.deliver(chance.randint(1, 3))),
        (8, World.reply),
        (2, lambda world: world.join(since(world))),
        (1, World.drop_wakeup),
        (0.5, of_reader(Reader.leave)),
        (0.5, of_reader(lambda reader: reader.has_room.clear())),
        (1, of_reader(lambda reader: reader.has_room.set())),
        (0.5, lambda world: world.trim(chance.randint(1, 5))),
        (0.3, World.purge),
        (0.4, lambda world: world.lose_end(chance.randint(1, 3))),
        (0.1, World.lose_all),
        (0.4, World.lose_subscription),
        (1, World.subscribe),
        (0.3, lambda world: setattr(world, "fails", not world.fails)),
        (0.3, lambda world: [feed.sweep() for feed in world.hub._feeds.values()] and None),
    ]


async def run(seed: int, *, count: int = 80) -> list[str]:
    """One order of what may happen; returns what it violates."""
    world = World(seed)
    world.hub = TopicHub(world, None, instance="edge/1")  # type: ignore[arg-type]
    if seed % 3 == 0:
        world.hub.memory = Memory(_LITTLE_BYTES)
    world.memory_bytes = world.hub.memory._left_bytes
    world.append(world.random.randint(0, 8) or 1)
    world.join(Start.LATEST)
    likely, does = zip(*steps(world), strict=True)
    try:
        for _ in range(count):
            [do] = world.random.choices(does, likely)
            do(world)
            await world.turns(world.random.randint(0, 4))
        await world.come_to_rest()
    finally:
        await world.hub.reads.stop()
    return world.violations


def _numbers(mark: Mark | None) -> list[int]:
    """The event that a reader at this mark is behind. One who found no stream may as well be behind none."""
    at = 0 if mark is None else _order(mark.offset)[0]
    return [at] if mark is not None and mark.epoch else [0, at]


def _order(offset: str) -> tuple[int, int]:
    ms, _, sequence = offset.partition("-")
    return int(ms), int(sequence)


def _retained(entry: Entry) -> Retained:
    return Retained(entry.offset, Event(id=str(entry.number), topic=TOPIC, data=b"1"))
