"""Fetches from pull channels: what one has got is its own until its ack, its nack, or the end of its time."""

import pytest

from shared.model.account_channels import ChannelSettings
from shared.model.api_keys import new_id
from shared.model.channels import Kind
from shared.store import keyspace
from shared.store.fetches import FETCH_BYTES, Fetched, Fetches, Refused
from shared.store.queues import QueueLimits
from tests.store.native import create, fetch
from tests.store.stores import AppendingQueues, Stores, at_time, events, ids
from tests.store.test_paused_channels import receipt_of


def after(stores: Stores, ms: int) -> Fetches:
    """Fetches so many ms later by the clock of Redis."""
    return Fetches(at_time(stores, stores.now_ms() + ms), limits=QueueLimits())


def got(fetched: Fetched | Refused | int | None) -> list[str]:
    assert isinstance(fetched, Fetched), fetched
    return ids(fetched.notifications)


async def filled(stores: Stores, count: int = 5, **settings: int) -> tuple[str, list[str]]:
    """A pull channel with so many events, and their entries."""
    channel = await create(stores, kind=Kind.PULL, settings=ChannelSettings(**settings))
    return channel, await stores.queued(channel, count)


async def test_a_fetch_gets_the_front_until_it_is_acked(stores: Stores) -> None:
    channel, entries = await filled(stores)
    before_ms = stores.now_ms()

    first = await fetch(stores, channel, count=2)

    assert got(first) == ["0", "1"]
    assert before_ms + 30_000 <= first.ack_by_ms <= stores.now_ms() + 30_000
    assert await stores.fetches.fetch(channel, count=2) is Refused.BUSY
    assert await stores.fetches.ack(channel, lease=first.lease, until=entries[1]) == 2
    assert await stores.fetches.ack(channel, lease=first.lease, until=entries[1]) == 0, "it may be repeated"
    assert got(await fetch(stores, channel, count=100)) == ["2", "3", "4"]


async def test_a_partial_ack_keeps_the_rest(stores: Stores) -> None:
    channel, entries = await filled(stores)
    first = await fetch(stores, channel, count=3)

    assert await stores.fetches.ack(channel, lease=first.lease, until=entries[0]) == 1

    assert await stores.fetches.fetch(channel, count=1) is Refused.BUSY
    found = await stores.account_channels.read(channel)
    assert found is not None
    assert (found.pending, found.fetched, found.ack_by_ms) == (4, 2, first.ack_by_ms)
    assert await stores.fetches.ack(channel, lease=first.lease, until=entries[2]) == 2
    assert got(await fetch(stores, channel)) == ["3", "4"]


async def test_after_the_time_out_it_begins_again(stores: Stores) -> None:
    channel, entries = await filled(stores, ack_timeout_ms=2000)
    first = await fetch(stores, channel, count=3)
    await stores.fetches.ack(channel, lease=first.lease, until=entries[0])

    assert await after(stores, 1000).fetch(channel, count=3) is Refused.BUSY
    second = await after(stores, 3000).fetch(channel, count=3)

    assert got(second) == ["1", "2", "3"]


@pytest.mark.parametrize("taken_over", [False, True])
async def test_a_late_ack_counts_until_another_fetch_has_got_something(
    stores: Stores, taken_over: bool
) -> None:
    channel, entries = await filled(stores)
    first, later = await fetch(stores, channel, count=2), after(stores, 60_000)
    if taken_over:
        assert got(await later.fetch(channel, count=1)) == ["0"]

    for late in (later, stores.fetches):
        acked = await late.ack(channel, lease=first.lease, until=entries[0])
        nacked = await late.nack(channel, lease=first.lease, entry=entries[1])
        expected = (Refused.ENDED, Refused.ENDED) if taken_over else (acked, None)
        assert (acked, nacked) == expected

    assert stores.entries(channel) == (entries if taken_over else entries[1:])


async def test_acks_name_what_was_fetched(stores: Stores) -> None:
    channel, entries = await filled(stores)
    first = await fetch(stores, channel, count=2)

    assert await stores.fetches.ack(channel, lease=first.lease, until=entries[2]) is Refused.BEYOND
    assert await stores.fetches.nack(channel, lease=first.lease, entry=entries[2]) is Refused.BEYOND
    assert await stores.fetches.ack(channel, lease="another", until=entries[0]) is Refused.ENDED
    assert await stores.fetches.ack(new_id(), lease=first.lease, until=entries[0]) is Refused.ABSENT
    assert await stores.fetches.nack(new_id(), lease=first.lease, entry=entries[0]) is Refused.ABSENT

    assert stores.entries(channel) == entries


