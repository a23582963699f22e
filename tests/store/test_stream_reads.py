"""Readers of streams: what proves that nothing is missing, why something is, and live wakeups."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from shared.model.events import Event
from shared.model.streams import BEGINNING, Keep, Mark, NotRecovered, Resumed, Start, is_offset
from shared.store import stream_names
from shared.store.stream_reads import StreamReads
from shared.store.streams import READ_LOT, before_offset
from tests.store.stores import HOUR_MS, Stores, at_time, events
from tests.store.test_streams import DAY_MS, TOPIC, append, state


async def resume(
    stores: Stores, since: Mark | Start, *, count: int = READ_LOT, size_bytes: int = 10**6
) -> Resumed:
    return await stores.stream_reads.resume(
        stores.account_id, TOPIC, since, count=count, size_bytes=size_bytes
    )


def epoch(stores: Stores) -> str:
    return state(stores)["epoch"]


def read_by(resumed: Resumed) -> list[str]:
    return [each.event.id for each in resumed.events]


class Snapshot:
    """What Redis has of the stream; `restore` is a Redis that has lost everything since."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        names = stream_names.names(stores.account_id, TOPIC)
        self._dumps = {name: stores.direct.dump(name) for name in names}

    def restore(self) -> None:
        for name, dump in self._dumps.items():
            self._stores.direct.delete(name)
            if dump is not None:
                self._stores.direct.restore(name, DAY_MS * 60, dump)


async def test_a_reader_begins_at_either_end(stores: Stores) -> None:
    offsets = await append(stores, *events(*range(5)))
    latest = await resume(stores, Start.LATEST)
    assert latest == Resumed(epoch(stores), None, offsets[-1], offsets[0], offsets[-1], [], offsets[-1])
    earliest = await resume(stores, Start.EARLIEST)
    assert (earliest.offset, earliest.until, earliest.reason) == (BEGINNING, offsets[-1], None)
    assert read_by(earliest) == ["0", "1", "2", "3", "4"]
    await append(stores, *events(5), keep=Keep(3, DAY_MS))
    earliest = await resume(stores, Start.EARLIEST)
    assert (earliest.offset, earliest.first, earliest.reason) == (offsets[2], offsets[3], None)
    assert read_by(earliest) == ["3", "4", "5"]


async def test_reads_go_on_page_by_page(stores: Stores) -> None:
    await append(stores, *events(*range(250), size_bytes=1000))
    for bounds, pages in (({"count": 1000}, 3), ({"size_bytes": 10_000}, 28), ({"count": 1}, 250)):
        found: list[str] = []
        resumed = await resume(stores, Start.EARLIEST, **bounds)
        found += read_by(resumed)
        made = 1
        while not resumed.is_at_end:
            resumed = await resume(stores, resumed.mark, **bounds)
            assert resumed.reason is None
            found += read_by(resumed)
            made += 1
        assert found == [str(number) for number in range(250)]
        assert made == pages
    check = await resume(stores, Start.EARLIEST, count=0)
    assert (check.events, check.until, check.is_at_end) == ([], BEGINNING, False)


async def test_what_is_for_one_channel_or_customer_is_passed_over(stores: Stores) -> None:
    given = [
        Event("a", TOPIC, b"1"),
        Event("b", TOPIC, b"1", to="0" * 32),
        Event("c", TOPIC, b"1", attributes=b'{"source":"/s"}'),
        Event("d", TOPIC, b"1", customer="acme"),
        Event("e", TOPIC, b"1", customer="acme", attributes=b'{"source":"/s"}'),
    ]
    offsets = await append(stores, *given)
    resumed = await resume(stores, Start.EARLIEST)
    assert [each.event for each in resumed.events] == [given[0], given[2]]
    assert (resumed.until, resumed.is_at_end) == (offsets[-1], True)
    # An event that a reader does not get is a place like any other.
    resumed = await resume(stores, Mark(epoch(stores), offsets[1]))
    assert (resumed.reason, read_by(resumed)) == (None, ["c"])


