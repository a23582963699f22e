"""Queues after Redis has lost writes, and after a client has refused a frame."""

import pytest

from shared.model.channels import CloseReason, Lease
from shared.model.errors import NoLongerOwner
from shared.store import keyspace
from shared.store.queues import BEGINNING
from tests.store.stores import EDGE, OTHER_EDGE, Stores, ids


async def test_reclaim_restores_a_lost_claim(stores: Stores) -> None:
    channel = await stores.channel()
    lease = await stores.claim(channel)
    entries = await stores.queued(channel, 2)
    stores.set_owner(channel, None)

    assert await stores.queues.ack_until(lease, until=entries[0]) is None
    await stores.queues.reclaim(lease)

    assert stores.owner(channel) == lease.owner
    assert await stores.queues.ack_until(lease, until=entries[0]) == 1


async def test_reclaim_replaces_the_previous_owner_again(stores: Stores) -> None:
    channel = await stores.channel()
    await stores.claim(channel, f"{EDGE}/1")
    lease = await stores.claim(channel, f"{OTHER_EDGE}/1")
    stores.set_owner(channel, f"{EDGE}/1")

    await stores.queues.reclaim(lease)

    assert stores.owner(channel) == f"{OTHER_EDGE}/1"


async def test_read_does_not_restore_a_claim(stores: Stores) -> None:
    """A newer owner has claimed and released; the wakeup about it was lost."""
    channel = await stores.channel()
    lease = await stores.claim(channel, f"{EDGE}/1")
    await stores.leases.release(await stores.claim(channel, f"{OTHER_EDGE}/1"))

    with pytest.raises(NoLongerOwner) as raised:
        await stores.pending(lease)

    assert raised.value.close_reason is CloseReason.TAKEN_OVER
    assert stores.owner(channel) is None


@pytest.mark.parametrize("owner", [f"{EDGE}/1", f"{EDGE}/3", f"{OTHER_EDGE}/1"])
async def test_newer_claim_is_never_replaced(stores: Stores, owner: str) -> None:
    channel = await stores.channel()
    lease = await stores.claim(channel, f"{EDGE}/2")
    stores.set_owner(channel, owner)

    for step in (stores.pending, stores.queues.reclaim):
        with pytest.raises(NoLongerOwner) as raised:
            await step(lease)
        assert raised.value.close_reason is CloseReason.TAKEN_OVER
    assert stores.owner(channel) == owner


@pytest.mark.parametrize("owner", [f"{EDGE}/1", f"{OTHER_EDGE}/1"], ids=["of this edge", "of another"])
async def test_reclaim_replaces_any_owner_of_an_older_copy(stores: Stores, owner: str) -> None:
    """Redis was restored from a copy that was made several claims ago."""
    channel = await stores.channel()
    await stores.claim(channel, owner)
    copy = stores.direct.dump(keyspace.channel(channel))
    stores.let_time_pass()
    await stores.claim(channel, f"{OTHER_EDGE}/2")
    lease = await stores.claim(channel, f"{EDGE}/3")
    assert lease.previous != owner
    stores.direct.restore(keyspace.channel(channel), 0, copy, replace=True)

    await stores.queues.reclaim(lease)
    assert stores.owner(channel) == lease.owner

    newer = await stores.claim(channel, f"{OTHER_EDGE}/3")
    stores.let_time_pass()
    with pytest.raises(NoLongerOwner):
        await stores.queues.reclaim(lease)
    await stores.queues.reclaim(newer)
    assert stores.owner(channel) == newer.owner


async def test_ack_and_release_do_not_restore_a_claim(stores: Stores) -> None:
    channel = await stores.channel()
    lease = await stores.claim(channel)
    stores.set_owner(channel, None)

    await stores.queues.ack_until(lease, until="9-9")
    await stores.leases.release(lease)

    assert stores.owner(channel) is None


async def test_read_past_a_lost_tail_is_rewound(stores: Stores) -> None:
    channel = await stores.channel()
    lease = await stores.claim(channel)
    entries = await stores.queued(channel, 5)
    stores.lose_all_but(channel, *entries[:3])

    batch = await stores.queues.read(lease, after=entries[4], count=10, size_bytes=1000)

    assert batch.rewound
    assert batch.notifications == []
    assert ids(await stores.pending(lease, BEGINNING)) == ["0", "1", "2"]


async def test_read_of_an_emptied_queue_past_a_lost_tail_is_rewound(stores: Stores) -> None:
    channel = await stores.channel()
    lease = await stores.claim(channel)
    entries = await stores.queued(channel, 2)
    stores.lose_all_but(channel, entries[0])
    await stores.queues.ack_until(lease, until=entries[0])

    batch = await stores.queues.read(lease, after=entries[1], count=0, size_bytes=1000)

    assert batch.rewound


async def test_read_returns_the_tail(stores: Stores) -> None:
    channel = await stores.channel()
    lease = await stores.claim(channel)
    assert await tail_as_read(stores, lease) == BEGINNING

    entries = await stores.queued(channel, 3)
    assert await tail_as_read(stores, lease) == entries[-1]
    await stores.queues.ack_until(lease, until=entries[-1])
    assert await tail_as_read(stores, lease) == entries[-1]


