"""Inline entries: which wakeups carry what was appended, and how they are merged."""

import asyncio
from functools import partial

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.model.callbacks import Callback
from shared.model.errors import Invalid
from shared.model.events import Event, Notification
from shared.store import keyspace
from shared.store.inline_entries import InlineEntries, merge_consecutive, parse_inline_entries
from shared.store.queues import APPEND_LOT, BEGINNING, QueueLimits
from shared.wire.events import parse_events
from tests.harness.overheard import Overheard
from tests.harness.waiting import block_until
from tests.store.stores import EDGE, AppendingQueues, Backend, Stores, events, ids

OWNER = f"{EDGE}/1"
INLINE_BYTES = 32 * 1024

# All that an event may contain: only a NUL is excluded, which `test_no_part_can_contain_a_nul` shows.
NO_NUL = st.characters(exclude_characters="\0", exclude_categories=["Cs"])
TEXT = st.one_of(st.text(NO_NUL, max_size=30), st.text(alphabet="0 1+\n-é😀", max_size=12))
DATA = st.binary(max_size=60).map(lambda data: data.replace(b"\0", b"0"))
ATTRIBUTES = st.just(b"") | st.dictionaries(TEXT, TEXT, min_size=1, max_size=3).map(orjson.dumps)
EVENTS = st.lists(
    st.builds(partial(Event, to=None, receipt=False), TEXT, TEXT, DATA, TEXT, TEXT, attributes=ATTRIBUTES),
    min_size=1,
    max_size=4,
)


@pytest.fixture
async def channel(stores: Stores) -> str:
    channel = await stores.channel()
    await stores.claim(channel, OWNER)
    await stores.wakeups.flush()
    return channel


async def wakeup(stores: Stores, overheard: Overheard, channel: str, *queued: Event) -> bytes:
    """The wakeup of appending these."""
    overheard.all()
    await stores.queues.append(channel, queued)
    [(instance, message)] = overheard.all()
    assert instance == EDGE
    return message


@pytest.mark.parametrize("field", ["topic", "id", "name", "time", "data"])
def test_no_part_can_contain_a_nul(field: str) -> None:
    event = {"topic": "a", "data": "x", "id": "i", "name": "n", "time": "t"}
    with_nul = orjson.dumps(event | {field: "a\0b"})
    if field == "data":
        [parsed] = parse_events(with_nul)
        assert b"\0" not in parsed.data, "JSON escapes it"
        with_nul = with_nul.replace(b"\\u0000", b"\0")
    with pytest.raises(Invalid):
        parse_events(with_nul)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(queued=EVENTS, serialization=st.sampled_from([b"", b"+\n 7", b'{"chunk":5}']), traced=st.booleans())
async def test_inline_entries_equal_the_queue(
    stores: Stores,
    overheard: Overheard,
    channel: str,
    queued: list[Event],
    serialization: bytes,
    traced: bool,
) -> None:
    lease = await stores.claim(channel, OWNER)
    stores.direct.hset(keyspace.channel(channel), "serialization", serialization)
    traceparent = f"00-{'a' * 32}-{'b' * 16}-01" if traced else ""
    previous = "".join(stores.entries(channel)[-1:])
    overheard.all()

    await stores.queues.append(channel, queued, traceparent=traceparent)

    [(_, message)] = overheard.all()
    pending = await stores.pending(lease, after=previous or BEGINNING)
    assert parse_inline_entries(message) == InlineEntries(
        channel, OWNER, lease.generation, previous, serialization, pending
    )
    assert [(n.event_id, n.topic, n.data, n.name, n.time, n.attributes) for n in pending] == [
        (e.id, e.topic, e.data, e.name, e.time, e.attributes) for e in queued
    ]
    assert {n.trail.traceparent if n.trail else "" for n in pending} == {traceparent}


async def test_append_to_an_emptied_queue_names_the_last_entry(
    stores: Stores, overheard: Overheard, channel: str
) -> None:
    lease = await stores.claim(channel, OWNER)
    [entry] = await stores.queued(channel, 1)
    await stores.queues.ack_until(lease, until=entry)

    inline = parse_inline_entries(await wakeup(stores, overheard, channel, *events(1)))

    assert inline is not None
    assert (inline.previous, ids(inline.notifications)) == (entry, ["1"])


@pytest.mark.parametrize(("more", "is_inline"), [(0, True), (1, False)])
async def test_append_over_32_kib_is_not_inline(
    stores: Stores, overheard: Overheard, channel: str, more: int, is_inline: bool
) -> None:
    [event] = events(1)
    rest = INLINE_BYTES - len(event.topic)
    message = await wakeup(stores, overheard, channel, event._replace(data=b"x" * (rest + more)))

    assert (parse_inline_entries(message) is not None) is is_inline
    assert is_inline or message == channel.encode()


