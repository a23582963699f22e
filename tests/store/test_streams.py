"""Retained logs of topics: their ends, their trimming, and how events are found."""

from collections.abc import Callable
from typing import Any

import pytest

from shared.model.api_keys import Account
from shared.model.errors import NoSuchAccount
from shared.model.events import Event
from shared.model.idempotency import Deadline
from shared.model.streams import Keep, StreamRule
from shared.store import keyspace, stream_names
from shared.store.quotas import AccountQuotas
from shared.store.stored_bytes import StoredBytes
from shared.store.streams import READ_LOT, STREAM_LOT, StreamLimits, Streams
from tests.store.routing import table_of
from tests.store.stores import HOUR_MS, NOW_MS, RedisClock, Stores, events

DAY_MS = 24 * HOUR_MS
KEEP = Keep(1000, DAY_MS)
TOPIC = "orders"


async def append(
    stores: Stores, *some: Event, topic: str = TOPIC, keep: Keep = KEEP, streams: Streams | None = None
) -> list[str]:
    """Appends events in lots; returns their offsets."""
    offsets: list[str] = []
    for start in range(0, len(some), STREAM_LOT):
        lot = some[start : start + STREAM_LOT]
        reply = await (streams or stores.streams).begin_append(stores.account_id, topic, lot, keep=keep)
        more = Streams.end_append(reply)
        assert more is not None
        offsets += more
    return offsets


async def ids(stores: Stores, topic: str = TOPIC, *, after: str = "0-0", **more: Any) -> list[str]:
    """The ids of what a reader gets, read by read."""
    found: list[str] = []
    while page := await stores.streams.read(
        stores.account_id, topic, after=after, **{"count": READ_LOT, "size_bytes": 10**6, **more}
    ):
        found += [retained.event.id for retained in page]
        after = page[-1].offset
    return found


def state(stores: Stores, topic: str = TOPIC) -> dict[str, str]:
    name = stream_names.names(stores.account_id, topic)[1]
    return {field.decode(): value.decode() for field, value in stores.direct.hgetall(name).items()}


def names_of_events(stores: Stores) -> int:
    return len(stores.direct.keys("*:stream-event:*"))


async def test_events_are_read_in_order_and_as_they_were(stores: Stores) -> None:
    given = [
        Event("a", TOPIC, b'{"n": 1.50}'),
        Event("b/\u00e9", TOPIC, b"[]", name="n", time="2026-01-01T00:00:00Z"),
        Event("c", TOPIC, b"1", to="0" * 32),
        Event("d", TOPIC, b"1", customer="acme"),
    ]
    offsets = await append(stores, *given)
    read = await stores.streams.read(stores.account_id, TOPIC, after="0-0", count=10, size_bytes=1000)
    assert [(each.offset, each.event) for each in read] == list(zip(offsets, given, strict=True))
    assert offsets == sorted(offsets, key=lambda each: tuple(map(int, each.split("-"))))
    assert (state(stores)["last"], state(stores)["topic"]) == (offsets[-1], TOPIC)
    assert "trimmed" not in state(stores)


async def test_reads_are_bounded_by_count_and_bytes(stores: Stores) -> None:
    await append(stores, *events(*range(300), size_bytes=1000))
    read = stores.streams.read
    assert len(await read(stores.account_id, TOPIC, after="0-0", count=1000, size_bytes=10**9)) == READ_LOT
    assert len(await read(stores.account_id, TOPIC, after="0-0", count=1000, size_bytes=5000)) == 4
    assert len(await read(stores.account_id, TOPIC, after="0-0", count=1000, size_bytes=1)) == 1
    assert await ids(stores) == [str(number) for number in range(300)]
    assert await ids(stores, size_bytes=3000) == [str(number) for number in range(300)]
    assert await ids(stores, "another") == []


async def test_the_oldest_go_when_there_are_too_many(stores: Stores) -> None:
    keep = Keep(10, DAY_MS)
    offsets = await append(stores, *events(*range(25)), keep=keep)
    assert await ids(stores) == [str(number) for number in range(15, 25)]
    assert (state(stores)["trimmed"], state(stores)["reason"]) == (offsets[14], "trimmed")
    assert names_of_events(stores) == 10
    assert await stores.streams.find(stores.account_id, "14") is None
    assert await stores.streams.find(stores.account_id, "15") is not None


