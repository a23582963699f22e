"""Bytes that accounts have stored: sums of several processes, recounts, and who is refused."""

import asyncio
from functools import partial
from typing import Any

import pytest

from shared.model.api_keys import new_id
from shared.model.errors import QuotaExceeded, StoreUnavailable
from shared.model.quotas import Quotas
from shared.model.sessions import Dialect, Session
from shared.publish.publisher import Publisher
from shared.publish.request import Posted
from shared.publish.stores import PublishStores
from shared.store import keyspace, recount, stored_bytes
from shared.store.quotas import AccountQuotas
from shared.store.recount import Recount
from shared.store.stored_bytes import Stored, StoredBytes
from shared.wire.events import Form
from tests.harness.waiting import wait_until
from tests.store.stores import EDGE, AppendingQueues, Stores, events

QUOTA = 100_000


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_bytes, "TICK_S", 0.01)
    monkeypatch.setattr(stored_bytes, "OVER_S", 0.05)
    monkeypatch.setattr(recount, "_PAUSE_S", 0.0)


def process(stores: Stores) -> StoredBytes:
    """The sums of one gateway."""
    return StoredBytes(stores.calls, quotas=AccountQuotas(stores.calls, quotas=Quotas(stored_bytes=QUOTA)))


def is_refused(sums: StoredBytes, account: str) -> bool:
    try:
        sums.check(account)
    except QuotaExceeded as error:
        return str(error.quota) == "stored_bytes"
    return False


def is_admitted(sums: StoredBytes, account: str) -> bool:
    return not is_refused(sums, account)


def field(stores: Stores, name: str) -> int:
    return int(stores.direct.hget(keyspace.usage(stores.account_id), name) or 0)


async def test_sums_of_several_gateways_are_added(stores: Stores) -> None:
    gateways = [process(stores) for _ in range(3)]
    for number, gateway in enumerate(gateways):
        for stored in Stored:
            gateway.add(stores.account_id, stored, 10 ** (number + 1))
        gateway.add(stores.account_id, Stored.DEVICE_TYPES, -1)

    await asyncio.gather(*(gateway.report() for gateway in gateways))

    assert field(stores, "queues") == 1110
    assert field(stores, "device_types") == 1107
    usage = await gateways[0]._usage(stores.account_id)
    assert (usage.stored, usage.quota) == (4 * 1110 - 3, QUOTA)


async def test_a_sum_that_has_drifted_refuses_nothing_and_is_corrected(stores: Stores) -> None:
    """As after a crash, or when everything that was published has been acknowledged."""
    channel, sums = await stores.channel(), process(stores)
    await stores.queues.append(channel, events(*range(10), size_bytes=100))
    stores.direct.hset(keyspace.usage(stores.account_id), "queues", 50 * QUOTA)

    sums.add(stores.account_id, Stored.QUEUES, 3280)
    await sums.report()

    await wait_until(lambda: field(stores, "recounted"))
    assert field(stores, "recounted") == field(stores, "queues") == 4400
    assert not is_refused(sums, stores.account_id)


async def test_an_account_over_its_quota_is_refused_until_it_has_room(stores: Stores) -> None:
    channel, other = await stores.channel(), new_id()
    here, there = process(stores), process(stores)
    await stores.queues.append(channel, events(*range(100), size_bytes=1000))
    here.add(stores.account_id, Stored.QUEUES, 2 * QUOTA)
    here.add(other, Stored.QUEUES, 100)
    assert not is_refused(here, stores.account_id), "before it was recounted"

    await here.report()

    await wait_until(lambda: is_refused(here, stores.account_id))
    assert not is_refused(here, other)
    there.add(stores.account_id, Stored.QUEUES, 1)
    await there.report()
    assert is_refused(there, stores.account_id), "each gateway refuses"
    await stores.delete_channel(channel)
    for gateway in (here, there):
        await wait_until(partial(is_admitted, gateway, stores.account_id))
    assert field(stores, "queues") <= 1


