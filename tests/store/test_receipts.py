"""Receipts: what became of events whose publisher asked for one."""

from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from shared.model.channels import Kind
from shared.model.events import Event, Trail
from shared.model.receipts import ChannelReceipt, State
from shared.store import keyspace
from shared.store.queues import QueueLimits
from shared.store.receipts import MOST_CHANNELS
from tests.harness.waiting import wait_until
from tests.store.stores import NOW_MS, AppendingQueues, Backend, Stores, at_time, events

HOUR_MS = 60 * 60 * 1000
FAR_AHEAD_MS = 10**14
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
MOST_IN_A_QUEUE = 10_000


def receipted(*numbers: int, size_bytes: int = 0) -> list[Event]:
    """Events that want a receipt."""
    return [event._replace(receipt=True) for event in events(*numbers, size_bytes=size_bytes)]


async def published(stores: Stores, channel: str, *numbers: int) -> list[str]:
    """Publishes events that want receipts; returns their entry ids."""
    for event in receipted(*numbers):
        await stores.receipts.open(stores.account_id, event, channels=[channel], now_ms=NOW_MS)
    before = len(stores.entries(channel))
    await stores.queues.append(channel, receipted(*numbers))
    return stores.entries(channel)[before:]


async def channel_receipt(stores: Stores, number: int) -> ChannelReceipt:
    """The receipt of the one channel of an event."""
    found = await stores.receipts.find(stores.account_id, str(number))
    assert found is not None
    [receipt] = found.channels
    return receipt


async def states(stores: Stores, *numbers: int) -> list[State]:
    return [(await channel_receipt(stores, number)).state for number in numbers]


async def test_receipt_is_queued_then_sent_then_acked(stores: Stores) -> None:
    channel = await stores.channel()
    lease = await stores.claim(channel)
    [entry] = await published(stores, channel, 1)
    queued = await channel_receipt(stores, 1)
    await stores.queues.mark_sent(lease, await stores.pending(lease))
    sent = await channel_receipt(stores, 1)

    await stores.queues.ack_until(lease, until=entry)

    acked = await channel_receipt(stores, 1)
    assert [receipt.state for receipt in (queued, sent, acked)] == ["queued", "sent", "acked"]
    assert queued.queued_ms == int(entry.partition("-")[0])
    assert sent.sent_ms is not None
    assert acked.acked_ms is not None
    assert acked == replace(sent, acked_ms=acked.acked_ms)
    assert queued.queued_ms <= sent.sent_ms <= acked.acked_ms


async def test_event_without_a_receipt_leaves_none(stores: Stores) -> None:
    channel = await stores.channel()
    lease = await stores.claim(channel)

    [entry] = await stores.queued(channel, 1)

    assert stores.direct.keys("*receipt*") == []
    [(_, fields)] = stores.direct.xrange(keyspace.queue(channel))
    assert list(fields) == [b"id", b"topic", b"data", b"name", b"time", b"total"]
    assert (await stores.pending(lease))[0].trail is None
    await stores.queues.ack_until(lease, until=entry)
    assert stores.direct.keys("*receipt*") == []
    assert await stores.receipts.find(stores.account_id, "0") is None


@pytest.mark.parametrize(
    ("receipt", "traceparent", "trail"),
    [
        (True, "", Trail(receipt=True)),
        (False, TRACEPARENT, Trail(traceparent=TRACEPARENT)),
        (True, TRACEPARENT, Trail(receipt=True, traceparent=TRACEPARENT)),
    ],
    ids=["receipt", "trace", "both"],
)
async def test_notification_carries_its_trail(
    stores: Stores, receipt: bool, traceparent: str, trail: Trail
) -> None:
    channel = await stores.channel()
    lease = await stores.claim(channel)
    event = events(1)[0]._replace(receipt=receipt)

    await stores.queues.append(channel, [event], traceparent=traceparent)

    assert [notification.trail for notification in await stores.pending(lease)] == [trail]
    assert bool(stores.direct.exists(keyspace.receipts(channel))) is receipt


async def test_ack_marks_receipts_up_to_the_entry(stores: Stores) -> None:
    channel = await stores.channel()
    lease = await stores.claim(channel)
    entries = await published(stores, channel, 1, 2, 3)

    await stores.queues.ack_until(lease, until=entries[1])

    assert await states(stores, 1, 2, 3) == ["acked", "acked", "queued"]
    left = stores.direct.xrange(keyspace.receipts(channel))
    assert [entry.decode() for entry, _ in left] == entries[2:]


async def test_ack_up_to_an_event_marks_receipts(stores: Stores) -> None:
    channel = await stores.channel()
    lease = await stores.claim(channel)
    await published(stores, channel, 1, 2, 3)

    await stores.queues.ack_until_event(lease, "2", count=100, size_bytes=10_000)

    assert await states(stores, 1, 2, 3) == ["acked", "acked", "queued"]
    await stores.delete_channel(channel)
    assert await states(stores, 1, 2, 3) == ["acked", "acked", "dropped"]