async def test_a_smaller_rule_trims_lot_by_lot(stores: Stores) -> None:
    await append(stores, *events(*range(400)))
    left = []
    for number in range(400, 408):
        await append(stores, *events(number), keep=Keep(5, DAY_MS))
        left.append(len(await ids(stores)))
    assert left[0] == 401 - 96
    assert left[-1] == 5 == names_of_events(stores)


async def test_what_is_too_old_is_not_read_and_goes_with_the_next_append(stores: Stores) -> None:
    clock = RedisClock(stores.direct)
    clock.ahead_ms = stores.now_ms() - NOW_MS
    streams = Streams(clock.calls_of(stores), stores.routing)
    offsets = await append(stores, *events(1, 2), keep=Keep(100, HOUR_MS))

    clock.ahead_ms += HOUR_MS + 1000
    read = await streams.read(stores.account_id, TOPIC, after="0-0", count=10, size_bytes=1000)
    assert read == []
    assert await streams.find(stores.account_id, "1") is None
    [stream, *_] = stream_names.names(stores.account_id, TOPIC)
    assert stores.direct.xlen(stream) == 2

    # Redis' own clock gives ids: so the age is what shrinks here.
    stores.let_time_pass()
    await append(stores, *events(3), keep=Keep(100, 1))
    assert state(stores)["trimmed"] == offsets[-1]


def bits_of(event_id: str) -> int:
    """What an offset has of its event."""
    return int(keyspace.hash_of(event_id)[:5], 16)


async def test_an_offset_has_bits_of_its_event(stores: Stores) -> None:
    """Two primaries that give an offset at the same ms give it to one event alone."""
    given = [*events(1, 2), Event("1", TOPIC, b"1", attributes=b'{"source":"/s"}')]
    offsets = await append(stores, *given)
    ms = offsets[0].partition("-")[0]
    identities = ("1", "2", "1\0/s")
    assert offsets == [f"{ms}-{at * 2**20 + bits_of(of)}" for at, of in enumerate(identities)]


async def test_the_state_outlives_the_entries_and_offsets_rise(stores: Stores) -> None:
    [last] = await append(stores, *events(1))
    names = stream_names.names(stores.account_id, TOPIC)
    before = state(stores)
    assert DAY_MS <= stores.direct.pttl(names[0]) + 1000 < 2 * DAY_MS
    assert 31 * DAY_MS <= stores.direct.pttl(names[1]) + 1000 < 32 * DAY_MS
    # The entries end by themselves, and the clock of the next Redis is behind.
    ahead = f"{stores.now_ms() + DAY_MS}-7"
    stores.direct.delete(names[0])
    stores.direct.hset(names[1], "last", ahead)
    offsets = await append(stores, *events(2, 3))
    ms = ahead.partition("-")[0]
    assert offsets == [f"{ms}-{2**20 + bits_of('2')}", f"{ms}-{2 * 2**20 + bits_of('3')}"]
    after = state(stores)
    assert (after["epoch"], after["trimmed"], after["reason"]) == (before["epoch"], ahead, "expired")
    assert int(after["bytes"]) == 2 * int(before["bytes"])
    assert last != ahead


@pytest.mark.parametrize("counted", ["1", "1000", ""])
async def test_what_is_trimmed_does_not_go_by_a_count_that_is_wrong(stores: Stores, counted: str) -> None:
    """Gateways of an older release append and trim beside ours, and count nothing.

    With a count that is too small more is kept, until log and state end is written again.
    """
    offsets = await append(stores, *events(*range(6)))
    [_, name, _] = stream_names.names(stores.account_id, TOPIC)

    def count() -> None:
        stores.direct.hdel(name, "count")
        if counted:
            stores.direct.hset(name, "count", counted)

    count()
    await append(stores, *events(6), keep=Keep(4, DAY_MS))
    if counted == "1":
        assert await ids(stores) == list("0123456")
        stores.direct.hset(name, "kept_ms", 0)
        await append(stores, *events(7), keep=Keep(5, DAY_MS))
    last = state(stores)["last"]
    assert await ids(stores) == list("34567" if counted == "1" else "3456")
    assert state(stores)["trimmed"] == offsets[2]
    assert state(stores)["count"] == str(len(await ids(stores)))
    count()
    stores.let_time_pass()
    stores.let_time_pass()
    await append(stores, *events(9), keep=Keep(100, 1))
    assert (state(stores)["trimmed"], state(stores)["count"]) == (last, "1")


