"""Live wakeups of streams: what they carry, and the offset before it."""

import itertools
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from shared.model.events import Event
from shared.model.idempotency import Deadline
from shared.model.streams import BEGINNING, Keep, Mark, NotRecovered, Start
from shared.store import stream_names
from shared.store.stream_wakeups import StreamWakeup, live_name, parse
from shared.store.streams import STREAM_LOT, Streams
from tests.harness.waiting import wait_until
from tests.store.stores import Stores, events
from tests.store.test_stream_reads import epoch, read_by, resume
from tests.store.test_streams import DAY_MS, KEEP, TOPIC, append, state


class Live:
    """The live wakeups of one topic, parsed."""

    def __init__(self, direct: Any, name: str) -> None:
        self._pubsub = direct.pubsub()
        self._pubsub.ssubscribe(name)
        assert self._pubsub.get_message(timeout=10)["type"] == "ssubscribe"

    def all(self) -> list[StreamWakeup]:
        self._pubsub.ping()
        found = []
        while (message := self._pubsub.get_message(timeout=10))["type"] == "smessage":
            found.append(parse(message["data"]))
        assert message["type"] == "pong"
        return found

    def close(self) -> None:
        self._pubsub.close()


@pytest.fixture
def live(stores: Stores) -> Iterator[Live]:
    live = Live(stores.direct, live_name(stores.account_id, TOPIC))
    yield live
    live.close()


async def test_a_wakeup_has_the_events_and_the_offset_before_them(stores: Stores, live: Live) -> None:
    given = [
        Event("a", TOPIC, b'{"n":1}', name="n", time="2026-01-01T00:00:00Z"),
        Event("b", TOPIC, b"1", attributes=b'{"source":"/s"}'),
    ]
    offsets = await append(stores, *given)
    later = await append(stores, *events(1))
    await append(stores, *events(2), topic="another")
    first, second = live.all()
    here = epoch(stores)
    assert (first.epoch, first.before, first.last) == (here, BEGINNING, offsets[-1])
    assert (second.before, second.last) == (offsets[-1], later[0])
    read = await resume(stores, Start.EARLIEST)
    assert [*(first.retained(TOPIC) or []), *(second.retained(TOPIC) or [])] == read.events
    assert read.events[:2] == [
        read.events[0]._replace(event=given[0]),
        read.events[1]._replace(event=given[1]),
    ]
    assert second.follows(Mark(here, offsets[-1]))
    assert not second.follows(Mark(here, offsets[0]))
    assert not second.follows(Mark("other", offsets[-1]))
    assert second.mark == Mark(here, later[0])


async def test_requests_of_one_turn_share_a_wakeup_for_each_topic(stores: Stores, live: Live) -> None:
    replies: dict[int, Any] = {}
    for number, topic in enumerate((TOPIC, "another", TOPIC)):
        note = partial(replies.__setitem__, number)
        stores.streams.append_then(note, stores.account_id, topic, events(number), keep=KEEP, size_bytes=10)
    await wait_until(lambda: len(replies) == 3)
    [wakeup] = live.all()
    found = wakeup.retained(TOPIC) or []
    assert [each.event.id for each in found] == ["0", "2"]
    # Each request gets the offsets of its own events.
    own = [Streams.end_append(replies[number]) or [] for number in range(3)]
    assert [*own[0], *own[2]] == [each.offset for each in found]
    assert len(own[1]) == 1


