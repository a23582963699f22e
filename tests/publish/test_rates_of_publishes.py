"""A publish that a rate refuses has appended nothing, and one that it admits costs no further round trip."""

import asyncio

import pytest

from shared.model.errors import QuotaExceeded
from shared.model.quotas import Quota, Quotas
from shared.publish.publisher import Publisher
from shared.publish.rates import Rates
from shared.publish.stores import PublishStores
from shared.store.quotas import AccountQuotas
from tests.publish.conftest import NewGateway
from tests.publish.publishing import Gateway, bound_channel, event, queued
from tests.store.stores import NOW_MS, Stores


def with_rates(gateway: Gateway, quotas: Quotas) -> Gateway:
    s = gateway.stores
    stores = PublishStores(
        s.routing, s.queues, s.sessions, s.receipts, Rates(AccountQuotas(s.calls, quotas=quotas))
    )
    gateway.publisher = Publisher(stores, now_ms=lambda: NOW_MS)
    return gateway


@pytest.fixture
def gateway(new_gateway: NewGateway) -> Gateway:
    """With rates: bursts are 2,000 events, and 4 copies."""
    return with_rates(new_gateway(), Quotas(events_per_s=1000, copies_per_s=2))


async def refused(gateway: Gateway, *numbers: int) -> Quota:
    with pytest.raises(QuotaExceeded) as error:
        await gateway.publish(*map(event, numbers))
    assert error.value.retry_after_s is not None
    return error.value.quota


@pytest.mark.parametrize("is_cold", [False, True], ids=["by the table in memory", "by a repair"])
async def test_copies_are_refused_before_any_append(gateway: Gateway, stores: Stores, is_cold: bool) -> None:
    channels = [await bound_channel(stores) for _ in range(3)]
    # 15 copies, where the bucket of 4 is full: a debt.
    assert await gateway.publish(*map(event, range(5))) == [3] * 5
    if is_cold:
        gateway.stores.routing.tables._small.drop(stores.account_id)

    assert await refused(gateway, 6) is Quota.COPIES_PER_S

    assert [len(queued(stores, channel)) for channel in channels] == [5, 5, 5]
    # Events without copies are free.
    assert await gateway.publish(event(7, topic="unused")) == [0]
    assert await gateway.is_idle()


async def test_a_publish_in_several_turns_is_refused_too(gateway: Gateway, stores: Stores) -> None:
    channel = await bound_channel(stores)
    assert await gateway.publish(*map(event, range(300))) == [1] * 300

    assert await refused(gateway, *range(300, 600)) is Quota.COPIES_PER_S

    assert len(queued(stores, channel)) == 300
    assert await gateway.is_idle()


async def test_events_are_refused_in_the_callers_turn(new_gateway: NewGateway) -> None:
    # So slow that a busy machine admits none meanwhile.
    gateway = with_rates(new_gateway(), Quotas(events_per_s=10))
    await gateway.publish(*(event(number, topic="unused") for number in range(5000)))
    gateway.count_pipelines()
    results = await asyncio.gather(
        *(gateway.publish(event(number, topic="unused")) for number in range(50)), return_exceptions=True
    )

    assert [getattr(result, "quota", result) for result in results] == [Quota.EVENTS_PER_S] * 50
    # One of them asked.
    assert gateway.count_pipelines() <= 1
    assert await gateway.is_idle()


async def test_an_admitted_publish_is_one_round_trip(gateway: Gateway) -> None:
    for number in range(3):
        await gateway.publish(event(number, topic="unused"))
    gateway.count_pipelines()

    for number in range(30):
        await gateway.publish(event(number, topic="unused"))

    assert gateway.count_pipelines() == 30
