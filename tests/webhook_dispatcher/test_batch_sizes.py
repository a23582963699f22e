"""Batches that a receiver refuses as too large, or does not take in time, over any number of attempts."""

import itertools
import json
import logging
from collections.abc import Callable

import pytest

from services.webhook_dispatcher.outcomes import Outcome
from shared import telemetry
from shared.outbound.client import Attempt
from shared.store import keyspace
from tests.store.stores import RedisClock, Stores, events
from tests.webhook_dispatcher.conftest import (
    INSTANCE,
    OTHER_INSTANCE,
    URL,
    Attempts,
    FakeOutbound,
    FakeRetries,
    Request,
    claim,
    register,
    webhook,
)

TIMED_OUT = Attempt(None, "timed-out", 20_000, was_reached=True)
NOT_REACHED = Attempt(None, "timed-out", 20_000)
TOO_LARGE = Attempt(413, "", 1)
ACCEPTED = Attempt(200, "", 1)
DAY_MS = 24 * 3600 * 1000

Answer = Callable[[Request], Attempt]


class Driver:
    """Makes one attempt after the other on one channel, each by another dispatcher, when it is due."""

    def __init__(self, stores: Stores, deliveries: Attempts, retries: FakeRetries, clock: RedisClock) -> None:
        self._stores, self._deliveries, self._retries, self._clock = stores, deliveries, retries, clock
        self._attempts = 0

    async def attempt(self, channel: str) -> Outcome:
        self._attempts += 1
        instance = (INSTANCE, OTHER_INSTANCE)[self._attempts % 2]
        lease = await claim(self._stores, channel, f"{instance}/{self._attempts}")
        planned = len(self._retries.scheduled)
        outcome = await self._deliveries.make(lease)
        await self._stores.leases.release(lease)
        if len(self._retries.scheduled) > planned:
            self._clock.ahead_ms = self._retries.scheduled[-1][2]
        return outcome

    async def drain(self, channel: str) -> None:
        """Until the queue is empty."""
        for _ in range(200):
            if await self.attempt(channel) is Outcome.NOTHING_TO_SEND:
                return
        raise AssertionError(f"{len(self._stores.entries(channel))} are left after 200 attempts")


@pytest.fixture
def driver(stores: Stores, deliveries: Attempts, retries: FakeRetries, clock: RedisClock) -> Driver:
    deliveries._settings = deliveries._settings.model_copy(update={"webhook_expiry_s": DAY_MS / 1000})
    return Driver(stores, deliveries, retries, clock)


def numbers(request: Request) -> list[int]:
    return [int(item["id"]) for item in json.loads(request.body)["events"]]


def limited(limit_bytes: int) -> Answer:
    return lambda request: ACCEPTED if len(request.body) <= limit_bytes else TOO_LARGE


def assert_ids_name_batches(outbound: FakeOutbound) -> None:
    """Each id stands for one body, and each body for one id."""
    pairs = {(request.webhook_id, request.body) for request in outbound.requests}
    assert len(pairs) == len({webhook_id for webhook_id, _ in pairs}) == len({body for _, body in pairs})


def accepted_numbers(outbound: FakeOutbound, answer: Answer) -> list[int]:
    return [n for request in outbound.requests if answer(request).accepted for n in numbers(request)]


def field(stores: Stores, channel: str, name: str) -> bytes | None:
    value: bytes | None = stores.direct.hget(keyspace.channel(channel), name)
    return value


@pytest.mark.parametrize(
    ("attempt", "sizes"),
    [
        # By bytes: a message has some of its own.
        (TOO_LARGE, [8, 3, 1, 1]),
        (TIMED_OUT, [8, 8, 4, 4, 2, 2, 1, 1]),
        (NOT_REACHED, [8] * 6),
        (Attempt(None, "closed", 1, was_reached=True), [8] * 6),
        *((Attempt(status, "", 1), [8] * 6) for status in (201, 301, 400, 404, 408, 414, 429, 500, 503)),
    ],
    ids=str,
)
async def test_only_413_and_time_outs_make_a_batch_smaller(
    stores: Stores, driver: Driver, outbound: FakeOutbound, attempt: Attempt, sizes: list[int]
) -> None:
    channel = await webhook(stores, queued=8)
    outbound.answer = lambda _: attempt

    for _ in sizes:
        assert await driver.attempt(channel) is Outcome.RELEASED

    assert [len(numbers(request)) for request in outbound.requests] == sizes
    assert_ids_name_batches(outbound)
    assert len({request.webhook_id for request in outbound.requests}) == len(set(sizes))
    assert len(stores.entries(channel)) == 8