async def test_a_refusal_ends_without_a_recount(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that cannot recount, because Redis is away, refuses no account for long."""
    now = [1000.0]
    quotas = AccountQuotas(stores.calls, quotas=Quotas(stored_bytes=QUOTA))
    sums = StoredBytes(stores.calls, quotas=quotas, now_s=lambda: now[0])
    sums._refuse_or_not(stores.account_id, QUOTA, QUOTA, age_s=0)

    assert is_refused(sums, stores.account_id)
    now[0] += 11
    assert not is_refused(sums, stores.account_id)


async def test_the_quota_of_the_account_counts(stores: Stores) -> None:
    sums, names = process(stores), keyspace.account(stores.account_id)
    stores.direct.hset(names, mapping={"name": "small", "quota:stored_bytes": 10})
    sums.add_device_types(stores.account_id, 1)

    await sums.report()

    assert (await sums._usage(stores.account_id)).quota == 10


async def test_small_sums_wait_and_large_ones_do_not(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    """An event a second from each of many accounts must not cost a command each."""
    sums = process(stores)
    quiet, busy = new_id(), new_id()
    for _ in range(10):
        sums.add(quiet, Stored.QUEUES, 300)
    sums.add(busy, Stored.QUEUES, 2 * 1024 * 1024)

    await wait_until(lambda: stores.direct.exists(keyspace.usage(busy)))

    assert not stores.direct.exists(keyspace.usage(quiet))
    monkeypatch.setattr(stored_bytes, "_LONGEST_WAIT_S", 0.0)
    await wait_until(lambda: stores.direct.exists(keyspace.usage(quiet)))


async def test_a_report_that_fails_is_made_later(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    sums = process(stores)
    sums.add(stores.account_id, Stored.QUEUES, 300)

    async def fails(*_: object) -> None:
        raise StoreUnavailable(why="test")

    with monkeypatch.context() as broken:
        broken.setattr(sums._redis, "script", fails)
        with pytest.raises(StoreUnavailable):
            await sums.report()
    sums.add(stores.account_id, Stored.QUEUES, 1)
    await sums.report()

    assert field(stores, "queues") == 301


async def test_receipts_and_responses_end_by_themselves(stores: Stores) -> None:
    sums = process(stores)
    sums.add_receipts(stores.account_id, 1000)
    sums.add(stores.account_id, Stored.RESPONSES, 500)
    await sums.report()
    usage = keyspace.usage(stores.account_id)
    for kind in ("receipts", "responses"):
        [name] = [each for each in stores.direct.hkeys(usage) if each.startswith(kind.encode() + b":")]
        period = int(name.rpartition(b":")[2])
        stores.direct.hset(usage, f"{kind}:{period - 6}", 40)
        stores.direct.hset(usage, f"{kind}:{period - 7}", 10**9)

    assert (await sums._usage(stores.account_id)).stored == 1580
    assert len([name for name in stores.direct.hkeys(usage) if b":" in name]) == 4
    assert stores.direct.ttl(keyspace.has_receipts(stores.account_id)) > 3600


async def test_a_recount_finds_what_is_there(stores: Stores) -> None:
    """In queues, also those with acks; in sessions; in device types."""
    channels = [await stores.channel() for _ in range(3)]
    for channel, size_bytes in zip(channels, (2000, 100, 100), strict=True):
        await stores.queues.append(channel, events(*range(10), size_bytes=size_bytes))
    lease = await stores.claim(channels[0])
    await stores.queues.ack_until(lease, until=stores.entries(channels[0])[3])
    session = Session(
        id=new_id(),
        dialect=Dialect.KAZOO,
        account_id=stores.account_id,
        owner=f"{EDGE}/1",
        source="",
        destination="",
        connected_at_ms=1,
        bindings=(),
    )
    await stores.sessions.put(session, ())
    await stores.sessions.begin_append(session.id, stores.account_id, events(1, 2, size_bytes=10_000))
    await asyncio.gather(
        *stores.routing.learn_device_types(stores.account_id, {f"lamp-{n}": "light" for n in range(100)})
    )

    found = await Recount(stores.calls).run(stores.account_id)

    assert found == sum(field(stores, kind) for kind in ("queues", "sessions", "device_types"))
    assert field(stores, "queues") == 2 * 4400 + 6 * (2002 + 6 + 220)
    assert 20_000 < field(stores, "sessions") < 30_000
    assert 2000 < field(stores, "device_types") < 20_000


async def test_one_recount_runs_at_a_time(stores: Stores) -> None:
    counter = Recount(stores.calls)
    for _ in range(20):
        await stores.channel()

    found = await asyncio.gather(*(counter.run(stores.account_id) for _ in range(5)))

    assert sorted(found, key=str) == [0, None, None, None, None]
    assert await counter.run(stores.account_id) == 0, "the lock is free again"


async def test_what_is_added_during_a_recount_stays(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    sums, counter = process(stores), Recount(stores.calls)
    stores.direct.hset(keyspace.usage(stores.account_id), "queues", 99)
    count_sessions = counter._sessions

    async def add_meanwhile(account: str, *rest: Any) -> int:
        sums.add(account, Stored.QUEUES, 700)
        await sums.report()
        return await count_sessions(account, *rest)

    monkeypatch.setattr(counter, "_sessions", add_meanwhile)

    assert await counter.run(stores.account_id) == 0
    assert field(stores, "queues") == 700


async def test_a_recount_whose_lock_has_ended_changes_nothing(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process was stopped. Meanwhile another one has corrected the sums that it began with."""
    await stores.channel()
    stores.direct.hset(keyspace.usage(stores.account_id), "queues", 99)
    slow, other = Recount(stores.calls), Recount(stores.calls)
    count_queues = slow._queues

    async def stop_first(account: str, *rest: Any) -> int:
        stores.direct.delete(keyspace.recount(account))  # as when its TTL ends
        assert await other.run(account) == 0
        return await count_queues(account, *rest)

    monkeypatch.setattr(slow, "_queues", stop_first)

    assert await slow.run(stores.account_id) is None
    assert field(stores, "queues") == 0
    assert not stores.direct.exists(keyspace.recount(stores.account_id)), "it takes no lock either"


async def test_an_account_that_is_being_deleted_has_no_usage(stores: Stores) -> None:
    sums, account = process(stores), keyspace.account(stores.account_id)
    stores.direct.hset(account, mapping={"name": "x", "deleting": 1})
    sums.add(stores.account_id, Stored.QUEUES, 5000)

    await sums.report()

    assert not stores.direct.exists(keyspace.usage(stores.account_id))


async def test_used_is_recounted_when_the_last_recount_is_old(stores: Stores) -> None:
    sums = process(stores)
    stores.direct.hset(keyspace.usage(stores.account_id), "queues", 777)

    assert await sums.used(stores.account_id) == 0
    sums.add(stores.account_id, Stored.QUEUES, 5)
    assert await sums.used(stores.account_id) == 5


async def test_reading_a_queue_costs_the_same_with_any_length(stores: Stores) -> None:
    channel = await stores.channel()
    queues = AppendingQueues(stores.calls)
    await queues.append(channel, events(*range(2000)))

    stores.direct.config_resetstat()
    names = [*keyspace.channel_names(channel)[1:3], keyspace.attempts(channel)]
    await stores.calls.script("queue_size", names)

    stats = stores.direct.info("commandstats")
    assert {name: stats[name]["calls"] for name in ("cmdstat_xrange", "cmdstat_hmget")} == {
        "cmdstat_xrange": 1,
        "cmdstat_hmget": 1,
    }


async def test_counting_costs_a_publish_no_command(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_bytes, "TICK_S", 1.0)
    channel, sums = await stores.channel(), process(stores)
    counted = PublishStores(
        stores.routing, stores.queues, stores.sessions, stores.receipts, stored_bytes=sums
    )
    publisher = Publisher(counted)

    async def publish() -> None:
        event = events(1)[0]._replace(to=channel)
        posted = Posted(stores.account_id, [event], b"", Form.JSON, None)
        assert await publisher.publish(posted) == [1]

    await publish()
    stores.direct.config_resetstat()
    for _ in range(50):
        await publish()

    calls = stores.direct.info("commandstats")["cmdstat_evalsha"]["calls"]
    assert calls <= 52, "an append each, and a report or two"
    await sums.report()
    assert field(stores, "queues") > 51 * 4400