def beyond(offset: str) -> str:
    ms, _, number = offset.partition("-")
    return f"{ms}-{int(number) + 1}"


# Ten events are published one by one; the first four of them are trimmed. Offsets are numbered from 0.
CASES: dict[str, tuple[Callable[[list[str]], str], NotRecovered | None, int]] = {
    "the last": (lambda offsets: offsets[9], None, 9),
    "one that is there": (lambda offsets: offsets[6], None, 6),
    "the first that is there": (lambda offsets: offsets[4], None, 4),
    "the last one trimmed": (lambda offsets: offsets[3], None, 3),
    "one before it": (lambda offsets: offsets[2], NotRecovered.TRIMMED, 3),
    "just before it": (lambda offsets: before_offset(offsets[3]), NotRecovered.TRIMMED, 3),
    "the beginning": (lambda _: BEGINNING, NotRecovered.TRIMMED, 3),
    "just behind the last one trimmed": (lambda offsets: beyond(offsets[3]), NotRecovered.LOST, 3),
    "just before one that is there": (lambda offsets: before_offset(offsets[6]), NotRecovered.LOST, 5),
    "just behind one that is there": (lambda offsets: beyond(offsets[6]), NotRecovered.LOST, 6),
    "just behind the last": (lambda offsets: beyond(offsets[9]), NotRecovered.LOST, 9),
    "far behind the last": (lambda _: f"{10**14}-0", NotRecovered.LOST, 9),
}


@pytest.fixture
async def trimmed(stores: Stores) -> list[str]:
    offsets: list[str] = []
    for number in range(10):
        offsets += await append(stores, *events(number), keep=Keep(6, DAY_MS))
        stores.let_time_pass()
    return offsets


@pytest.mark.parametrize(("place", "reason", "behind"), CASES.values(), ids=CASES)
async def test_what_proves_that_nothing_is_missing(
    stores: Stores,
    trimmed: list[str],
    place: Callable[[list[str]], str],
    reason: NotRecovered | None,
    behind: int,
) -> None:
    here = epoch(stores)
    resumed = await resume(stores, Mark(here, place(trimmed)))
    assert (resumed.epoch, resumed.reason, resumed.offset) == (here, reason, trimmed[behind])
    assert (resumed.first, resumed.last) == (trimmed[4], trimmed[9])
    assert read_by(resumed) == [str(number) for number in range(behind + 1, 10)]
    # Whatever was missing is told once: where reading goes on is a mark.
    again = await resume(stores, Mark(resumed.epoch, resumed.offset))
    assert again == replace(resumed, reason=None)


@pytest.mark.parametrize("place", CASES)
async def test_an_unknown_epoch_is_lost_whatever_its_offset(
    stores: Stores, trimmed: list[str], place: str
) -> None:
    choose, _, behind = CASES[place]
    for unknown in ("0" * 16, "what", epoch(stores) + "-1-0a0b0c", epoch(stores) + "-", "-", "-0-"):
        resumed = await resume(stores, Mark(unknown, choose(trimmed)))
        assert (resumed.reason, resumed.offset) == (NotRecovered.LOST, trimmed[behind])
        assert resumed.epoch == epoch(stores)


async def test_what_is_too_old_is_gone_though_it_is_still_there(stores: Stores) -> None:
    """The third of five events is the last that is too old; nothing was appended since."""
    offsets: list[str] = []
    for number in range(5):
        offsets += await append(stores, *events(number), keep=Keep(100, HOUR_MS))
        stores.let_time_pass()
    ms = int(offsets[3].partition("-")[0])
    later = StreamReads(at_time(stores, ms + HOUR_MS))
    here = epoch(stores)
    for place, (reason, behind) in enumerate(
        [(NotRecovered.EXPIRED, 2), (NotRecovered.EXPIRED, 2), (None, 2), (None, 3), (None, 4)]
    ):
        resumed = await later.resume(
            stores.account_id, TOPIC, Mark(here, offsets[place]), count=9, size_bytes=9999
        )
        assert (resumed.reason, resumed.offset, resumed.first) == (reason, offsets[behind], offsets[3])
        assert read_by(resumed) == [str(number) for number in range(behind + 1, 5)]
    earliest = await later.resume(stores.account_id, TOPIC, Start.EARLIEST, count=9, size_bytes=9999)
    assert (earliest.offset, earliest.reason, read_by(earliest)) == (offsets[2], None, ["3", "4"])
    # All of it is too old.
    later = StreamReads(at_time(stores, ms + 2 * HOUR_MS))
    for place, reason in ((2, NotRecovered.EXPIRED), (4, None)):
        resumed = await later.resume(
            stores.account_id, TOPIC, Mark(here, offsets[place]), count=9, size_bytes=9999
        )
        assert resumed == Resumed(here, reason, offsets[4], "", offsets[4], [], offsets[4])