async def tail_as_read(stores: Stores, lease: Lease) -> str:
    return (await stores.queues.read(lease, after=BEGINNING, count=1, size_bytes=1000)).tail


async def test_entry_that_was_dropped_from_the_end_is_no_loss(stores: Stores) -> None:
    channel = await stores.channel()
    lease = await stores.claim(channel)
    entries = await stores.queued(channel, 3)
    for _ in range(3):
        await stores.queues.refuse(lease, frame_limit_bytes=1024, until=entries[2], single_entry=entries[2])

    for after in (BEGINNING, entries[1], entries[2]):
        batch = await stores.queues.read(lease, after=after, count=2, size_bytes=1000)
        assert (batch.rewound, batch.more, batch.tail) == (False, False, entries[2])


async def test_new_entries_are_behind_the_tail_of_an_emptied_queue(stores: Stores) -> None:
    """Also when the clock of Redis went back: the empty stream keeps its last id."""
    channel = await stores.channel()
    lease = await stores.claim(channel)
    far_ahead = f"{10**14}-7"
    stores.put_at(channel, far_ahead)
    await stores.queues.ack_until(lease, until=far_ahead)

    entries = await stores.queued(channel, 2)

    assert entries == [f"{10**14}-8", f"{10**14}-9"]
    assert stores.tail(channel) == entries[-1]


async def test_read_to_the_end_or_past_acked_entries_is_not_rewound(stores: Stores) -> None:
    channel = await stores.channel()
    lease = await stores.claim(channel)
    entries = await stores.queued(channel, 20)

    for acked in (None, entries[3], entries[19]):
        if acked:
            await stores.queues.ack_until(lease, until=acked)
        for after in (entries[19], entries[18]):
            batch = await stores.queues.read(lease, after=after, count=10, size_bytes=1000)
            assert not batch.rewound


# Refused frames


async def claim_after_refusal(stores: Stores, channel: str, owner: str) -> tuple[Lease, int | None, str]:
    """The next socket's lease, frame limit, and where its single frames end."""
    claimed = await stores.leases.claim(channel, owner=owner)
    return claimed.lease, claimed.frame_limit_bytes, claimed.careful_until


async def test_refused_frame_limits_the_next_socket(stores: Stores) -> None:
    channel = await stores.channel()
    entries = await stores.queued(channel, 3)
    lease = await stores.claim(channel)

    status = await stores.queues.refuse(lease, frame_limit_bytes=24_576, until=entries[2], single_entry="")

    assert status == "remembered"
    assert (await claim_after_refusal(stores, channel, f"{EDGE}/2"))[1:] == (24_576, entries[2])
    assert stores.entries(channel) == entries


async def test_entry_refused_three_times_is_dropped(stores: Stores) -> None:
    channel = await stores.channel()
    entries = await stores.queued(channel, 4)

    statuses = []
    for attempt in range(3):
        lease, *_ = await claim_after_refusal(stores, channel, f"{EDGE}/{attempt}")
        statuses.append(
            await stores.queues.refuse(
                lease, frame_limit_bytes=1024, until=entries[3], single_entry=entries[1]
            )
        )

    assert statuses == ["remembered", "remembered", "dropped"]
    assert stores.entries(channel) == [entries[0], *entries[2:]]


async def test_refusals_of_other_frames_do_not_count(stores: Stores) -> None:
    channel = await stores.channel()
    entries = await stores.queued(channel, 2)
    lease = await stores.claim(channel)

    async def refuse(entry: str) -> str:
        return await stores.queues.refuse(lease, frame_limit_bytes=1024, until=entries[1], single_entry=entry)

    order = [entries[0], "", entries[0], entries[1], entries[0], "", entries[0]]
    assert [await refuse(entry) for entry in order] == ["remembered"] * 7
    assert await refuse(entries[0]) == "dropped"
    assert stores.entries(channel) == [entries[1]]


async def test_count_of_refusals_restarts_after_a_drop(stores: Stores) -> None:
    channel = await stores.channel()
    entries = await stores.queued(channel, 2)
    lease = await stores.claim(channel)

    statuses = [
        await stores.queues.refuse(lease, frame_limit_bytes=1024, until=entry, single_entry=entry)
        for entry in (*[entries[0]] * 3, *[entries[1]] * 3)
    ]

    assert statuses == ["remembered", "remembered", "dropped"] * 2
    assert stores.entries(channel) == []


async def test_only_the_owner_refuses(stores: Stores) -> None:
    channel = await stores.channel()
    entries = await stores.queued(channel, 1)
    old = await stores.claim(channel, f"{EDGE}/1")
    await stores.claim(channel, f"{EDGE}/2")

    for _ in range(3):
        status = await stores.queues.refuse(old, frame_limit_bytes=1, until="1-0", single_entry=entries[0])
        assert status == "stale"

    assert stores.entries(channel) == entries
    assert (await claim_after_refusal(stores, channel, f"{EDGE}/3"))[1:] == (None, "")


async def test_refusal_does_not_create_a_channel(stores: Stores) -> None:
    channel = await stores.channel()
    lease = await stores.claim(channel)
    await stores.delete_channel(channel)

    assert await stores.queues.refuse(lease, frame_limit_bytes=1, until="1-0", single_entry="") == "stale"
    assert not stores.direct.exists(keyspace.channel(channel))
