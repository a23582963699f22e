"""Channels with limits of their own, paused, purged, and at their end."""

from dataclasses import replace

import pytest

from shared.model.account_channels import ChannelSettings
from shared.model.api_keys import Account, new_id
from shared.model.channels import CloseReason, Kind
from shared.model.errors import HasApiKeys, NoLongerOwner, NoSuchAccount
from shared.model.receipts import ChannelReceipt
from shared.store import keyspace
from shared.store.batches import Batches, NoBatch, TakenBatch
from shared.store.due_webhooks import DueWebhooks
from shared.store.queues import QueueLimits, parse_entry_id
from tests.harness.overheard import Overheard
from tests.store.native import a_channel, create, listed, receivers
from tests.store.stores import EDGE, OTHER_EDGE, AppendingQueues, Stores, at_time, events


async def test_own_limits_of_a_queue(stores: Stores) -> None:
    small = await create(stores, settings=ChannelSettings(queue_bytes=1024))
    short = await create(stores, settings=ChannelSettings(queue_age_ms=1000))
    usual = await create(stores)
    for channel in (small, short, usual):
        await stores.queued(channel, 10)

    assert len(stores.entries(small)) == 4
    assert len(stores.entries(short)) == len(stores.entries(usual)) == 10
    later = AppendingQueues(at_time(stores, stores.now_ms() + 2000))
    assert [(await later.drop_expired(each)).dropped for each in (short, usual)] == [10, 0]
    # No channel has more than the installation allows.
    large = await create(stores, settings=ChannelSettings(queue_bytes=10**9))
    queues = AppendingQueues(stores.calls, limits=QueueLimits(size_bytes=1024))
    await queues.append(large, events(*range(10)))
    assert len(stores.entries(large)) == 4


async def test_while_it_is_paused_no_process_delivers(stores: Stores) -> None:
    channel = await create(stores)
    lease = await stores.claim(channel)
    await stores.queued(channel, 2)
    [first, _] = stores.entries(channel)

    assert await stores.account_channels.pause(channel) is True

    # What was sent before may be acknowledged.
    assert await stores.queues.ack_until(lease, until=first) == 1
    for refused in (
        stores.pending(lease),
        stores.queues.reclaim(lease),
        stores.claim(channel, f"{OTHER_EDGE}/1"),
    ):
        with pytest.raises(NoLongerOwner) as error:
            await refused
        assert error.value.close_reason is CloseReason.PAUSED
    await stores.queued(channel, 1)
    assert len(stores.entries(channel)) == 2
    assert await stores.account_channels.resume(channel) is True
    assert len(await stores.pending(await stores.claim(channel))) == 2
    assert await stores.account_channels.pause(new_id()) is False
    assert await stores.account_channels.resume(new_id()) is False


@pytest.mark.parametrize("kind", list(Kind))
async def test_appends_to_a_paused_channel_send_no_wakeup(
    stores: Stores, overheard: Overheard, kind: Kind
) -> None:
    channel = await create(stores, kind=kind)
    stores.set_owner(channel, f"{EDGE}/1")
    await stores.account_channels.pause(channel)
    await stores.wakeups.flush()
    overheard.all()
    await stores.queued(channel, 1)
    assert overheard.all() == []

    await stores.account_channels.resume(channel)
    await stores.wakeups.flush()

    assert overheard.all() == [("dispatchers" if kind is Kind.WEBHOOK else EDGE, channel.encode())]


async def test_a_pause_and_own_limits_leave_each_other_alone(stores: Stores, overheard: Overheard) -> None:
    channel = await create(stores)
    stores.set_owner(channel, f"{EDGE}/1")

    async def change(**settings: int) -> None:
        found = await stores.account_channels.read(channel)
        assert found is not None
        await stores.account_channels.change(found, settings=ChannelSettings(**settings))
        found = await stores.account_channels.read(channel)
        assert found is not None
        assert found.settings == ChannelSettings(**settings)

    await stores.account_channels.pause(channel)
    await stores.account_channels.pause(channel)
    for settings, kept in (({"queue_bytes": 1024}, 4), ({"queue_age_ms": 5000}, 10), ({}, 10)):
        await change(**settings)
        await stores.queued(channel, 10)
        assert len(stores.entries(channel)) >= kept
        if kept == 4:
            assert len(stores.entries(channel)) == 4
    await change(queue_bytes=1024)
    await stores.wakeups.flush()
    overheard.all()
    await stores.queued(channel, 1)
    assert overheard.all() == [], "still paused"

    await stores.account_channels.resume(channel)

    await stores.queued(channel, 10)
    assert len(stores.entries(channel)) == 4
    await change()
    await stores.account_channels.pause(channel)
    await stores.account_channels.resume(channel)
    assert not stores.direct.hexists(keyspace.channel(channel), "limits")
    assert overheard.all() != []


