"""Readers of topics on a real Valkey: where they begin, and that they miss nothing and get nothing twice."""

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest

from services.socket_edge.streams import topic_hub
from shared.model.streams import Keep, Mark, NotRecovered, Start
from shared.runtime.loops import end
from shared.store import stream_names
from shared.store.stream_wakeups import live_name
from tests.harness.waiting import wait_until
from tests.socket_edge.topics import KEEP, TOPIC, Hubs, Reader, hears, numbers, running_hub
from tests.store.conftest import _one_slot, backend, redis, shared_valkey, stores
from tests.store.stores import EDGE, Stores

__all__ = ["_one_slot", "backend", "redis", "shared_valkey", "stores"]

PAGE = 100


@pytest.fixture
async def hubs(stores: Stores) -> AsyncIterator[Hubs]:
    async with running_hub(stores) as hubs:
        yield hubs


# Where a reader begins


async def test_it_begins_at_the_end(hubs: Hubs) -> None:
    offsets = await hubs.publish(3)
    reader = await hubs.joined()
    [started] = reader.starts
    assert (started.mark.offset, started.reason, started.first, started.last) == (
        offsets[-1],
        None,
        offsets[0],
        offsets[-1],
    )
    await hubs.publish(2)
    await hears(reader, ["3", "4"])


async def test_it_begins_at_the_beginning(hubs: Hubs) -> None:
    await hubs.publish(250)
    reader = await hubs.joined(Start.EARLIEST)
    assert [each.reason for each in reader.starts] == [None]
    assert reader.ids == [*numbers(0, 250)]
    await hubs.publish()
    await hears(reader, numbers(0, 251))


@pytest.mark.parametrize("at", [0, 1, PAGE - 1, PAGE, 248, 249])
async def test_it_goes_on_behind_its_mark(hubs: Hubs, at: int) -> None:
    offsets = await hubs.publish(250)
    first = await hubs.joined()
    mark = Mark(first.starts[0].mark.epoch, offsets[at])
    reader = await hubs.joined(mark)
    assert [(each.mark, each.reason) for each in reader.starts] == [(mark, None)]
    await hubs.publish()
    await hears(reader, numbers(at + 1, 251))
    await hears(first, ["250"])


async def test_a_topic_that_has_no_stream_yet(hubs: Hubs) -> None:
    readers = [await hubs.joined(since) for since in (Start.LATEST, Start.EARLIEST, Mark("", "0-0"))]
    assert [(each.starts[0].mark, each.starts[0].reason) for each in readers] == [(Mark("", "0-0"), None)] * 3
    # It may be known elsewhere, or the reader errs: its place is kept.
    strange = hubs.join(Mark("f" * 16, "5-5"))
    await wait_until(lambda: len(strange.starts) == 1)
    await hubs.publish(2)
    for reader in (*readers, strange):
        await hears(reader, ["0", "1"])
    assert strange.starts[0].reason is NotRecovered.LOST
    await hubs.publish(1)
    for reader in (*readers, strange):
        await hears(reader, ["0", "1", "2"])
        assert len(reader.starts) == 1


@pytest.mark.parametrize(
    ("reason", "keep"), [(NotRecovered.TRIMMED, Keep(10, KEEP.age_ms)), (NotRecovered.LOST, KEEP)]
)
async def test_it_is_told_why_it_cannot_go_on(hubs: Hubs, reason: NotRecovered, keep: Keep) -> None:
    offsets = await hubs.publish(30, keep=keep)
    epoch = (await hubs.joined()).starts[0].mark.epoch
    marks = {
        NotRecovered.TRIMMED: Mark(epoch, offsets[3]),
        NotRecovered.LOST: Mark("f" * len(epoch), offsets[3]),
    }
    reader = await hubs.joined(marks[reason])
    [started] = reader.starts
    assert (started.reason, started.first) == (reason, offsets[-keep.most :][0])
    behind = offsets.index(started.mark.offset) + 1 if started.mark.offset in offsets else 0
    assert reader.ids == [*numbers(behind, 30)]


# Live


async def test_live_readers_share_one_delivery_and_need_no_read(hubs: Hubs) -> None:
    readers = [await hubs.joined() for _ in range(5)]
    reads = len(hubs.reads.of)
    await hubs.publish(3)
    for reader in readers:
        await hears(reader, ["0", "1", "2"])
    assert len({id(reader.deliveries[0]) for reader in readers}) == 1
    # The one more is of the stream's first event: its epoch was not known.
    await hubs.publish(2)
    await hears(readers[0], numbers(0, 5))
    assert len(hubs.reads.of) <= reads + 1