async def test_a_wakeup_leaves_out_what_is_for_one_and_what_is_too_long(stores: Stores, live: Live) -> None:
    private = [Event("a", TOPIC, b"1", to="0" * 32), Event("b", TOPIC, b"1", customer="acme")]
    both = Event("c", TOPIC, b"1", customer="acme", attributes=b'{"source":"/s"}')
    await append(stores, *private, both)
    await append(stores, private[0], Event("d", TOPIC, b"1"), both)
    exact = 32 * 1024 - len("e")
    await append(stores, Event("e", TOPIC, b"1" * exact))
    await append(stores, Event("e", TOPIC, b"1" * (exact + 1)))
    await append(stores, *events(*range(STREAM_LOT), size_bytes=1000))
    await append(stores, Event("f", TOPIC, b"1" * 10**5, to="0" * 32), Event("g", TOPIC, b"1"))
    wakeups = live.all()
    found = [wakeup.retained(TOPIC) for wakeup in wakeups]
    assert [None if some is None else [each.event.id for each in some] for some in found] == [
        *([], ["d"], ["e"], None, None, ["g"]),
    ]
    for before, after in itertools.pairwise(wakeups):
        assert after.follows(before.mark)


async def test_the_offset_before_is_that_of_the_last_event_ever(stores: Stores, live: Live) -> None:
    """Whatever has become of it: trimmed by the append itself, expired, purged, or its state was lost."""
    small = Keep(3, DAY_MS)
    offsets = await append(stores, *events(*range(10)), keep=small)
    await append(stores, *events(*range(10)), keep=small)
    first, second = live.all()
    assert len(first.retained(TOPIC) or []) == len(second.retained(TOPIC) or []) == 10
    assert (second.before, state(stores)["trimmed"]) == (
        offsets[-1],
        (second.retained(TOPIC) or [])[-4].offset,
    )

    [stream, name, _] = stream_names.names(stores.account_id, TOPIC)
    stores.direct.delete(stream)
    [expired] = await append(stores, *events(1))
    [wakeup] = live.all()
    assert wakeup.follows(second.mark)

    mark = await stores.streams.purge(stores.account_id, TOPIC)
    assert mark is not None
    await append(stores, *events(2))
    purge, wakeup = live.all()
    assert (purge.mark, purge.before, purge.retained(TOPIC)) == (mark, expired, None)
    assert wakeup.follows(mark)

    stores.direct.delete(name)
    await append(stores, *events(3))
    [anew] = live.all()
    assert (anew.before, anew.epoch) == (BEGINNING, epoch(stores))
    assert anew.epoch != wakeup.epoch


async def test_what_is_not_retained_wakes_nobody(stores: Stores, live: Live) -> None:
    late = Deadline(stores.now_ms() - 1)
    await stores.streams.begin_append(stores.account_id, TOPIC, events(1), keep=KEEP, deadline=late)
    assert live.all() == []


async def test_an_append_without_readers_runs_one_command_more(stores: Stores) -> None:
    await append(stores, *events(1))
    stores.direct.config_resetstat()
    await append(stores, *events(2))
    stats = stores.direct.info("commandstats")
    assert {name.removeprefix("cmdstat_"): stat["calls"] for name, stat in stats.items()} == {
        "evalsha": 1,
        "time": 1,
        "hmget": 1,
        "xadd": 1,
        "set": 1,
        "spublish": 1,
        "hset": 1,
        "config|resetstat": 1,
    }


async def test_accounts_are_apart(stores: Stores) -> None:
    """One topic of two accounts: its log, purge, wakeups and readers."""
    one, other = stores.account_id, "f" * 32
    live = Live(stores.direct, live_name(other, TOPIC))
    await append(stores, *events(1))
    reads = stores.stream_reads
    await reads.note_readers(one, {TOPIC: 1}, instance="e")
    mark = Mark(epoch(stores), state(stores)["last"])
    assert await stores.streams.purge(other, TOPIC) is None
    assert await reads.state(other, TOPIC) is None
    assert await reads.readers(other, TOPIC) == 0
    resumed = await reads.resume(other, TOPIC, mark, count=9, size_bytes=999)
    assert (resumed.reason, resumed.events) == (NotRecovered.LOST, [])
    assert read_by(await resume(stores, Start.EARLIEST)) == ["1"]
    assert live.all() == []
    live.close()