async def test_the_state_tells_of_entries_that_have_ended(stores: Stores) -> None:
    offsets = await append(stores, *events(1, 2))
    here = epoch(stores)
    stores.direct.delete(stream_names.names(stores.account_id, TOPIC)[0])
    for when in ("ended", "appended since"):
        for place, reason in ((0, NotRecovered.EXPIRED), (1, None)):
            resumed = await resume(stores, Mark(here, offsets[place]))
            assert (resumed.reason, resumed.offset) == (reason, offsets[1]), when
            assert read_by(resumed) == (["3"] if when == "appended since" else [])
        if when == "ended":
            await append(stores, *events(3))


async def test_trimming_by_age_is_an_expiry_and_by_count_is_not(stores: Stores) -> None:
    await append(stores, *events(1, 2))
    stores.let_time_pass()
    stores.let_time_pass()
    offsets = await append(stores, *events(3), keep=Keep(100, 1))
    assert state(stores)["reason"] == "expired"
    await append(stores, *events(*range(4, 10)), keep=Keep(5, DAY_MS))
    assert state(stores)["reason"] == "trimmed"
    resumed = await resume(stores, Mark(epoch(stores), before_offset(offsets[0])))
    assert resumed.reason is NotRecovered.TRIMMED


async def test_without_any_event_a_reader_is_at_the_beginning(stores: Stores) -> None:
    for since in (Start.LATEST, Start.EARLIEST, Mark("", BEGINNING)):
        assert await resume(stores, since) == Resumed("", None, BEGINNING, "", BEGINNING, [], BEGINNING)
    lost = await resume(stores, Mark("0" * 16, "5-0"))
    assert (lost.epoch, lost.reason, lost.offset, lost.is_at_end) == ("", NotRecovered.LOST, "5-0", True)
    # The first event comes: who has waited for it, has missed nothing.
    offsets = await append(stores, *events(1))
    for offset in (BEGINNING, "5-0"):
        waited = await resume(stores, Mark("", offset))
        assert (waited.epoch, waited.reason, read_by(waited)) == (epoch(stores), None, ["1"])
    assert (await resume(stores, Mark("", offsets[0]))).reason is None
    assert (await resume(stores, Mark("", beyond(offsets[0])))).reason is NotRecovered.LOST
    await append(stores, *events(2, 3), keep=Keep(1, DAY_MS))
    waited = await resume(stores, Mark("", BEGINNING))
    assert (waited.reason, read_by(waited)) == (NotRecovered.TRIMMED, ["3"])


async def test_a_redis_that_has_lost_its_last_writes_is_told_and_doubles_nothing(stores: Stores) -> None:
    await append(stores, *events(1, 2))
    stores.let_time_pass()
    before = Snapshot(stores)
    seen = await append(stores, *events(3, 4))
    here = epoch(stores)
    before.restore()

    # Nothing new has come: the log ends before the reader.
    at_end = await resume(stores, Mark(here, seen[1]))
    assert (at_end.reason, at_end.events, at_end.last) == (NotRecovered.LOST, [], at_end.offset)

    # New events have come: the reader gets these alone, and none that it had.
    stores.let_time_pass()
    await append(stores, *events(5, 6))
    for mark in (Mark(here, seen[1]), Mark(here, seen[0])):
        resumed = await resume(stores, mark)
        assert (resumed.reason, read_by(resumed)) == (NotRecovered.LOST, ["5", "6"])
    # Who went on at the end that was there has them all, and is told nothing again.
    resumed = await resume(stores, at_end.mark)
    assert (resumed.reason, read_by(resumed)) == (None, ["5", "6"])