async def test_a_reader_at_the_mark_of_the_feed_needs_no_read(hubs: Hubs) -> None:
    await hubs.publish(2)
    first = await hubs.joined()
    await hubs.publish(2)
    await hears(first, ["2", "3"])
    reads = len(hubs.reads.of)
    for since in (Start.LATEST, first.mark):
        reader = await hubs.joined(since)
        assert (reader.starts[0].mark, reader.starts[0].reason) == (first.mark, None)
    assert len(hubs.reads.of) == reads


async def test_large_events_are_read(hubs: Hubs) -> None:
    readers = [await hubs.joined() for _ in range(2)]
    for _ in range(5):
        await hubs.publish(3, size_bytes=40_000)
    for reader in readers:
        await hears(reader, numbers(0, 15))
        assert len(reader.starts) == 1


async def test_events_for_one_channel_are_passed_over(hubs: Hubs) -> None:
    await hubs.publish(1, to="c" * 32)
    reader, early = await hubs.joined(), await hubs.joined(Start.EARLIEST)
    reads = len(hubs.reads.of)
    await hubs.publish(2, to="c" * 32)
    await hubs.publish(1)
    for each in (reader, early):
        await hears(each, ["3"])
    assert len(hubs.reads.of) == reads, "what is left out leaves no gap"


async def test_topics_and_accounts_are_apart(hubs: Hubs) -> None:
    here, there = await hubs.joined(), await hubs.joined(topic="other")
    stranger = Reader()
    hubs.hub.join("0" * 32, TOPIC, stranger, since=Start.LATEST)
    await wait_until(lambda: stranger.starts)
    await hubs.publish(1)
    await hubs.publish(1, topic="other")
    await hears(here, ["0"])
    await hears(there, ["1"])
    assert stranger.ids == []


# While a flood publishes


class Flood:
    """Publishes until it is stopped, some events at a time."""

    def __init__(self, hubs: Hubs) -> None:
        self._hubs = hubs
        self.count = 0
        self.offsets: list[str] = []
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while True:
            self.offsets += await self._hubs.publish(count := random.choice([1, 2, 5, 64]))
            self.count += count

    async def until(self, more: int) -> None:
        """So many more are published."""
        wanted = self.count + more
        await wait_until(lambda: self.count >= wanted or self._task.done(), within_s=60)

    async def stop(self) -> None:
        await end(self._task)
        # The last append may have been written without its reply.
        last = await self._hubs.publish(1)
        self.offsets += last


async def test_readers_who_join_while_a_flood_publishes_miss_nothing(hubs: Hubs) -> None:
    flood = Flood(hubs)
    await flood.until(10)
    epoch = (await hubs.joined()).starts[0].mark.epoch
    readers: list[Reader] = []
    for number in range(60):
        await flood.until(30)
        since: Mark | Start = Mark(epoch, random.choice(flood.offsets))
        if number % 3:
            since = random.choice([*Start])
        readers.append(hubs.join(since))
    await flood.stop()
    await wait_until(lambda: all(hubs.is_live(reader) for reader in readers), within_s=60)
    last = (await hubs.publish(1))[0]

    everything = await _everything(hubs)
    for reader in readers:
        await wait_until(lambda reader=reader: reader.mark.offset == last)  # type: ignore[misc]
        [started] = reader.starts
        assert started.reason is None
        offsets = [each.offset for delivery in reader.deliveries for each in delivery.events]
        assert offsets == everything[everything.index(offsets[0]) :], "in order, and each once"
        before = everything[: everything.index(offsets[0])]
        assert (before or ["0-0"])[-1] == started.mark.offset, "from where it began"


async def _everything(hubs: Hubs) -> list[str]:
    [stream, *_] = stream_names.names(hubs.stores.account_id, TOPIC)
    return [entry.decode() for entry, _ in hubs.stores.direct.xrange(stream)]


async def test_a_reader_who_reads_while_wakeups_come_is_live_behind_them(hubs: Hubs) -> None:
    """The reply to its read comes after the wakeups of what was appended behind the read."""
    await hubs.publish(3)
    await hubs.joined()
    hubs.reads.gate.clear()
    reads = len(hubs.reads.of)
    late = hubs.join(Start.EARLIEST)
    await wait_until(lambda: len(hubs.reads.of) == reads + 1)
    offsets = await hubs.publish(5)
    offsets += await hubs.publish(5)
    await wait_until(lambda: hubs.offset() == offsets[-1])
    hubs.reads.gate.set()
    await hears(late, numbers(0, 13))
    assert len(hubs.reads.of) == reads + 1, "what it had heard follows what it has read"
    assert hubs.is_live(late)


