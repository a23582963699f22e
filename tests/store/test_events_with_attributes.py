"""CloudEvents in Redis: their attributes in queues and streams, and their identity."""

import orjson
import pytest

from shared.model.events import Event, Trail
from shared.model.receipts import State
from shared.model.streams import Keep
from shared.store import keyspace
from shared.store.event_identity import identity, identity_of
from shared.store.queues import BEGINNING, QueueLimits
from tests.store.stores import NOW_MS, AppendingQueues, Stores, events

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
ATTRIBUTES = b'{"source":"/shop","region":"eu"}'
FAR = 10_000_000


def of(source: str, *, receipt: bool = False) -> Event:
    """An event of this source; all have one id."""
    return events(1)[0]._replace(attributes=orjson.dumps({"source": source}), receipt=receipt)


@pytest.mark.parametrize("receipt", [False, True])
@pytest.mark.parametrize("traceparent", ["", TRACE])
async def test_attributes_travel_beside_the_trail(stores: Stores, *, receipt: bool, traceparent: str) -> None:
    channel = await stores.channel()
    lease = await stores.claim(channel)
    [one, plain] = events(1, 2)
    one = one._replace(attributes=ATTRIBUTES, receipt=receipt)

    await stores.queues.append(channel, [one, plain], traceparent=traceparent)

    batch = await stores.queues.read(lease, after=BEGINNING, count=10, size_bytes=FAR)
    traced = Trail(traceparent=traceparent) if traceparent else None
    trail = Trail(receipt=True, traceparent=traceparent) if receipt else traced
    assert [(n.attributes, n.trail) for n in batch.notifications] == [(ATTRIBUTES, trail), (b"", traced)]


async def test_an_event_without_attributes_has_no_field_for_them(stores: Stores) -> None:
    channel = await stores.channel()
    await stores.queues.append(channel, events(1))

    [(_, fields)] = stores.direct.xrange(keyspace.queue(channel))

    assert list(fields) == [b"id", b"topic", b"data", b"name", b"time", b"total"]


async def test_attributes_count_against_the_limit_of_a_queue(stores: Stores) -> None:
    """Also when an entry is dropped: else the bound of the front would drift from what is there."""
    channel = await stores.channel()
    queues = AppendingQueues(stores.calls, limits=QueueLimits(size_bytes=3000))
    long = orjson.dumps({"source": "/" + "s" * 1000})

    await queues.append(channel, [each._replace(attributes=long) for each in events(1, 2, 3)])

    [(first, fields), (_, last)] = stores.direct.xrange(keyspace.queue(channel))
    size = int(last[b"total"]) - int(fields[b"total"])
    bound = stores.direct.hmget(keyspace.channel(channel), "first", "first_total")
    assert size > len(long)
    assert bound == [first, b"%d" % size]


async def test_receipts_tell_sources_apart(stores: Stores) -> None:
    channel = await stores.channel()
    lease = await stores.claim(channel)
    for source in ("/a", "/b"):
        await stores.receipts.open(stores.account_id, of(source), channels=[channel], now_ms=NOW_MS)
    await stores.queues.append(channel, [of("/a", receipt=True), of("/b", receipt=True)])
    batch = await stores.queues.read(lease, after=BEGINNING, count=10, size_bytes=FAR)
    await stores.queues.mark_sent(lease, batch.notifications[1:])
    await stores.queues.ack_until(lease, until=stores.entries(channel)[0])

    async def state(source: str) -> State:
        found = await stores.receipts.find(stores.account_id, "1", source=source)
        assert found is not None
        return found.channels[0].state

    assert [await state("/a"), await state("/b")] == [State.ACKED, State.SENT]
    assert await stores.receipts.find(stores.account_id, "1") is None, "an event without a source"


async def test_streams_tell_sources_apart_and_keep_attributes(stores: Stores) -> None:
    keep, topic = Keep(10, 10_000_000), events(1)[0].topic
    given = [of("/a"), of("/b"), events(1)[0]]
    await stores.streams.begin_append(stores.account_id, topic, given, keep=keep)

    found = [await stores.streams.find(stores.account_id, "1", source=source) for source in ("/a", "/b", "")]

    assert [each and each.event.attributes for each in found] == [each.attributes for each in given]
    assert await stores.streams.find(stores.account_id, "1", source="/c") is None


def test_no_two_pairs_are_one_identity() -> None:
    pairs = [("a", ""), ("a", "b"), ("ab", ""), ("a b", ""), ("a", "/b"), ("a/b", "")]

    assert len({identity(*pair) for pair in pairs}) == len(pairs)
    assert identity_of(of("/a")) == identity("1", "/a")