async def test_a_nack_gives_back_what_is_behind_it(stores: Stores) -> None:
    channel, entries = await filled(stores)
    first = await fetch(stores, channel, count=4)

    for _ in range(2):
        assert await stores.fetches.nack(channel, lease=first.lease, entry=entries[1]) is None

    # It acknowledges nothing: the one before stays the fetch's own.
    assert stores.entries(channel) == entries
    assert await stores.fetches.fetch(channel, count=1) is Refused.BUSY
    assert await stores.fetches.ack(channel, lease=first.lease, until=entries[1]) is Refused.BEYOND
    assert await stores.fetches.ack(channel, lease=first.lease, until=entries[0]) == 1
    assert got(await fetch(stores, channel)) == ["1", "2", "3", "4"]


async def test_a_nack_of_everything_frees_the_channel(stores: Stores) -> None:
    channel, entries = await filled(stores)
    first = await fetch(stores, channel, count=4)

    await stores.fetches.nack(channel, lease=first.lease, entry=entries[0])

    found = await stores.account_channels.read(channel)
    assert found is not None
    assert (found.fetched, found.ack_by_ms) == (0, 0)
    assert got(await fetch(stores, channel, count=2)) == ["0", "1"]
    assert await stores.fetches.ack(channel, lease=first.lease, until=entries[0]) is Refused.ENDED


async def test_a_nack_with_a_delay_by_the_clock_of_redis(stores: Stores) -> None:
    channel, entries = await filled(stores)
    first = await fetch(stores, channel, count=4)
    nack = {"lease": first.lease, "entry": entries[2]}
    assert await stores.fetches.nack(channel, **nack, delay_ms=60_000) is None
    assert await after(stores, 50_000).nack(channel, **nack, delay_ms=60_000) is None, "not begun again"
    assert await stores.fetches.ack(channel, lease=first.lease, until=entries[1]) == 2

    early = await fetch(stores, channel)
    assert got(early) == []
    assert 50_000 < early.again_in_ms <= 60_000
    assert got(await after(stores, 61_000).fetch(channel, count=100)) == ["2", "3", "4"]


async def test_what_is_before_a_delayed_one_comes_again_without_it(stores: Stores) -> None:
    channel, entries = await filled(stores)
    first = await fetch(stores, channel, count=4)
    await stores.fetches.nack(channel, lease=first.lease, entry=entries[2], delay_ms=90_000)

    second = await after(stores, 40_000).fetch(channel, count=100)

    assert got(second) == ["0", "1"]
    assert isinstance(second, Fetched)
    assert await stores.fetches.ack(channel, lease=second.lease, until=entries[1]) == 2
    assert got(await after(stores, 91_000).fetch(channel, count=100)) == ["2", "3", "4"]


async def test_a_nack_of_what_was_acked_delays_nothing(stores: Stores) -> None:
    channel, entries = await filled(stores, 2)
    first = await fetch(stores, channel)
    await stores.fetches.ack(channel, lease=first.lease, until=entries[1])
    await stores.fetches.nack(channel, lease=first.lease, entry=entries[1], delay_ms=60_000)

    await stores.queued(channel, 1)

    assert got(await fetch(stores, channel)) == ["0"]


async def test_a_crash_that_loses_the_lease_loses_no_event(stores: Stores) -> None:
    channel, entries = await filled(stores)
    first = await fetch(stores, channel, count=2)
    # The last writes of the channel: those of the fetch.
    fields = ("fetch_lease", "fetch_until", "ack_by_ms", "fetched")
    assert stores.direct.hdel(keyspace.channel(channel), *fields) == len(fields)

    assert await stores.fetches.ack(channel, lease=first.lease, until=entries[0]) is Refused.ENDED
    assert got(await fetch(stores, channel, count=2)) == ["0", "1"]


async def test_a_purge_ends_the_lease(stores: Stores) -> None:
    channel, entries = await filled(stores)
    first = await fetch(stores, channel, count=2)
    await stores.fetches.nack(channel, lease=first.lease, entry=entries[1], delay_ms=60_000)
    found = await stores.account_channels.read(channel)
    assert found is not None
    assert await stores.account_channels.purge(found) == 5

    await stores.queued(channel, 1)

    assert await stores.fetches.ack(channel, lease=first.lease, until=entries[0]) is Refused.ENDED
    assert got(await fetch(stores, channel)) == ["0"]