async def test_time_outs_must_follow_each_other(
    stores: Stores, driver: Driver, outbound: FakeOutbound
) -> None:
    channel = await webhook(stores, queued=8)
    for attempt in (TIMED_OUT, Attempt(503, "", 1), TIMED_OUT, Attempt(503, "", 1)):
        outbound.answer = lambda _, given=attempt: given
        await driver.attempt(channel)

    assert {len(numbers(request)) for request in outbound.requests} == {8}


async def test_everything_arrives_once_and_later_bodies_keep_to_the_limit(
    stores: Stores, driver: Driver, outbound: FakeOutbound
) -> None:
    channel = await webhook(stores)
    await stores.queues.append(channel, events(*range(100), size_bytes=3000))
    outbound.answer = limited(100_000)

    await driver.drain(channel)
    await stores.queues.append(channel, events(*range(100, 200), size_bytes=3000))
    await driver.drain(channel)

    assert accepted_numbers(outbound, outbound.answer) == list(range(200))
    sizes = [len(request.body) for request in outbound.requests]
    assert [size > 100_000 for size in sizes] == [True, True, *[False] * (len(sizes) - 2)]
    assert_ids_name_batches(outbound)


async def test_the_next_attempt_of_a_smaller_batch_comes_after_a_second(
    stores: Stores, driver: Driver, outbound: FakeOutbound, retries: FakeRetries
) -> None:
    """Also after a long outage: the receiver is back."""
    channel = await webhook(stores, queued=100)
    outbound.status = 503
    for _ in range(9):
        await driver.attempt(channel)
    outbound.answer = limited(1)
    planned = len(retries.scheduled)
    for _ in range(10):
        await driver.attempt(channel)

    times = [at_ms for _, _, at_ms in retries.scheduled[planned - 1 :]]
    # 100 become 1 in six steps. Then the single one is refused three times, and the next one once.
    delays = [after - before for before, after in itertools.pairwise(times)]
    assert delays == [1000] * 7 + [2000, 4000, 8000]


