"""What a channel is pending: in order, read and acked by its owner only, whatever happened meanwhile."""

import asyncio

import pytest

from shared.model.api_keys import new_id
from shared.model.channels import CloseReason, Lease
from shared.model.errors import NoLongerOwner
from shared.model.events import Event
from shared.store import keyspace
from shared.store.queues import BEGINNING, Appended, Batch
from tests.harness.overheard import Overheard
from tests.store.stores import EDGE, NOW_MS, OTHER_EDGE, Stores, events, ids

PLENTY = 10_000_000


async def look(
    stores: Stores, lease: Lease, *, after: str = BEGINNING, count: int = 1000, size_bytes: int = PLENTY
) -> Batch:
    return await stores.queues.read(lease, after=after, count=count, size_bytes=size_bytes)


async def ending_of_a_look(stores: Stores, lease: Lease, count: int) -> CloseReason:
    with pytest.raises(NoLongerOwner) as raised:
        await look(stores, lease, count=count)
    return raised.value.close_reason


# Append


async def test_what_is_appended_comes_back_whole(stores: Stores) -> None:
    channel = await stores.channel()
    whole = Event(id="i", topic="orders.paid", data=b'{"a": "\xc3\xa9\\u0000"}', name="n\u00e9", time="t")

    assert await stores.queues.append(channel, [whole]) is Appended.QUEUED

    [pending] = await stores.pending(await stores.claim(channel))
    assert (pending.event_id, pending.topic, pending.data, pending.name, pending.time) == (
        *("i", "orders.paid", whole.data, whole.name, whole.time),
    )
    assert pending.entry_id == stores.entries(channel)[0]


async def test_appends_keep_their_order(stores: Stores) -> None:
    channel = await stores.channel()

    await stores.queues.append(channel, events(0, 1, 2))
    await asyncio.gather(*(stores.queues.append(channel, events(n, n + 1)) for n in (3, 5, 7)))

    assert ids(await stores.pending(await stores.claim(channel))) == [str(n) for n in range(9)]


async def test_an_append_of_the_most_that_a_request_may_hold(stores: Stores) -> None:
    channel = await stores.channel()

    assert await stores.queues.append(channel, events(*range(10_000))) is Appended.QUEUED

    assert ids(await stores.pending(await stores.claim(channel))) == [str(n) for n in range(10_000)]


async def test_an_append_wakeups_whoever_holds_the_channel(stores: Stores, overheard: Overheard) -> None:
    channel = await stores.channel()
    await stores.queued(channel, 1)
    assert overheard.all() == []

    await stores.claim(channel)
    await stores.queued(channel, 1)
    assert [instance for instance, _ in overheard.all()] == [EDGE]
    lease = await stores.claim(channel, f"{OTHER_EDGE}/1")
    await stores.queued(channel, 1)
    assert [instance for instance, _ in overheard.all()] == [OTHER_EDGE]

    await stores.leases.release(lease, now_ms=NOW_MS)
    await stores.queued(channel, 1)
    assert overheard.all() == []


async def test_several_appends_at_once_answer_for_each_channel(stores: Stores, overheard: Overheard) -> None:
    one, other, stranger = await stores.channel(), await stores.channel(), new_id()
    for channel in (one, other):
        await stores.claim(channel)
    wanted = [(one, events(1, 2)), (stranger, events(1)), (other, events(2))]

    assert await stores.queues.append_all(wanted) == [Appended.QUEUED, Appended.REVOKED, Appended.QUEUED]

    assert [instance for instance, _ in overheard.all()] == [EDGE, EDGE], (
        "one wakeup for each, not for each event"
    )
    assert (len(stores.entries(one)), len(stores.entries(other))) == (2, 1)


async def test_nothing_is_queued_where_no_channel_is(stores: Stores) -> None:
    key, _ = await stores.api_key()
    stranger = new_id()

    assert await stores.queues.append(key.id, events(1)) is Appended.ABSENT
    assert await stores.queues.append(stranger, events(1)) is Appended.REVOKED
    assert stores.entries(key.id) == stores.entries(stranger) == []


async def test_each_entry_carries_a_running_total_of_bytes(stores: Stores) -> None:
    channel = await stores.channel()
    lease = await stores.claim(channel)
    entries = await stores.queued(channel, 3)
    await stores.queues.ack_until(lease, until=entries[0])
    await stores.queues.append(channel, events(3, size_bytes=100))

    totals = [int(f[b"total"]) for _, f in stores.direct.xrange(keyspace.queue(channel))]

    assert totals == sorted(set(totals))
    assert totals[2] - totals[1] == totals[1] - totals[0] + 100, "the entry is counted with its data"


# Peek


async def test_a_look_at_nothing(stores: Stores) -> None:
    lease = await stores.claim(await stores.channel())

    assert await look(stores, lease) == Batch([], more=False)


@pytest.mark.parametrize(
    ("count", "taken", "more"), [(1, 1, True), (8, 8, True), (9, 9, True), (49, 49, True), (50, 50, False)]
)
async def test_a_look_is_bounded_in_number(stores: Stores, count: int, taken: int, *, more: bool) -> None:
    channel = await stores.channel()
    lease = await stores.claim(channel)
    await stores.queued(channel, 50)

    batch = await look(stores, lease, count=count)

    assert ids(batch.notifications) == [str(n) for n in range(taken)]
    assert (batch.more, batch.rewound) == (more, False)