async def test_readers_at_one_mark_share_a_read(hubs: Hubs) -> None:
    offsets = await hubs.publish(250)
    epoch = (await hubs.joined()).starts[0].mark.epoch
    reads = len(hubs.reads.of)
    readers = [hubs.join(Mark(epoch, offsets[9])) for _ in range(50)]
    for reader in readers:
        await hears(reader, numbers(10, 250))
    assert len(hubs.reads.of) - reads == 3, "a page is read once for all of them"
    assert len({id(delivery) for reader in readers for delivery in reader.deliveries}) == 3


# Readers who leave


async def test_a_reader_who_has_left_hears_nothing(hubs: Hubs) -> None:
    gone, stays = await hubs.joined(), await hubs.joined()
    before = hubs.join()
    before.reading.leave()
    gone.reading.leave()
    gone.reading.leave()
    await hubs.publish()
    await hears(stays, ["0"])
    assert (gone.ids, before.heard) == ([], [])


async def test_readers_may_leave_within_a_delivery(hubs: Hubs) -> None:
    readers = [await hubs.joined() for _ in range(4)]

    class Leaves(Reader):
        def on_events(self, delivery: Any) -> None:
            super().on_events(delivery)
            for reader in readers[1:3]:
                reader.reading.leave()
            self.reading.leave()

    leaves = Leaves()
    leaves.reading = hubs.hub.join(hubs.stores.account_id, TOPIC, leaves, since=Start.LATEST)
    readers.append(await hubs.joined())
    await wait_until(lambda: hubs.is_live(leaves))
    await hubs.publish()
    await hears(readers[0], ["0"])
    await hubs.publish()
    for reader in (readers[0], readers[3], readers[4]):
        await hears(reader, ["0", "1"])
    assert leaves.ids == ["0"]
    assert {len(reader.ids) for reader in readers[1:3]} <= {0, 1}


async def test_a_reader_that_raises_is_dropped_and_the_others_get_theirs(
    hubs: Hubs, caplog: pytest.LogCaptureFixture
) -> None:
    class Raises(Reader):
        def on_events(self, delivery: Any) -> None:
            raise ValueError("a bug")

    first, raises = await hubs.joined(), Raises()
    raises.reading = hubs.hub.join(hubs.stores.account_id, TOPIC, raises, since=Start.LATEST)
    await wait_until(lambda: hubs.is_live(raises))
    last = await hubs.joined()
    await hubs.publish()
    await hubs.publish()
    await hears(first, ["0", "1"])
    await hears(last, ["0", "1"])
    assert raises.reading.has_left
    assert "stream.reader-failed" in caplog.messages


def subscribers(hubs: Hubs, topic: str = TOPIC) -> int:
    name = live_name(hubs.stores.account_id, topic)
    return int(hubs.stores.direct.execute_command("PUBSUB", "SHARDNUMSUB", name)[1])


async def test_a_topic_is_left_a_while_after_its_last_reader(
    hubs: Hubs, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = await hubs.joined()
    assert subscribers(hubs) == 1
    reader.reading.leave()
    await hubs.publish(2)
    feed = hubs.feed()
    again = await hubs.joined(reader.mark)
    await hears(again, ["0", "1"])
    assert hubs.feed() is feed, "it was kept"

    monkeypatch.setattr(topic_hub, "LINGER_S", 0.01)
    again.reading.leave()
    await wait_until(lambda: subscribers(hubs) == 0)
    assert not hubs.hub._feeds
    new = await hubs.joined(again.mark)
    await hubs.publish()
    await hears(new, ["2"])


async def test_topics_that_were_left_are_bounded(hubs: Hubs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topic_hub, "_MOST_LINGERING", 3)
    for number in range(6):
        (await hubs.joined(topic=f"topic-{number}")).reading.leave()
    assert [feed.topic for feed in hubs.hub._feeds.values()] == ["topic-3", "topic-4", "topic-5"]
    await wait_until(lambda: [subscribers(hubs, f"topic-{n}") for n in range(6)] == [0, 0, 0, 1, 1, 1])


async def test_redis_knows_how_many_read(hubs: Hubs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topic_hub, "_REPORT_S", 0.01)
    readers = [hubs.join() for _ in range(3)] + [hubs.join(topic="other")]
    count = hubs.stores.stream_reads.readers

    async def counts() -> list[int]:
        return [await count(hubs.stores.account_id, topic) for topic in (TOPIC, "other")]

    async def are(*expected: int) -> bool:
        return await counts() == [*expected]

    await wait_until(lambda: are(3, 1))
    for reader in readers[1:]:
        reader.reading.leave()
    await wait_until(lambda: are(1, 0))
    await hubs.stores.stream_reads.note_readers(hubs.stores.account_id, {TOPIC: 5}, instance=f"{EDGE}-2")
    assert await counts() == [6, 0]