async def test_a_paused_webhook_is_not_due(stores: Stores) -> None:
    channel = await create(stores, kind=Kind.WEBHOOK)
    await stores.queued(channel, 1)
    lease = await stores.leases.claim_unheld(channel, owner=f"{EDGE}/1")
    await stores.account_channels.pause(channel)
    batches = Batches(stores.calls, limits=QueueLimits())

    assert await batches.take(lease, count=1, size_bytes=1) is NoBatch.NOT_DUE
    assert [each async for page in DueWebhooks(stores.calls, instance=EDGE).pages() for each in page] == []
    await stores.account_channels.resume(channel)
    assert isinstance(await batches.take(lease, count=1, size_bytes=1), TakenBatch)


async def test_a_purge_drops_what_is_pending_and_nothing_else(stores: Stores) -> None:
    channel = await create(stores)
    lease = await stores.claim(channel)
    await stores.queues.append(channel, [event._replace(receipt=True) for event in events(*range(300))])
    tail = stores.tail(channel)
    sent = (await stores.pending(lease))[100].entry_id
    found = await stores.account_channels.read(channel)
    assert found is not None

    assert await stores.account_channels.purge(found) == 300

    assert await stores.account_channels.purge(found) == 0
    found = await stores.account_channels.read(channel)
    assert found is not None
    assert (found.pending, found.dropped) == (0, 300)
    assert await receivers(stores) == {channel}
    # Its owner goes on: nothing that it has sent counts as lost, and what comes is behind that.
    assert await stores.queues.has_reached(lease, sent)
    batch = await stores.queues.read(lease, after=sent, count=10, size_bytes=1000)
    assert (batch.notifications, batch.rewound, batch.tail) == ([], False, tail)
    assert await stores.queues.ack_until(lease, until=sent) == 0
    [entry] = await stores.queued(channel, 1)
    assert parse_entry_id(entry) > parse_entry_id(tail)
    assert len(await stores.pending(lease, after=sent)) == 1
    await stores.queues.append(channel, events(7)[:1])
    receipts = {each: await receipt_of(stores, channel, str(each)) for each in (0, 299)}
    assert {(each.state, each.reason) for each in receipts.values()} == {("dropped", "purged")}


async def receipt_of(stores: Stores, channel: str, event_id: str) -> ChannelReceipt:
    receipt = await stores.receipts._of_channel(channel, event_id)
    assert receipt is not None
    return receipt


async def test_a_receipt_after_a_purge_is_not_dropped_by_it(stores: Stores) -> None:
    channel = await create(stores)
    await stores.queues.append(channel, [events(1)[0]._replace(receipt=True)])
    found = await stores.account_channels.read(channel)
    assert found is not None
    await stores.account_channels.purge(found)

    await stores.queues.append(channel, [events(2)[0]._replace(receipt=True)])

    assert [(await receipt_of(stores, channel, each)).state for each in ("1", "2")] == ["dropped", "queued"]


async def test_an_owner_of_a_deleted_channel_learns_that(stores: Stores) -> None:
    channel = await create(stores)
    lease = replace(await stores.claim(channel), is_native=True)
    found = await stores.account_channels.read(channel)
    assert found is not None
    await stores.account_channels.delete(found)

    with pytest.raises(NoLongerOwner) as error:
        await stores.pending(lease)

    assert error.value.close_reason is CloseReason.CHANNEL_DELETED


async def test_only_a_channel_with_an_expiry_ends_by_idleness(stores: Stores) -> None:
    ends = await create(stores, settings=ChannelSettings(expires_after_ms=1000))
    stays = await create(stores)
    times = [await stores.channels.times(each) for each in (ends, stays)]
    assert [each and each.idle_expiry_ms for each in times] == [1000, 0]
    stores.age(ends, by_ms=2000)
    generation = (await stores.channels.ref(ends)).generation

    assert await stores.channels.expire(stores.account_id, ends, generation=generation, idle_expiry_ms=1000)

    assert await listed(stores) == [stays]
    assert await receivers(stores) == {stays}


async def test_an_account_is_deleted_with_its_channels(stores: Stores) -> None:
    await stores.api_keys.create_account(Account(id=stores.account_id, name="doomed"))
    made = [await create(stores, name=f"n{number}", kind=kind) for number, kind in enumerate(Kind)]
    for channel in made:
        await stores.queued(channel, 3)
    with pytest.raises(HasApiKeys):
        await stores.account_deletion.begin(stores.account_id, cascade=False)

    await stores.account_deletion.begin(stores.account_id, cascade=True)
    late = a_channel(stores, name="late")
    with pytest.raises(NoSuchAccount):
        await stores.account_channels.create(late)
    nameless = a_channel(stores)
    with pytest.raises(NoSuchAccount):
        await stores.account_channels.create(nameless)
    await stores.account_deletion.finish(stores.account_id)

    left = {name for name in stores.direct.scan_iter() if b":" in name and keyspace.id_in(name) != ""}
    of_it = {*made, late.id, nameless.id, stores.account_id}
    assert {name.decode() for name in left if keyspace.id_in(name) in of_it} == {
        keyspace.account(stores.account_id)
    }
    assert stores.direct.smembers(keyspace.WEBHOOKS) == set()