@pytest.mark.parametrize("lost", ["all", "the state", "the entries"])
async def test_what_redis_has_lost(stores: Stores, lost: str) -> None:
    offsets = await append(stores, *events(1, 2))
    here = epoch(stores)
    [stream, name, _] = stream_names.names(stores.account_id, TOPIC)
    stores.direct.delete(*{"all": (stream, name), "the state": (name,), "the entries": (stream,)}[lost])
    stores.let_time_pass()
    kept = lost == "the entries"
    expected = (NotRecovered.EXPIRED, None) if kept else (NotRecovered.LOST,) * 2
    for new in ([], ["3"]):
        if new:
            await append(stores, *events(3))
            assert (epoch(stores) == here) is kept
        for offset, reason in zip(offsets, expected, strict=True):
            resumed = await resume(stores, Mark(here, offset))
            assert (resumed.reason, read_by(resumed)) == (reason, new)


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("0-0", True),
        ("1795907463007-12", True),
        ("999999999999999-999999999999999", True),
        *((text, False) for text in ("", "1", "1-", "-1", "01-0", "1-00", "1-1-1", "1000000000000000-0")),
        *(
            (text, False)
            for text in ("1-1000000000000000", "a-0", "(1-0", "+", "$", "1 -0", "1-0\n", "\u0661-0")
        ),
    ],
)
def test_what_may_be_an_offset(text: str, is_one: bool) -> None:
    assert is_offset(text) is is_one


async def test_the_state_of_a_stream(stores: Stores) -> None:
    assert await stores.stream_reads.state(stores.account_id, TOPIC) is None
    offsets = await append(stores, *events(*range(10), size_bytes=100), keep=Keep(4, DAY_MS))
    found = await stores.stream_reads.state(stores.account_id, TOPIC)
    assert found is not None
    assert (found.epoch, found.first, found.last) == (epoch(stores), offsets[6], offsets[9])
    assert (found.trimmed, found.reason, found.length) == (offsets[5], NotRecovered.TRIMMED, 4)
    assert found.size_bytes == int(state(stores)["bytes"]) > 400
    mark = await stores.streams.purge(stores.account_id, TOPIC)
    assert mark is not None
    found = await stores.stream_reads.state(stores.account_id, TOPIC)
    assert found is not None
    assert (found.epoch, found.first, found.last) == (mark.epoch, "", mark.offset)
    assert (found.trimmed, found.reason) == (mark.offset, NotRecovered.PURGED)
    assert (found.length, found.size_bytes) == (0, 0)


async def test_readers_are_counted_over_all_edges(stores: Stores) -> None:
    account = stores.account_id
    now_ms = stores.now_ms()
    reads = {after_s: StreamReads(at_time(stores, now_ms + after_s * 1000)) for after_s in (0, 60, 91, 151)}

    async def counted(after_s: int) -> list[int]:
        return [await reads[after_s].readers(account, topic) for topic in ("a", "b")]

    assert await counted(0) == [0, 0]
    await reads[0].note_readers(account, {"a": 3, "b": 1}, instance="edge-1/x")
    await reads[60].note_readers(account, {"a": 4}, instance="edge-2/x")
    assert await counted(60) == [7, 1]
    # The first edge has said nothing for more than 90 s: it has gone.
    assert await counted(91) == [4, 0]
    await reads[91].note_readers(account, {"a": 5}, instance="edge-2/x")
    assert stores.direct.hkeys(stream_names.readers(account, "a")) == [b"edge-2/x"]
    assert 0 < stores.direct.pttl(stream_names.readers(account, "a")) <= 90_000
    await reads[151].note_readers(account, {"a": 0}, instance="edge-2/x")
    assert await counted(151) == [0, 0]
    assert not stores.direct.exists(stream_names.readers(account, "a"))
