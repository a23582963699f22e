"""Rates of accounts and API keys over several gateways, by a clock that the test sets."""

import asyncio
import logging
from collections.abc import Callable
from functools import partial

import fakeredis
import pytest

from shared.model.api_keys import new_id
from shared.model.errors import QuotaExceeded, StoreUnavailable
from shared.model.quotas import KeyQuotas, Quota, Quotas
from shared.publish import rates as module
from shared.publish.rates import Rates
from shared.redis.pipeline import RedisCommands
from shared.store.commands import commands_to
from shared.store.quotas import AccountQuotas
from tests.publish.publishing import GatedRedis, turns
from tests.store.stores import fake_backend

ACCOUNT, OTHER = new_id(), new_id()
KEY, OTHER_KEY = new_id(), new_id()
SMALL = Quotas(events_per_s=200, bytes_per_s=1_000_000, copies_per_s=100_000, burst_s=0.5)


class Clock:
    """Of Redis, and of every gateway."""

    def __init__(self) -> None:
        self.now_s = 1_700_000_000.0

    def time(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("fakeredis.commands_mixins.server_mixin.time", clock)
    return clock


class Gateway:
    """A process that publishes."""

    def __init__(
        self, server: fakeredis.FakeServer, clock: Clock, quotas: Quotas, key_quotas: KeyQuotas
    ) -> None:
        self.redis = GatedRedis(server=server)
        self.redis.pipelines = []
        calls: RedisCommands = commands_to(self.redis, scripts=fake_backend(server).scripts)
        self.quotas = AccountQuotas(calls, quotas=quotas, key_quotas=key_quotas, now_s=clock.time)
        self.rates = Rates(self.quotas, now_s=clock.time)
        self.rates.on_version(b"")

    async def publish(
        self, *, events: int = 1, account: str = ACCOUNT, key: str = KEY, size_bytes: int = 1, copies: int = 0
    ) -> QuotaExceeded | None:
        try:
            await self.rates.spend(account, key, events=events, size_bytes=size_bytes, copies=copies)
        except QuotaExceeded as refusal:
            return refusal
        return None

    def count_calls(self) -> int:
        """The number of commands since the last call."""
        count = sum(map(len, self.redis.pipelines))
        self.redis.pipelines.clear()
        return count


NewGateway = Callable[..., Gateway]


@pytest.fixture
def new_gateway(clock: Clock) -> NewGateway:
    server = fakeredis.FakeServer()

    def new(quotas: Quotas = SMALL, key_quotas: KeyQuotas | None = None) -> Gateway:
        return Gateway(server, clock, quotas, key_quotas or KeyQuotas())

    return new


async def flood(clock: Clock, *gateways: Gateway, for_s: float, every_s: float = 0.001) -> int:
    """Publishes through each gateway again and again; returns how many were accepted."""
    accepted = 0
    for _ in range(round(for_s / every_s)):
        for gateway in gateways:
            accepted += await gateway.publish() is None
        clock.now_s += every_s
    return accepted


def note(numbers: list[int], number: int, _: Exception | None) -> None:
    numbers.append(number)


@pytest.mark.parametrize("count", [1, 2, 4])
async def test_a_rate_is_exact_over_several_gateways(
    clock: Clock, new_gateway: NewGateway, count: int
) -> None:
    gateways = [new_gateway() for _ in range(count)]

    accepted = await flood(clock, *gateways, for_s=10)

    assert 2000 * 0.98 <= accepted <= 2000 * 1.10
    # Without the burst: the rate, the trickle, and what of the reserves the first flood has left.
    assert 1960 <= await flood(clock, *gateways, for_s=10) <= 2000 + count * (10 + 20)
    calls = sum(gateway.count_calls() for gateway in gateways)
    # At most one for each half of a reserve.
    assert calls <= count * 20 * (2 / module.BLOCK_S)


async def test_below_the_rate_nothing_is_refused_and_little_is_asked(
    clock: Clock, new_gateway: NewGateway
) -> None:
    gateways = [new_gateway() for _ in range(3)]

    assert await flood(clock, *gateways, for_s=10, every_s=1 / 60) == 3 * 600

    # A reserve is 20 tokens: one call for each ten.
    assert sum(gateway.count_calls() for gateway in gateways) <= 3 * 600 / 10 + 3


async def test_an_account_that_uses_little_costs_redis_nothing(clock: Clock, new_gateway: NewGateway) -> None:
    gateway = new_gateway(Quotas())
    await gateway.publish()
    gateway.count_calls()

    assert await flood(clock, gateway, for_s=20, every_s=0.01) == 2000

    assert gateway.count_calls() == 0


async def test_a_fraction_of_a_token_refuses_nothing(clock: Clock, new_gateway: NewGateway) -> None:
    """A reserve fills by fractions, and Redis gives whole tokens."""
    gateway = new_gateway(Quotas(events_per_s=1000, burst_s=10))
    await gateway.publish(events=100)

    for count in range(20):
        clock.now_s += 0.3 + count / 1000
        assert await gateway.publish(events=200) is None


async def test_a_refusal_names_the_quota_and_when_to_come_again(
    clock: Clock, new_gateway: NewGateway
) -> None:
    gateway = new_gateway(Quotas(events_per_s=10, burst_s=1))
    # Ten times the burst: it goes through once, and is paid for afterwards.
    assert await gateway.publish(events=100) is None

    refusal = await gateway.publish()

    assert refusal is not None
    assert refusal.quota is Quota.EVENTS_PER_S
    assert refusal.retry_after_s is not None
    assert 8.5 < refusal.retry_after_s < 9.5
    clock.now_s += refusal.retry_after_s + 0.01
    assert await gateway.publish() is None
    assert await gateway.publish(account=OTHER) is None


@pytest.mark.parametrize(
    ("quota", "used"),
    [
        (Quota.BYTES_PER_S, 2_000_000),
        (Quota.COPIES_PER_S, 200_000),
    ],
)
async def test_bytes_and_copies_have_rates_too(new_gateway: NewGateway, quota: Quota, used: int) -> None:
    gateway = new_gateway()
    assert await gateway.publish(size_bytes=used, copies=used) is None
    refusal = await gateway.publish(size_bytes=used, copies=used)
    assert refusal is not None
    assert refusal.quota is quota


async def test_an_api_key_has_its_own_rate_within_the_account(clock: Clock, new_gateway: NewGateway) -> None:
    gateways = [new_gateway(Quotas(), KeyQuotas(events_per_s=50)) for _ in range(2)]

    accepted = await flood(clock, *gateways, for_s=10)

    # A burst of 2 s.
    assert 600 * 0.98 <= accepted <= 600 * 1.05
    refusal = await gateways[0].publish(size_bytes=10_000_000)
    assert refusal is not None
    assert refusal.quota is Quota.KEY_EVENTS_PER_S
    assert await gateways[0].publish(key=OTHER_KEY) is None


async def test_a_change_counts_with_the_new_version(clock: Clock, new_gateway: NewGateway) -> None:
    gateway = new_gateway(Quotas())
    await flood(clock, gateway, for_s=1)
    await gateway.quotas.change(ACCOUNT, quotas={"events_per_s": 20, "burst_s": 1}, key_quotas={})
    gateway.rates.on_version(b"2")
    # The publish that meets the new version goes on beside the call.
    await gateway.publish()
    await turns()

    assert 190 <= await flood(clock, gateway, for_s=10) <= 220 * 1.02
    await gateway.quotas.change(ACCOUNT, quotas={"events_per_s": None}, key_quotas={"events_per_s": 5})
    gateway.rates.on_version(b"3")
    clock.now_s += 1
    await gateway.publish()
    await turns()
    assert 50 <= await flood(clock, gateway, for_s=10) <= 60
    assert await gateway.quotas.of(ACCOUNT) == (Quotas(burst_s=1), KeyQuotas(events_per_s=5))


async def test_publishes_that_wait_go_on_in_their_order(new_gateway: NewGateway) -> None:
    gateway, admitted = new_gateway(), list[int]()
    for number in range(300):
        assert not gateway.rates.admit(
            ACCOUNT, KEY, events=1, size_bytes=1, on_admitted=partial(note, admitted, number)
        )

    await turns(500)

    # The burst of 100 is given in reserves of 20; the others are refused, in their turn.
    assert admitted == list(range(300))


async def test_forgotten_accounts_ask_again_and_no_publish_is_left_waiting(
    monkeypatch: pytest.MonkeyPatch, new_gateway: NewGateway
) -> None:
    monkeypatch.setattr(module, "_MOST_METERS", 10)
    gateway, ended = new_gateway(SMALL, KeyQuotas(events_per_s=100)), list[int]()
    for number in range(1000):
        name = f"{number % 50:032}"
        if gateway.rates.admit(name, name, events=1, size_bytes=1, on_admitted=partial(note, ended, number)):
            ended.append(number)
        if number % 7 == 0:
            await turns(3)

    await turns(500)

    assert len(gateway.rates._accounts) == len(gateway.rates._keys) == 10
    assert sorted(ended) == list(range(1000))


async def test_without_redis_a_publish_fails_and_the_next_one_is_served(
    monkeypatch: pytest.MonkeyPatch, new_gateway: NewGateway
) -> None:
    gateway = new_gateway()
    send = GatedRedis.send
    monkeypatch.setattr(GatedRedis, "send", lambda *arguments: arguments[2](ConnectionError("away")))
    waiting = [asyncio.ensure_future(gateway.publish()) for _ in range(3)]
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(result).__mro__[2] for result in results] == [StoreUnavailable] * 3

    monkeypatch.setattr(GatedRedis, "send", send)
    assert await gateway.publish() is None


async def test_a_refusal_is_logged_once_a_minute(
    clock: Clock, new_gateway: NewGateway, caplog: pytest.LogCaptureFixture
) -> None:
    gateway = new_gateway()
    with caplog.at_level(logging.WARNING):
        await flood(clock, gateway, for_s=30)
        assert [record.message for record in caplog.records] == ["quota.exceeded"]
        await flood(clock, gateway, for_s=60)
    assert [vars(record)["facts"] for record in caplog.records] == [
        {"account": ACCOUNT, "quota": "events_per_s"}
    ] * 2