async def test_a_single_notification_is_dropped_after_three_refusals(
    stores: Stores,
    driver: Driver,
    outbound: FakeOutbound,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    dropped: list[tuple[int, dict[str, str]]] = []
    monkeypatch.setattr(telemetry.dropped, "add", lambda count, labels: dropped.append((count, labels)))
    channel = await webhook(stores)
    await stores.queues.append(channel, events(*range(10), size_bytes=1000))
    await stores.queues.append(channel, events(10, size_bytes=50_000))
    await stores.queues.append(channel, events(*range(11, 20), size_bytes=1000))
    outbound.answer = limited(30_000)

    await driver.drain(channel)

    alone = [request for request in outbound.requests if numbers(request) == [10]]
    assert len(alone) == 3
    assert len({request.webhook_id for request in alone}) == 1
    assert accepted_numbers(outbound, outbound.answer) == [n for n in range(20) if n != 10]
    assert dropped == [(1, {"reason": "too-long-for-webhook"})]
    assert field(stores, channel, "dropped") == b"1"
    [record] = [record for record in caplog.records if record.msg == "notification.dropped"]
    assert (record.levelno, vars(record)["facts"]) == (logging.WARNING, {"channel": channel, "event": "10"})
    assert field(stores, channel, "failing_since_ms") is None
    assert_ids_name_batches(outbound)


@pytest.mark.long
async def test_a_receiver_that_refuses_everything_is_asked_ever_less_and_then_ends(
    stores: Stores, driver: Driver, outbound: FakeOutbound, clock: RedisClock, retries: FakeRetries
) -> None:
    channel = await webhook(stores, queued=1000)
    outbound.answer = limited(1)
    while stores.direct.exists(keyspace.channel(channel)):
        await driver.attempt(channel)

    assert clock.ahead_ms >= DAY_MS - 120_000
    assert len(outbound.requests) < DAY_MS // 120_000 + 20
    first_hour = [at_ms for _, _, at_ms in retries.scheduled if at_ms < 3600_000]
    assert len(first_hour) < 50


async def test_refusals_of_one_after_the_other_do_not_restart_the_backoff(
    stores: Stores, driver: Driver, outbound: FakeOutbound, retries: FakeRetries
) -> None:
    """A receiver that refuses everything for a while must not lose a notification every few seconds."""
    channel = await webhook(stores, queued=1)
    await driver.attempt(channel)
    await stores.queued(channel, 3)
    outbound.answer = limited(1)
    while len(stores.entries(channel)) > 1:
        await driver.attempt(channel)

    times = [0, *(at_ms for _, _, at_ms in retries.scheduled)]
    delays = [after - before for before, after in itertools.pairwise(times)]
    assert delays == [ms * 1000 for ms in (1, 1, 2, 4, 8, 16, 32)]


async def test_a_receiver_that_was_slow_in_an_outage_does_not_stay_slow(
    stores: Stores, driver: Driver, outbound: FakeOutbound
) -> None:
    channel = await webhook(stores, queued=200)
    outbound.answer = lambda _: TIMED_OUT
    while field(stores, channel, "batch_limit") != b"1":
        await driver.attempt(channel)
    outbound.answer = lambda _: ACCEPTED
    outbound.requests.clear()

    await driver.drain(channel)

    assert [len(numbers(request)) for request in outbound.requests] == [1, 2, 4, 8, 16, 32, 64, 73]
    assert field(stores, channel, "batch_limit") is None


async def test_a_receiver_that_cannot_take_many_in_time_gets_few_without_further_time_outs(
    stores: Stores, driver: Driver, outbound: FakeOutbound
) -> None:
    channel = await webhook(stores, queued=80)
    outbound.answer = lambda request: ACCEPTED if len(numbers(request)) <= 10 else TIMED_OUT

    await driver.drain(channel)

    sizes = [len(numbers(request)) for request in outbound.requests]
    assert sizes == [80, 80, 40, 40, 20, 20, 10, 20, 20, *[10] * 7]
    assert accepted_numbers(outbound, outbound.answer) == list(range(80))
    assert_ids_name_batches(outbound)


async def test_a_receiver_that_needs_most_of_the_time_gets_no_larger_batch(
    stores: Stores, driver: Driver, outbound: FakeOutbound
) -> None:
    """A second for each notification, of 20 in all: twice as many of these would be late."""
    channel = await webhook(stores, queued=80)

    def answer(request: Request) -> Attempt:
        took_ms = len(numbers(request)) * 1000
        return Attempt(200, "", took_ms) if took_ms < 20_000 else TIMED_OUT

    outbound.answer = answer
    await driver.drain(channel)

    sizes = [len(numbers(request)) for request in outbound.requests]
    assert sizes == [80, 80, 40, 40, 20, 20, *[10] * 8]


async def test_a_new_url_forgets_the_limits(
    stores: Stores, driver: Driver, deliveries: Attempts, outbound: FakeOutbound
) -> None:
    channel = await webhook(stores)
    await stores.queues.append(channel, events(*range(40), size_bytes=3000))
    outbound.answer = limited(40_000)
    while not accepted_numbers(outbound, outbound.answer):
        await driver.attempt(channel)
    new_url = f"{URL}/new"
    await register(stores, channel, new_url)
    outbound.answer = lambda _: ACCEPTED
    outbound.requests.clear()

    lease = await claim(stores, channel)
    while await deliveries.make(lease, new_url) is Outcome.ACCEPTED:
        pass

    [request] = outbound.requests
    assert len(request.body) > 40_000


async def test_receipts_of_batches_that_are_made_smaller(
    stores: Stores, driver: Driver, outbound: FakeOutbound
) -> None:
    channel = await webhook(stores)
    await stores.queues.append(
        channel, [event._replace(receipt=True) for event in events(*range(300), size_bytes=1000)]
    )
    await stores.queues.append(
        channel, [event._replace(receipt=True) for event in events(300, size_bytes=60_000)]
    )
    outbound.answer = limited(40_000)

    await driver.drain(channel)

    assert accepted_numbers(outbound, outbound.answer) == list(range(300))
    receipts = [stores.direct.hgetall(keyspace.receipt(channel, str(n))) for n in range(301)]
    assert all(b"acked" in each and b"dropped" not in each for each in receipts[:300])
    assert receipts[300][b"reason"] == b"too-long-for-webhook"
    assert b"acked" not in receipts[300]
    assert not stores.direct.exists(keyspace.receipts(channel))
