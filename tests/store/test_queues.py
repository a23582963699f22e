"""Queues: appended in order, read and acked by the owner only."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from shared.model.api_keys import new_id
from shared.model.channels import CloseReason, Lease
from shared.model.errors import NoLongerOwner
from shared.model.events import Event
from shared.store import keyspace
from shared.store.queues import BEGINNING, Appended, Batch
from tests.harness.overheard import Overheard
from tests.store.stores import EDGE, OTHER_EDGE, Stores, events, ids

PLENTY = 10_000_000
NEW_OWNER = f"{OTHER_EDGE}/1"


async def read(
    stores: Stores, lease: Lease, *, after: str = BEGINNING, count: int = 1000, size_bytes: int = PLENTY
) -> Batch:
    return await stores.queues.read(lease, after=after, count=count, size_bytes=size_bytes)


# Append


async def test_append_and_read_round_trip(stores: Stores) -> None:
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


async def test_append_wakes_the_owner(stores: Stores, overheard: Overheard) -> None:
    channel = await stores.channel()
    await stores.queued(channel, 1)
    assert overheard.all() == []

    await stores.claim(channel)
    await stores.queued(channel, 1)
    assert [instance for instance, _ in overheard.all()] == [EDGE]
    lease = await stores.claim(channel, f"{OTHER_EDGE}/1")
    await stores.queued(channel, 1)
    assert [instance for instance, _ in overheard.all()] == [OTHER_EDGE]

    await stores.leases.release(lease)
    await stores.queued(channel, 1)
    assert overheard.all() == []


async def test_appends_of_one_turn_have_a_result_and_a_wakeup_each(
    stores: Stores, overheard: Overheard
) -> None:
    one, other, stranger = await stores.channel(), await stores.channel(), new_id()
    for channel in (one, other):
        await stores.claim(channel)
    appends = [(one, events(1, 2)), (stranger, events(1)), (other, events(2))]

    results = await asyncio.gather(*(stores.queues.append(*each) for each in appends))
    assert results == [Appended.QUEUED, Appended.ABSENT, Appended.QUEUED]

    assert [instance for instance, _ in overheard.all()] == [EDGE, EDGE], (
        "one wakeup per channel, not per event"
    )
    assert (len(stores.entries(one)), len(stores.entries(other))) == (2, 1)


async def test_append_without_a_channel_queues_nothing(stores: Stores) -> None:
    key, _ = await stores.api_key()
    stranger = new_id()

    assert await stores.queues.append(key.id, events(1)) is Appended.ABSENT
    assert await stores.queues.append(stranger, events(1)) is Appended.ABSENT
    assert stores.entries(key.id) == stores.entries(stranger) == []


async def test_entries_have_a_running_total_of_bytes(stores: Stores) -> None:
    channel = await stores.channel()
    lease = await stores.claim(channel)
    entries = await stores.queued(channel, 3)
    await stores.queues.ack_until(lease, until=entries[0])
    await stores.queues.append(channel, events(3, size_bytes=100))

    totals = [int(f[b"total"]) for _, f in stores.direct.xrange(keyspace.queue(channel))]

    assert totals == sorted(set(totals))
    assert totals[2] - totals[1] == totals[1] - totals[0] + 100, "an entry counts its data"


# Read


async def test_read_of_an_empty_queue(stores: Stores) -> None:
    lease = await stores.claim(await stores.channel())

    assert await read(stores, lease) == Batch([], more=False)


@pytest.mark.parametrize(
    ("count", "length", "more"), [(1, 1, True), (8, 8, True), (9, 9, True), (49, 49, True), (50, 50, False)]
)
async def test_read_is_limited_in_count(stores: Stores, count: int, length: int, *, more: bool) -> None:
    channel = await stores.channel()
    lease = await stores.claim(channel)
    await stores.queued(channel, 50)

    batch = await read(stores, lease, count=count)

    assert ids(batch.notifications) == [str(n) for n in range(length)]
    assert (batch.more, batch.rewound) == (more, False)


@pytest.mark.parametrize(
    ("size_bytes", "length"), [(0, 1), (1, 1), (101, 1), (102, 1), (203, 1), (204, 2), (1020, 10), (5000, 20)]
)
async def test_read_is_limited_in_bytes_but_returns_at_least_one(
    stores: Stores, size_bytes: int, length: int
) -> None:
    channel = await stores.channel()
    lease = await stores.claim(channel)
    await stores.queues.append(channel, events(*range(20), size_bytes=100))

    batch = await read(stores, lease, size_bytes=size_bytes)

    assert ids(batch.notifications) == [str(n) for n in range(length)]
    assert batch.more is (length < 20)


async def test_read_continues_after_an_entry(stores: Stores) -> None:
    channel = await stores.channel()
    lease = await stores.claim(channel)
    entries = await stores.queued(channel, 30)

    batch = await read(stores, lease, after=entries[9], count=15)

    assert ids(batch.notifications) == [str(n) for n in range(10, 25)]
    assert batch.more
    assert await read(stores, lease, after=entries[-1]) == Batch([], more=False)


async def test_reads_of_any_size_miss_nothing(stores: Stores) -> None:
    channel = await stores.channel()
    lease = await stores.claim(channel)
    await stores.queued(channel, 100)

    for count in (1, 7, 8, 9, 24, 25, 99):
        seen, after, more = list[str](), BEGINNING, True
        while more:
            batch = await read(stores, lease, after=after, count=count)
            seen += ids(batch.notifications)
            after, more = batch.notifications[-1].entry_id, batch.more
        assert seen == [str(n) for n in range(100)], f"count {count}"


async def test_read_of_count_zero_returns_only_more(stores: Stores) -> None:
    channel = await stores.channel()
    lease = await stores.claim(channel)
    assert await read(stores, lease, count=0) == Batch([], more=False)

    [entry] = await stores.queued(channel, 1)

    assert await read(stores, lease, count=0) == Batch([], more=True)
    assert await read(stores, lease, count=0, after=entry) == Batch([], more=False)


# Ack


async def test_ack_removes_and_counts_from_the_front(stores: Stores) -> None:
    channel = await stores.channel()
    lease = await stores.claim(channel)
    entries = await stores.queued(channel, 200)

    assert await stores.queues.ack_until(lease, until=BEGINNING) == 0
    assert await stores.queues.ack_until(lease, until=entries[0]) == 1
    assert stores.entries(channel) == entries[1:], "exactly one"
    assert await stores.queues.ack_until(lease, until=entries[150]) == 150
    assert stores.entries(channel) == entries[151:]


async def test_ack_is_idempotent(stores: Stores) -> None:
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
    await stores.leases.release(new)
    assert await stores.queues.ack_until(new, until=entries[1]) is None


async def test_read_after_everything_was_acked(stores: Stores) -> None:
    channel = await stores.channel()
    lease = await stores.claim(channel)
    entries = await stores.queued(channel, 3)
    await stores.queues.ack_until(lease, until=entries[-1])
    assert await read(stores, lease, after=entries[-1]) == Batch([], more=False)

    await stores.queues.append(channel, events(3))

    batch = await read(stores, lease, after=entries[-1])
    assert ids(batch.notifications) == ["3"]
    assert not batch.rewound


async def _recreate(stores: Stores, channel: str) -> None:
    await stores.delete_channel(channel)
    await stores.make_channel(channel)


async def _revoke(stores: Stores, channel: str) -> None:
    key = await stores.api_keys.find(channel)
    assert key is not None
    await stores.api_keys.revoke(key)


LOST: list[tuple[Callable[[Stores, str], Awaitable[object]], CloseReason, str | None]] = [
    (lambda stores, channel: stores.claim(channel, NEW_OWNER), CloseReason.TAKEN_OVER, NEW_OWNER),
    (lambda stores, channel: stores.delete_channel(channel), CloseReason.CHANNEL_DELETED, None),
    (_recreate, CloseReason.CHANNEL_DELETED, None),
    (_revoke, CloseReason.KEY_REVOKED, None),
]


@pytest.mark.parametrize("count", [0, 10])
@pytest.mark.parametrize(
    ("lose", "reason", "owner"), LOST, ids=["takeover", "deletion", "recreation", "revocation"]
)
async def test_read_says_why_the_lease_is_lost(
    stores: Stores,
    lose: Callable[[Stores, str], Awaitable[object]],
    reason: CloseReason,
    owner: str | None,
    count: int,
) -> None:
    channel = await stores.channel()
    lease = await stores.claim(channel)
    await lose(stores, channel)

    with pytest.raises(NoLongerOwner) as raised:
        await read(stores, lease, count=count)

    assert raised.value.close_reason is reason
    assert stores.owner(channel) == owner, "a read restores no claim"