def ends_of(stores: Stores) -> list[int]:
    """The ms for which log, state and the topics of their place are still kept."""
    return [stores.direct.pttl(name) for name in stream_names.names(stores.account_id, TOPIC)]


def as_it_is(stores: Stores) -> None:
    """Only time has passed."""


def as_of_an_older_release(stores: Stores) -> None:
    stores.direct.hdel(stream_names.names(stores.account_id, TOPIC)[1], "kept_ms")


def a_part_of_the_age_later(stores: Stores) -> None:
    name = stream_names.names(stores.account_id, TOPIC)[1]
    stores.direct.hincrby(name, "kept_ms", -DAY_MS // 64 - 1)


def with_a_clock_that_went_back(stores: Stores) -> None:
    """The last offset is ahead of the clock: the next ones have the same time until that is reached."""
    [log, name, _] = stream_names.names(stores.account_id, TOPIC)
    ahead = stores.now_ms() + DAY_MS
    stores.direct.xadd(log, {"id": "ahead"}, id=f"{ahead}-0")
    stores.direct.hset(name, mapping={"last": f"{ahead}-0", "kept_ms": ahead})


def without_its_entries(stores: Stores) -> None:
    stores.direct.delete(stream_names.names(stores.account_id, TOPIC)[0])


@pytest.mark.parametrize(
    ("how", "age_ms", "renews"),
    [
        (as_it_is, DAY_MS, False),
        (as_it_is, DAY_MS + 1, True),
        (as_of_an_older_release, DAY_MS, True),
        (a_part_of_the_age_later, DAY_MS, True),
        (with_a_clock_that_went_back, DAY_MS, True),
        (without_its_entries, DAY_MS, True),
    ],
)
async def test_ends_are_renewed_now_and_then(
    stores: Stores, how: Callable[[Stores], None], age_ms: int, renews: bool
) -> None:
    await append(stores, *events(1))
    for name in stream_names.names(stores.account_id, TOPIC):
        stores.direct.pexpire(name, HOUR_MS)
    how(stores)
    stores.let_time_pass()
    await append(stores, *events(2), keep=Keep(1000, age_ms))
    log, state_, place = ends_of(stores)
    assert (log > HOUR_MS, state_ > HOUR_MS, place > HOUR_MS) == (renews,) * 3
    if renews:
        # Until the next renewal, which comes when a part of the age is over, none ends before it must.
        assert log >= age_ms + age_ms // 64 - 60_000
        assert state_ >= log + 30 * DAY_MS - 60_000
        assert place >= state_ - 60_000


async def test_no_two_logs_have_one_epoch(stores: Stores) -> None:
    others = [Streams(stores.calls, stores.routing) for _ in range(3)]
    topics = [f"t{number}" for number in range(12)]
    for number, topic in enumerate(topics):
        await append(stores, *events(number), topic=topic, streams=others[number % 3])
    assert len({state(stores, topic)["epoch"] for topic in topics}) == len(topics)


async def test_a_log_without_its_state_begins_anew(stores: Stores) -> None:
    await append(stores, *events(1))
    before = state(stores)
    stores.direct.delete(stream_names.names(stores.account_id, TOPIC)[1])
    await append(stores, *events(2))
    assert state(stores)["epoch"] != before["epoch"]
    assert await ids(stores) == ["2"]


async def test_the_newest_event_of_an_id_is_found(stores: Stores) -> None:
    await append(stores, Event("same", TOPIC, b"1"))
    stores.let_time_pass()
    await append(stores, Event("same", "another", b"2"), topic="another")
    stores.let_time_pass()
    [offset] = await append(stores, Event("same", TOPIC, b"3"))
    found = await stores.streams.find(stores.account_id, "same")
    assert found is not None
    assert (found.offset, found.event.data, found.event.topic) == (offset, b"3", TOPIC)
    # The older entry of the id goes, and the newer one is found all the same.
    await append(stores, *events(1, 2), keep=Keep(3, DAY_MS))
    found = await stores.streams.find(stores.account_id, "same")
    assert found is not None
    assert found.offset == offset
    assert await stores.streams.find("0" * 32, "same") is None


async def test_what_comes_after_the_deadline_is_not_retained(stores: Stores) -> None:
    late = Deadline(stores.now_ms() - 1)
    reply = await stores.streams.begin_append(stores.account_id, TOPIC, events(1), keep=KEEP, deadline=late)
    assert Streams.end_append(reply) is None
    assert await ids(stores) == []


async def test_the_topics_of_an_account_are_bounded(stores: Stores) -> None:
    """Those that would end first make room."""
    few = Streams(stores.calls, stores.routing, limits=StreamLimits(topics=32))
    made = [f"orders.{number}" for number in range(200)]
    for topic in made:
        await append(stores, *events(1), topic=topic, streams=few)
        stores.let_time_pass()
    left = [topic async for page in stores.streams.topics(stores.account_id) for topic in page]
    assert len(left) == 32
    for topic in made:
        exists = [stores.direct.exists(name) for name in stream_names.names(stores.account_id, topic)[:2]]
        assert exists == [topic in left] * 2
    of_places = [topic for topic in made if topic in left]
    places: dict[str, list[str]] = {}
    for topic in made:
        places.setdefault(stream_names.names(stores.account_id, topic)[2], []).append(topic)
    assert sorted(of_places) == sorted(topic for place in places.values() for topic in place[-2:])
    assert await few.find(stores.account_id, "1") is not None


async def test_the_bytes_of_a_log_are_counted(stores: Stores) -> None:
    await stores.api_keys.create_account(Account(id=stores.account_id, name="a"))
    stored = StoredBytes(stores.calls, quotas=AccountQuotas(stores.calls))
    assert await stored.used(stores.account_id) == 0
    await append(stores, *events(*range(1000), size_bytes=1000), keep=Keep(100, DAY_MS))
    stores.direct.hdel(keyspace.usage(stores.account_id), "recounted_at_ms")
    used = await stored.used(stores.account_id)
    assert 100 * 1000 < used < 100 * 1700
    # What Redis spends, without the unused end of its last block.
    names = list(stores.direct.keys("*stream*"))
    spent = sum(stores.direct.memory_usage(name) for name in names)
    assert 0.5 * spent < used < 2 * spent
    # A purge gives them back, but for what is known of the topic.
    await stores.streams.purge(stores.account_id, TOPIC)
    stores.direct.hdel(keyspace.usage(stores.account_id), "recounted_at_ms")
    assert 0 < await stored.used(stores.account_id) < 1000


async def test_an_account_is_deleted_with_its_streams(stores: Stores) -> None:
    account = stores.account_id
    await stores.api_keys.create_account(Account(id=account, name="doomed"))
    await stores.streams.put_rules(account, [StreamRule(["#"], KEEP)])
    await append(stores, *events(*range(300)))
    for number in range(40):
        await append(stores, *events(number), topic=f"t{number}")
    await stores.account_deletion.begin(account, cascade=True)
    await stores.account_deletion.finish(account)
    assert [name for name in stores.direct.keys("*") if b"stream" in name] == []
    with pytest.raises(NoSuchAccount):
        await stores.streams.put_rules(account, [StreamRule(["#"], KEEP)])


async def test_rules_are_part_of_the_routing_table(stores: Stores) -> None:
    account = stores.account_id
    await stores.api_keys.create_account(Account(id=account, name="a"))
    assert (await table_of(stores.routing, account)).streams is None
    rules = [StreamRule(["orders.*"], Keep(5, HOUR_MS)), StreamRule(["orders.#", "x"], KEEP)]
    await stores.streams.put_rules(account, rules)
    assert (await stores.streams.rules(account)).rules == tuple(rules)
    found = (await table_of(stores.routing, account)).streams
    assert found is not None
    kept = {topic: found.keep_for(topic) for topic in ("orders.a", "orders", "x", "y")}
    assert kept == {"orders.a": rules[0].keep, "orders": KEEP, "x": KEEP, "y": None}
    await stores.streams.put_rules(account, [])
    assert (await table_of(stores.routing, account)).streams is None