async def test_stale_owner_marks_no_receipt(stores: Stores) -> None:
    channel = await stores.channel()
    old = await stores.claim(channel, "edge-1/b00t/1")
    [entry] = await published(stores, channel, 1)
    await stores.claim(channel, "edge-2/b11t/1")

    await stores.queues.ack_until(old, until=entry)

    assert await states(stores, 1) == ["queued"]


async def _over_the_limit(stores: Stores, channel: str) -> None:
    queues = AppendingQueues(stores.calls, limits=QueueLimits(size_bytes=400))
    await queues.append(channel, events(2, size_bytes=100))


async def _too_old_for_append(stores: Stores, channel: str) -> None:
    stores.put_at(channel, f"{FAR_AHEAD_MS}-0")
    await AppendingQueues(at_time(stores, FAR_AHEAD_MS)).append(channel, events(2))
    await wait_until(lambda: not stores.direct.exists(keyspace.receipts(channel)))


async def _too_old_for_read(stores: Stores, channel: str) -> None:
    lease = await stores.claim(channel)
    queues = AppendingQueues(at_time(stores, FAR_AHEAD_MS))
    await queues.read(lease, after="0-0", count=1, size_bytes=1)


async def _too_old_for_the_reaper(stores: Stores, channel: str) -> None:
    await AppendingQueues(at_time(stores, FAR_AHEAD_MS)).drop_expired(channel)


async def _refused_three_times(stores: Stores, channel: str) -> None:
    lease = await stores.claim(channel)
    [entry] = stores.entries(channel)
    for _ in range(3):
        await stores.queues.refuse(lease, frame_limit_bytes=1024, until=entry, single_entry=entry)


async def _expired(stores: Stores, channel: str) -> None:
    generation = (await stores.channels.ref(channel)).generation
    assert await stores.channels.expire(stores.account_id, channel, generation=generation, idle_expiry_ms=0)


async def _deleted(stores: Stores, channel: str) -> None:
    assert await stores.channels.delete(stores.account_id, channel, kind=Kind.WEBSOCKET)


async def _revoked(stores: Stores, channel: str) -> None:
    key = await stores.api_keys.find(channel)
    assert key is not None
    assert await stores.api_keys.revoke(key)


DROPS: list[tuple[Callable[[Stores, str], Awaitable[None]], str]] = [
    (_over_the_limit, "queue-full"),
    (_too_old_for_append, "too-old"),
    (_too_old_for_read, "too-old"),
    (_too_old_for_the_reaper, "too-old"),
    (_refused_three_times, "too-long-for-client"),
    (_expired, "channel-expired"),
    (_deleted, "channel-deleted"),
    (_revoked, "key-revoked"),
]


@pytest.mark.parametrize(("drop", "reason"), DROPS)
async def test_receipt_of_a_dropped_notification_has_the_reason(
    stores: Stores, drop: Callable[[Stores, str], Awaitable[None]], reason: str
) -> None:
    channel, other = await stores.channel(), await stores.channel()
    await published(stores, channel, 1)
    await published(stores, other, 7)

    await drop(stores, channel)

    receipt = await channel_receipt(stores, 1)
    assert (receipt.state, receipt.reason) == ("dropped", reason)
    assert receipt.dropped_ms is not None
    assert receipt.dropped_ms >= receipt.queued_ms
    assert not stores.direct.exists(keyspace.receipts(channel)), "no receipt is tracked any more"
    assert await states(stores, 7) == ["queued"]


async def test_receipts_of_each_generation_have_its_end(stores: Stores) -> None:
    channel = await stores.channel()
    await published(stores, channel, 1)
    await _deleted(stores, channel)
    await stores.make_channel(channel)
    lease = await stores.claim(channel)
    [second] = await published(stores, channel, 2)
    await published(stores, channel, 3)
    await stores.queues.ack_until(lease, until=second)
    assert await states(stores, 1, 2, 3) == ["dropped", "acked", "queued"]

    await _revoked(stores, channel)

    assert await states(stores, 1, 2, 3) == ["dropped", "acked", "dropped"]
    assert [(await channel_receipt(stores, n)).reason for n in (1, 3)] == ["channel-deleted", "key-revoked"]


async def test_ends_of_a_channel_are_bounded(stores: Stores) -> None:
    channel = await stores.channel()
    for number in range(70):
        await published(stores, channel, number)
        await _deleted(stores, channel)
        await stores.make_channel(channel)

    assert stores.direct.hlen(keyspace.ended(channel)) <= 64
    assert await states(stores, 69) == ["dropped"]
    assert 0 < stores.direct.pttl(keyspace.ended(channel)) <= HOUR_MS


async def test_append_marks_receipts_of_its_own_drops(stores: Stores) -> None:
    channel = await stores.channel()
    for event in receipted(1, 2):
        await stores.receipts.open(stores.account_id, event, channels=[channel], now_ms=NOW_MS)
    queues = AppendingQueues(stores.calls, limits=QueueLimits(size_bytes=400))

    await queues.append(channel, receipted(1, 2, size_bytes=100))

    assert await states(stores, 1, 2) == ["dropped", "queued"]