@pytest.mark.parametrize(
    ("size_bytes", "taken"), [(0, 1), (1, 1), (101, 1), (102, 1), (203, 1), (204, 2), (1020, 10), (5000, 20)]
)
async def test_a_look_is_bounded_in_bytes_and_gives_at_least_one(
    stores: Stores, size_bytes: int, taken: int
) -> None:
    channel = await stores.channel()
    lease = await stores.claim(channel)
    await stores.queues.append(channel, events(*range(20), size_bytes=100))

    batch = await look(stores, lease, size_bytes=size_bytes)

    assert ids(batch.notifications) == [str(n) for n in range(taken)]
    assert batch.more is (taken < 20)


async def test_a_look_goes_on_behind_a_place(stores: Stores) -> None:
    channel = await stores.channel()
    lease = await stores.claim(channel)
    entries = await stores.queued(channel, 30)

    batch = await look(stores, lease, after=entries[9], count=15)

    assert ids(batch.notifications) == [str(n) for n in range(10, 25)]
    assert batch.more
    assert await look(stores, lease, after=entries[-1]) == Batch([], more=False)


async def test_looks_in_steps_of_any_size_miss_nothing(stores: Stores) -> None:
    channel = await stores.channel()
    lease = await stores.claim(channel)
    await stores.queued(channel, 100)

    for count in (1, 7, 8, 9, 24, 25, 99):
        seen, after, more = list[str](), BEGINNING, True
        while more:
            batch = await look(stores, lease, after=after, count=count)
            seen += ids(batch.notifications)
            after, more = batch.notifications[-1].entry_id, batch.more
        assert seen == [str(n) for n in range(100)], f"in steps of {count}"


async def test_a_look_for_nothing_tells_only_whether_there_is_more(stores: Stores) -> None:
    channel = await stores.channel()
    lease = await stores.claim(channel)
    assert await look(stores, lease, count=0) == Batch([], more=False)

    [entry] = await stores.queued(channel, 1)

    assert await look(stores, lease, count=0) == Batch([], more=True)
    assert await look(stores, lease, count=0, after=entry) == Batch([], more=False)


# Ack


async def test_acking_is_from_the_front_and_counts(stores: Stores) -> None:
    channel = await stores.channel()
    lease = await stores.claim(channel)
    entries = await stores.queued(channel, 200)

    assert await stores.queues.ack_until(lease, until=BEGINNING) == 0
    assert await stores.queues.ack_until(lease, until=entries[0]) == 1
    assert stores.entries(channel) == entries[1:], "exactly, and not about that many"
    assert await stores.queues.ack_until(lease, until=entries[150]) == 150
    assert stores.entries(channel) == entries[151:]


async def test_acking_again_changes_nothing(stores: Stores) -> None:
    channel = await stores.channel()
    lease = await stores.claim(channel)
    entries = await stores.queued(channel, 3)

    assert await stores.queues.ack_until(lease, until=entries[1]) == 2
    assert await stores.queues.ack_until(lease, until=entries[1]) == 0
    assert await stores.queues.ack_until(lease, until=entries[0]) == 0
    assert stores.entries(channel) == entries[2:]


async def test_only_the_owner_acks(stores: Stores) -> None:
    channel = await stores.channel()
    old = await stores.claim(channel, f"{EDGE}/1")
    entries = await stores.queued(channel, 2)
    new = await stores.claim(channel, f"{EDGE}/2")

    assert await stores.queues.ack_until(old, until=entries[1]) is None
    assert stores.entries(channel) == entries
    assert await stores.queues.ack_until(new, until=entries[1]) == 2
    await stores.leases.release(new, now_ms=NOW_MS)
    assert await stores.queues.ack_until(new, until=entries[1]) is None


async def test_a_acked_queue_goes_on(stores: Stores) -> None:
    channel = await stores.channel()
    lease = await stores.claim(channel)
    entries = await stores.queued(channel, 3)
    await stores.queues.ack_until(lease, until=entries[-1])
    assert await look(stores, lease, after=entries[-1]) == Batch([], more=False)

    await stores.queues.append(channel, events(3))

    batch = await look(stores, lease, after=entries[-1])
    assert ids(batch.notifications) == ["3"]
    assert not batch.rewound


# A look tells why the lease is gone


@pytest.mark.parametrize("count", [0, 10])
async def test_a_look_after_a_takeover(stores: Stores, count: int) -> None:
    channel = await stores.channel()
    old = await stores.claim(channel, f"{EDGE}/1")
    await stores.claim(channel, f"{OTHER_EDGE}/1")

    assert await ending_of_a_look(stores, old, count) is CloseReason.TAKEN_OVER
    assert stores.owner(channel) == f"{OTHER_EDGE}/1"


@pytest.mark.parametrize("count", [0, 10])
async def test_a_look_after_a_delete(stores: Stores, count: int) -> None:
    channel = await stores.channel()
    lease = await stores.claim(channel)
    await stores.delete_channel(channel)

    assert await ending_of_a_look(stores, lease, count) is CloseReason.CHANNEL_DELETED
    assert stores.owner(channel) is None, "a lease on nothing is not written again"


@pytest.mark.parametrize("count", [0, 10])
async def test_a_look_after_the_channel_was_made_anew(stores: Stores, count: int) -> None:
    channel = await stores.channel()
    lease = await stores.claim(channel)
    await stores.delete_channel(channel)
    await stores.make_channel(channel)

    assert await ending_of_a_look(stores, lease, count) is CloseReason.CHANNEL_DELETED
    assert stores.owner(channel) is None


@pytest.mark.parametrize("count", [0, 10])
async def test_a_look_after_the_key_was_revoked(stores: Stores, count: int) -> None:
    key, _ = await stores.api_key()
    await stores.make_channel(key.id)
    lease = await stores.claim(key.id)
    await stores.api_keys.revoke(key)

    assert await ending_of_a_look(stores, lease, count) is CloseReason.KEY_REVOKED
    assert stores.owner(key.id) is None