async def test_inline_limit_counts_all_entries(stores: Stores, overheard: Overheard, channel: str) -> None:
    message = await wakeup(stores, overheard, channel, *events(*range(5), size_bytes=INLINE_BYTES // 4))

    assert message == channel.encode()


async def test_an_array_of_100_short_events_is_inline(
    stores: Stores, overheard: Overheard, channel: str
) -> None:
    inline = parse_inline_entries(
        await wakeup(stores, overheard, channel, *events(*range(APPEND_LOT), size_bytes=300))
    )

    assert inline is not None
    assert ids(inline.notifications) == [str(number) for number in range(APPEND_LOT)]


async def test_append_with_receipt_is_not_inline(stores: Stores, overheard: Overheard, channel: str) -> None:
    plain, receipted = events(1, 2)

    message = await wakeup(stores, overheard, channel, plain, receipted._replace(receipt=True))

    assert message == channel.encode()


async def test_append_that_drops_above_the_limit_is_not_inline(
    stores: Stores, overheard: Overheard, channel: str
) -> None:
    stores.queues = AppendingQueues(stores.calls, limits=QueueLimits(size_bytes=1000))
    assert (
        parse_inline_entries(await wakeup(stores, overheard, channel, *events(1, size_bytes=500))) is not None
    )

    message = await wakeup(stores, overheard, channel, *events(2, size_bytes=500))

    assert message == channel.encode()


async def test_wakeup_of_a_webhook_is_not_inline(stores: Stores, overheard: Overheard) -> None:
    key, _ = await stores.api_key()
    callback = Callback("https://example.com/hook", {})
    await stores.channels.put_webhook(stores.account_id, key.id, callback, serialization=b"")
    await stores.leases.claim_unheld(key.id, owner=OWNER)
    await stores.wakeups.flush()

    assert await wakeup(stores, overheard, key.id, *events(1)) == key.id.encode()


async def test_append_publishes_the_wakeup_by_itself(backend: Backend) -> None:
    overheard = Overheard(backend.direct)
    async with backend.connect() as redis:
        stores = Stores(redis, backend)
        channel = await stores.channel()
        await stores.claim(channel, OWNER)
        # Open the connection and load the script, so that the next append is written in one turn.
        await stores.queued(channel, 1)
        overheard.all()
        publisher = asyncio.create_task(stores.queues.append(channel, events(1)))
        for _ in range(3):
            await asyncio.sleep(0)

        # Block the loop: the publisher does nothing more.
        published: list[tuple[str, bytes]] = []

        def woken() -> bool:
            published.extend(overheard.all())
            return bool(published)

        block_until(woken)

        assert not publisher.done()
        [(instance, message)] = published
        inline = parse_inline_entries(message)
        assert inline is not None
        assert (instance, ids(inline.notifications)) == (EDGE, ["1"])
        publisher.cancel()
        await asyncio.wait([publisher])
    overheard.close()


@pytest.mark.parametrize("words", [b"a" * 32, b"key:" + b"a" * 32, b"held?a?b", b"a b", b""])
def test_words_are_not_inline_entries(words: bytes) -> None:
    assert parse_inline_entries(words) is None


async def test_inline_entries_name_the_generation(stores: Stores, overheard: Overheard, channel: str) -> None:
    """The owner of an older generation may still receive the wakeup."""
    lease = await stores.claim(channel, OWNER)
    stores.direct.hset(keyspace.channel(channel), "generation", "newer")

    inline = parse_inline_entries(await wakeup(stores, overheard, channel, *events(1)))

    assert inline is not None
    assert inline.generation == "newer" != lease.generation


def of(
    channel: str, previous: str, *entries: str, serialization: bytes = b"", owner: str = OWNER
) -> InlineEntries:
    notifications = [Notification(entry, entry, "topic", b"1") for entry in entries]
    return InlineEntries(channel, owner, "generation", previous, serialization, notifications)


def test_consecutive_appends_are_merged() -> None:
    several = [of("a", "", "1-0"), of("b", "", "1-0"), of("a", "1-0", "2-0", "2-1"), of("a", "2-1", "3-0")]

    assert merge_consecutive(several) == [of("a", "", "1-0", "2-0", "2-1", "3-0"), of("b", "", "1-0")]


@pytest.mark.parametrize(
    "next_one",
    [
        of("a", "1-5", "2-0"),
        of("a", "", "2-0"),
        of("a", "1-0", "2-0", serialization=b"other"),
        of("a", "1-0", "2-0", owner="another/instance/1"),
    ],
)
def test_other_appends_stay_apart_and_in_order(next_one: InlineEntries) -> None:
    first = of("a", "0-1", "1-0")

    assert merge_consecutive([first, next_one]) == [first, next_one]
    assert merge_consecutive([]) == []
