"""Buckets, overrides and counts of quotas in Redis."""

from typing import Any

import orjson
import pytest

from shared.model.bindings import Source, Topic
from shared.model.errors import QuotaExceeded
from shared.model.quotas import KeyQuotas, Quota, Quotas
from shared.model.sessions import SessionBinding
from shared.store import keyspace
from shared.store.quotas import AccountQuotas, Ask, Leased, leased, limits_keys
from shared.wire.sessions import encode_patterns
from tests.store.stores import Stores

USUAL = Quotas(events_per_s=1000, bytes_per_s=10_000, copies_per_s=100)


@pytest.fixture
def quotas(stores: Stores) -> AccountQuotas:
    return AccountQuotas(stores.calls, quotas=USUAL)


def taken(stores: Stores, level: float, *, ago_s: float) -> None:
    """The bucket of events has had this level, by Redis' clock."""
    seconds, micros = stores.direct.time()
    at_ms = round(seconds * 1000 + micros / 1000 - ago_s * 1000)
    stores.direct.hset(keyspace.rates(stores.account_id), "events", f"{level:.3f} {at_ms}")


async def ask(quotas: AccountQuotas, stores: Stores, *, needed: float = 0, wanted: float = 0) -> Leased:
    """Of events."""
    reply = await quotas.lease(stores.account_id, (Ask(needed, max(needed, wanted)), Ask(), Ask()))
    return leased(reply)[0]


async def test_a_full_bucket_gives_what_is_needed_and_else_a_tenth_of_a_second(
    quotas: AccountQuotas, stores: Stores
) -> None:
    first = await ask(quotas, stores, wanted=500)
    assert first == Leased(rate=1000, burst_s=2, given=100, left=1900)
    second = await ask(quotas, stores, needed=500)
    assert second.given == 500
    assert 1400 <= second.left <= 2000
    name = keyspace.rates(stores.account_id)
    assert 0 < stores.direct.pttl(name) <= 3000


async def test_a_bucket_fills_by_redis_clock(quotas: AccountQuotas, stores: Stores) -> None:
    taken(stores, 0, ago_s=0.5)
    assert 490 <= (await ask(quotas, stores)).left <= 1000
    taken(stores, 0, ago_s=60)
    assert (await ask(quotas, stores)).left == 2000
    # The clock of a new primary is behind: nothing is added, and nothing is taken.
    taken(stores, 10, ago_s=-3600)
    assert (await ask(quotas, stores)).left == 10


async def test_a_request_beyond_the_bucket_passes_at_half_full(quotas: AccountQuotas, stores: Stores) -> None:
    taken(stores, 100, ago_s=0)
    refused = await ask(quotas, stores, needed=9000)
    assert refused.given == 0
    taken(stores, 1000, ago_s=0)

    given = await ask(quotas, stores, needed=9000)

    assert given.given == 9000
    assert -8000 <= given.left <= -7000
    assert (await ask(quotas, stores, wanted=1)).given == 0
    assert stores.direct.pttl(keyspace.rates(stores.account_id)) > 9000


async def test_overrides_hold_at_once_and_end_with_none(quotas: AccountQuotas, stores: Stores) -> None:
    account, every = stores.account_id, keyspace.routing(keyspace.EVERY)
    await quotas.change(account, quotas={"events_per_s": 10, "burst_s": 0.5}, key_quotas={})
    version = stores.direct.hget(every, "quotas")
    assert version
    assert await ask(quotas, stores, wanted=100) == Leased(rate=10, burst_s=0.5, given=1, left=4)

    await quotas.change(account, quotas={"events_per_s": None}, key_quotas={"bytes_per_s": 7})
    assert stores.direct.hget(every, "quotas") != version
    assert await quotas.of(account) == (
        Quotas(events_per_s=1000, bytes_per_s=10_000, copies_per_s=100, burst_s=0.5),
        KeyQuotas(bytes_per_s=7),
    )
    reply = await quotas.lease_for_key(account, "0" * 32, (Ask(1, 1), Ask(1, 1)))
    assert [(bucket.rate, bucket.given) for bucket in leased(reply)] == [(None, 0), (7, 1)]
    assert limits_keys(reply)
    assert stores.direct.pttl(keyspace.rates_of_key(account, "0" * 32)) > 0
    await quotas.change(account, quotas={"burst_s": None}, key_quotas={"bytes_per_s": None})
    assert not stores.direct.exists(keyspace.account(account))


async def test_channels_and_bindings_are_counted_as_they_change(
    quotas: AccountQuotas, stores: Stores
) -> None:
    routing, account = stores.routing, stores.account_id
    # Text that looks like the space between two bindings may only count too much.
    awkward: list[Any] = [{"endpoint-name": "},{"}, {"endpoint-name": '"},{"'}]

    async def counted() -> tuple[int, int]:
        counts = await quotas.counts(account)
        return counts[Quota.CHANNELS], counts[Quota.BINDINGS]

    keys = [(await stores.api_key())[0] for _ in range(3)]
    await stores.make_channel(keys[0].id)
    assert await counted() == (3, 0)
    first, second = keys[0].id, keys[1].id
    await routing.put_bindings(account, first, orjson.dumps(["a", 'b","c', "d"]), Source.TOPICS)
    assert await counted() == (3, 3)
    await routing.put_bindings(account, first, orjson.dumps(["a"]), Source.TOPICS)
    for line in ("d\t/1\n", "d\t/2\n", "d\t/2\n", "e\t/1\n"):
        await routing.add_line(account, second, line, source=Source.RESOURCES, limit=10)
    assert await counted() == (3, 4)
    await routing.drop_lines(account, second, "d\t", source=Source.RESOURCES)
    assert await counted() == (3, 2)
    session = encode_patterns([SessionBinding(account, name, Topic(name)) for name in ("x", "y")])
    await routing.put_session(account, "5" * 32, session)
    await routing.put_session(account, "5" * 32, session)
    assert await counted() == (3, 4)
    await routing.put_bindings(account, second, orjson.dumps(awkward))
    assert (await counted())[1] >= 6

    await routing.drop_session(account, "5" * 32)
    await routing.drop_session(account, "5" * 32)
    await routing.drop_bindings(account, second)
    assert await counted() == (3, 2)
    for key in keys:
        await stores.api_keys.revoke(key)
        await stores.api_keys.revoke(key)
    assert await counted() == (0, 0)
    assert not stores.direct.exists(keyspace.counts(account))


async def test_a_count_at_its_quota_refuses_more(quotas: AccountQuotas, stores: Stores) -> None:
    await stores.api_key()
    await stores.api_key()
    await quotas.change(stores.account_id, quotas={"channels": 3}, key_quotas={})

    await quotas.check(stores.account_id, Quota.CHANNELS)
    with pytest.raises(QuotaExceeded) as refusal:
        await quotas.check(stores.account_id, Quota.CHANNELS, more=2)

    assert (refusal.value.quota, refusal.value.retry_after_s) == (Quota.CHANNELS, None)