async def test_first_send_time_is_kept(stores: Stores) -> None:
    channel = await stores.channel()
    lease = await stores.claim(channel)
    await published(stores, channel, 1)
    pending = await stores.pending(lease)
    await stores.queues.mark_sent(lease, pending)
    stores.direct.hset(keyspace.receipt(channel, "1"), "sent", NOW_MS)

    await stores.queues.mark_sent(lease, pending)

    assert (await channel_receipt(stores, 1)).sent_ms == NOW_MS


async def test_republished_event_id_gets_a_new_receipt(stores: Stores) -> None:
    channel = await stores.channel()
    lease = await stores.claim(channel)
    [first] = await published(stores, channel, 1)
    await stores.queues.mark_sent(lease, await stores.pending(lease))
    [second] = await published(stores, channel, 1)
    assert await states(stores, 1) == ["queued"]

    await stores.queues.ack_until(lease, until=first)
    assert await states(stores, 1) == ["queued"], "the ack was of the older one"
    await stores.queues.ack_until(lease, until=second)

    assert await states(stores, 1) == ["acked"]


async def test_expired_receipt_is_not_recreated(stores: Stores) -> None:
    channel = await stores.channel()
    lease = await stores.claim(channel)
    [entry] = await published(stores, channel, 1)
    stores.direct.delete(keyspace.receipt(channel, "1"))

    await stores.queues.mark_sent(lease, await stores.pending(lease))
    await stores.queues.ack_until(lease, until=entry)

    assert not stores.direct.exists(keyspace.receipt(channel, "1"))


async def test_leftover_receipts_of_a_deleted_queue_are_removed(stores: Stores) -> None:
    """Their entry ids may be above new ones, after a clock was set back."""
    channel = await stores.channel()
    stores.direct.xadd(keyspace.receipts(channel), {"event": "0" * 40}, id=f"{FAR_AHEAD_MS}-0")

    await published(stores, channel, 1, 2)

    assert await states(stores, 1, 2) == ["queued", "queued"]
    assert stores.direct.xlen(keyspace.receipts(channel)) == 2


async def test_receipts_expire_after_an_hour(stores: Stores) -> None:
    channel = await stores.channel()
    await published(stores, channel, 1)

    names = stores.direct.keys("*receipt*")

    assert len(names) == 3
    assert all(HOUR_MS - 60_000 < stores.direct.pttl(name) <= HOUR_MS for name in names)


async def test_new_receipt_renews_the_ttl_of_the_list_only(stores: Stores) -> None:
    channel = await stores.channel()
    await published(stores, channel, 1)
    stores.direct.pexpire(keyspace.receipts(channel), 60_000)
    stores.direct.pexpire(keyspace.receipt(channel, "1"), 60_000)

    await published(stores, channel, 2)

    assert stores.direct.pttl(keyspace.receipts(channel)) > 60_000
    assert stores.direct.pttl(keyspace.receipt(channel, "1")) <= 60_000


async def test_receipt_is_visible_to_its_account_only(stores: Stores) -> None:
    await published(stores, await stores.channel(), 1)

    assert await stores.receipts.find("0" * 32, "1") is None


async def test_receipt_omits_channels_that_did_not_get_the_event(stores: Stores) -> None:
    channels = [await stores.channel() for _ in range(3)]
    await stores.delete_channel(channels[1])
    [event] = receipted(1)
    await stores.receipts.open(stores.account_id, event, channels=channels, now_ms=NOW_MS)
    for channel in channels:
        await stores.queues.append(channel, [event])

    found = await stores.receipts.find(stores.account_id, "1")

    assert found is not None
    assert [receipt.channel for receipt in found.channels] == [channels[0], channels[2]]
    assert found.channels_total == 3


async def test_receipt_lists_the_first_1000_channels(stores: Stores) -> None:
    channel = await stores.channel()
    [event] = receipted(1)
    names = [channel, *(f"{number:032x}" for number in range(MOST_CHANNELS))]
    await stores.receipts.open(stores.account_id, event, channels=names, now_ms=NOW_MS)
    await stores.queues.append(channel, [event])

    found = await stores.receipts.find(stores.account_id, "1")

    assert found is not None
    assert [receipt.channel for receipt in found.channels] == [channel]
    assert found.channels_total == MOST_CHANNELS + 1
    kept = stores.direct.get(keyspace.receipt(stores.account_id, "1"))
    assert kept.count(names[-2].encode()) == 1
    assert kept.count(names[-1].encode()) == 0


async def test_queue_tracks_its_newest_10000_receipts(backend: Backend) -> None:
    """They outlive what they are of: their memory is bounded beside the limit of the queue."""
    async with backend.connect() as redis:
        stores = Stores(redis, backend)
        channel = await stores.channel()
        await stores.queues.append(channel, receipted(*range(5)))

        await stores.queues.append(channel, receipted(*range(5, MOST_IN_A_QUEUE + 2)))

        assert len(stores.entries(channel)) == MOST_IN_A_QUEUE + 2, "all are pending"
        await wait_until(lambda: stores.direct.xlen(keyspace.receipts(channel)) == MOST_IN_A_QUEUE)
        kept = [bool(stores.direct.exists(keyspace.receipt(channel, str(n)))) for n in range(4)]
        assert kept == [False, False, True, True]
