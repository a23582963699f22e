"""Ten thousand readers of a topic on one edge: one encoding, shared reads, no long turn of its event loop."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from services.socket_edge.streams.topic_reader import Delivery, Started
from services.socket_edge.streams.topic_reading import Reading
from services.socket_edge.streams.topic_turns import READERS_PER_TURN
from shared.model.streams import Mark, Start
from tests.harness.waiting import wait_until
from tests.socket_edge.topics import TOPIC, Hubs, running_hub
from tests.store.conftest import _one_slot, backend, redis, shared_valkey, stores
from tests.store.stores import Stores

__all__ = ["_one_slot", "backend", "redis", "shared_valkey", "stores"]

READERS = 10_000
EVENTS = 20


class Turns:
    """Counts the calls of readers in each turn of the event loop."""

    def __init__(self) -> None:
        self.longest = 0
        self._calls = 0
        self._is_counting = False

    def count(self) -> None:
        self._calls += 1
        self.longest = max(self.longest, self._calls)
        if not self._is_counting:
            self._is_counting = True
            asyncio.get_running_loop().call_soon(self._end)

    def _end(self) -> None:
        self._calls, self._is_counting = 0, False


class Counting:
    """A reader who keeps little."""

    def __init__(self, turns: Turns, encodings: list[Delivery]) -> None:
        self._turns = turns
        self._encodings = encodings
        self.mark = Mark("", "")
        self.ids: list[str] = []
        self.starts = 0
        self.reading: Reading

    def on_start(self, started: Started) -> None:
        self._turns.count()
        self.starts += 1
        self.mark = started.mark

    def on_events(self, delivery: Delivery) -> None:
        self._turns.count()
        assert delivery.encoded("test", self._encode)
        self.ids += [each.event.id for each in delivery.events]
        self.mark = delivery.mark

    def _encode(self, delivery: Delivery) -> bytes:
        self._encodings.append(delivery)
        return b"".join(each.event.data for each in delivery.events)

    async def until_room(self) -> bool:
        return True


class Crowd:
    """Many readers of one topic."""

    def __init__(self, hubs: Hubs) -> None:
        self.hubs = hubs
        self.turns = Turns()
        self.encodings: list[Delivery] = []
        self.readers: list[Counting] = []

    async def come(self, since: Mark | Start) -> None:
        self.readers = [Counting(self.turns, self.encodings) for _ in range(READERS)]
        for number, reader in enumerate(self.readers):
            reader.reading = self.hubs.hub.join(self.hubs.stores.account_id, TOPIC, reader, since=since)
            if number % READERS_PER_TURN == 0:
                # Their requests do not come in one turn.
                await asyncio.sleep(0)
        await wait_until(lambda: len(self.hubs.feed()._live) == READERS, within_s=120)

    async def go(self) -> None:
        for reader in self.readers:
            reader.reading.leave()

    async def have(self, count: int) -> None:
        await wait_until(lambda: all(len(reader.ids) >= count for reader in self.readers), within_s=120)


@pytest.fixture
async def hubs(stores: Stores) -> AsyncIterator[Hubs]:
    async with running_hub(stores) as hubs:
        yield hubs


async def test_ten_thousand_readers_hear_the_same_bytes_in_short_turns(hubs: Hubs) -> None:
    await hubs.publish(1)
    crowd = Crowd(hubs)
    await crowd.come(Start.LATEST)
    # Those of one turn begin in one.
    assert crowd.turns.longest <= 2 * READERS_PER_TURN
    crowd.turns.longest = 0
    reads = len(hubs.reads.of)
    for _ in range(EVENTS):
        await hubs.publish(1)
    await crowd.have(EVENTS)
    expected = [str(number) for number in range(1, EVENTS + 1)]
    assert all(reader.ids == expected for reader in crowd.readers)
    assert crowd.turns.longest <= READERS_PER_TURN
    assert len(crowd.encodings) <= EVENTS, "one for all"
    assert len(hubs.reads.of) == reads

    # All are cut, and come back at their marks: they share the reads of what they have missed.
    await crowd.go()
    mark = crowd.readers[0].mark
    await hubs.publish(150)
    crowd.turns.longest, crowd.encodings[:] = 0, []
    await crowd.come(mark)
    await crowd.have(150)
    assert {tuple(reader.ids) for reader in crowd.readers} == {tuple(map(str, range(21, 171)))}
    assert len(hubs.reads.of) - reads < READERS / 50
    assert len(crowd.encodings) < READERS / 50
    assert crowd.turns.longest <= 4 * READERS_PER_TURN, "what begins and what is read may share a turn"


async def test_a_flood_for_a_crowd_keeps_little_and_loses_nothing(hubs: Hubs) -> None:
    """More comes than they can be called for: the edge reads pages instead of keeping every wakeup."""
    crowd = Crowd(hubs)
    await crowd.come(Start.LATEST)
    for _ in range(300):
        await hubs.publish(1)
        assert len(hubs.feed()._waiting) <= 70
    await crowd.have(300)
    assert {tuple(reader.ids) for reader in crowd.readers} == {tuple(map(str, range(300)))}
    assert {reader.starts for reader in crowd.readers} == {1}
    assert hubs.hub.memory._left_bytes == 32 * 1024 * 1024, "nothing is kept"