@pytest.mark.parametrize("kind", list(Kind))
async def test_only_pull_channels_that_are_not_paused(stores: Stores, kind: Kind) -> None:
    channel = await create(stores, kind=kind)
    assert await stores.fetches.fetch(new_id(), count=1) is Refused.ABSENT
    if kind is not Kind.PULL:
        assert await stores.fetches.fetch(channel, count=1) is Refused.OTHER_KIND
        return
    [first, _] = await stores.queued(channel, 2)
    fetched = await fetch(stores, channel, count=1)
    await stores.account_channels.pause(channel)

    assert await stores.fetches.fetch(channel, count=1) is Refused.PAUSED
    assert await stores.fetches.ack(channel, lease=fetched.lease, until=first) == 1
    await stores.account_channels.resume(channel)
    assert got(await fetch(stores, channel)) == ["1"]


async def test_limits_of_one_fetch(stores: Stores) -> None:
    channel = await create(stores, kind=Kind.PULL)
    await stores.queues.append(channel, events(*range(3), size_bytes=FETCH_BYTES // 2))
    await stores.queues.append(channel, events(3, size_bytes=2 * FETCH_BYTES))
    await stores.queues.append(channel, events(*range(4, 150)))
    for expected in (["0"], ["1"], ["2"], ["3"], [str(each) for each in range(4, 104)]):
        fetched = await fetch(stores, channel, count=10_000)
        assert got(fetched) == expected
        await stores.fetches.ack(channel, lease=fetched.lease, until=fetched.notifications[-1].entry_id)


async def test_what_the_queue_drops_is_no_longer_fetched(stores: Stores) -> None:
    channel, entries = await filled(stores, 4, queue_bytes=1024)
    assert len(stores.entries(channel)) == 4
    first = await fetch(stores, channel, count=2)
    await stores.queued(channel, 4)
    assert not set(entries) & set(stores.entries(channel))

    second = await fetch(stores, channel)

    assert len(second.notifications) == 4
    assert await stores.fetches.ack(channel, lease=first.lease, until=entries[1]) is Refused.ENDED


async def test_nothing_that_is_too_old_is_given_out(stores: Stores) -> None:
    channel, _ = await filled(stores, 200, queue_age_ms=5000)

    assert got(await after(stores, 6000).fetch(channel, count=10)) == []

    found = await stores.account_channels.read(channel)
    assert found is not None
    assert (found.pending, found.dropped) == (0, 200)


async def test_receipts_of_what_was_fetched(stores: Stores) -> None:
    channel = await create(stores, kind=Kind.PULL)
    await stores.queues.append(channel, [event._replace(receipt=True) for event in events(0, 1, 2)])
    fetched = await fetch(stores, channel, count=2)
    await stores.fetches.mark_sent(channel, fetched.notifications)

    await stores.fetches.ack(channel, lease=fetched.lease, until=fetched.notifications[0].entry_id)

    states = [(await receipt_of(stores, channel, each)).state for each in ("0", "1", "2")]
    assert states == ["acked", "sent", "queued"]


async def test_the_idle_time_begins_with_each_fetch_ack_and_nack(stores: Stores) -> None:
    channel, entries = await filled(stores, 2, expires_after_ms=10_000)
    generation = (await stores.channels.ref(channel)).generation

    async def expires() -> bool:
        return await stores.channels.expire(
            stores.account_id, channel, generation=generation, idle_expiry_ms=10_000
        )

    fetched = await fetch(stores, channel)
    stores.age(channel, by_ms=20_000)
    await stores.fetches.nack(channel, lease=fetched.lease, entry=entries[1])
    assert not await expires()
    stores.age(channel, by_ms=20_000)
    await stores.fetches.ack(channel, lease=fetched.lease, until=entries[0])
    assert not await expires()
    stores.age(channel, by_ms=20_000)
    await fetch(stores, channel)
    assert not await expires()
    stores.age(channel, by_ms=20_000)
    assert await expires()


async def test_a_full_redis_lets_consumers_empty_it(stores: Stores) -> None:
    channel, entries = await filled(stores)
    direct = stores.direct
    direct.config_set("maxmemory", direct.info("memory")["used_memory"] // 2)
    try:
        fetched = await fetch(stores, channel, count=3)
        assert await stores.fetches.nack(channel, lease=fetched.lease, entry=entries[2]) is None
        assert await stores.fetches.ack(channel, lease=fetched.lease, until=entries[1]) == 2
    finally:
        direct.config_set("maxmemory", 0)
    assert got(await fetch(stores, channel)) == ["2", "3", "4"]


async def test_the_bound_of_the_queue_stays_right(stores: Stores) -> None:
    channel, _ = await filled(stores, 4)
    small = AppendingQueues(stores.calls, limits=QueueLimits(size_bytes=4 * 230))
    fetched = await fetch(stores, channel)
    await stores.fetches.ack(channel, lease=fetched.lease, until=fetched.notifications[1].entry_id)

    await small.append(channel, events(4, 5))

    assert got(await after(stores, 60_000).fetch(channel, count=10)) == ["2", "3", "4", "5"]
