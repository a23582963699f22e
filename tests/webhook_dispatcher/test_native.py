"""Attempts of native webhooks: what they send, what follows from the answer, and notices to accounts."""

import logging
from typing import Any

import orjson
import pytest

from services.webhook_dispatcher import native_failures
from services.webhook_dispatcher.dispatcher import Dispatcher
from services.webhook_dispatcher.outcomes import Outcome
from shared.model.channels import Kind
from shared.model.errors import StoreUnavailable
from shared.model.events import Event
from shared.model.webhooks import Format, Method, WebhookPolicy
from shared.outbound.client import Attempt
from shared.store import keyspace
from tests.harness.waiting import wait_until
from tests.store.native import HOOK, create
from tests.store.stores import RedisClock, Stores
from tests.webhook_dispatcher.conftest import (
    Attempts,
    FakeOutbound,
    FakeRetries,
    Request,
    claim,
    make_dispatcher,
)

DAY_MS = 24 * 3600 * 1000
POLICY = WebhookPolicy(backoff_s=(10, 20), give_up_after_s=60, disable_after_s=600)


@pytest.fixture(autouse=True)
def no_jitter(clock: RedisClock, monkeypatch: pytest.MonkeyPatch) -> None:
    clock.ahead_ms = 0
    monkeypatch.setattr(native_failures, "now_ms", clock)
    delay_ms = WebhookPolicy.delay_ms
    monkeypatch.setattr(WebhookPolicy, "delay_ms", lambda self, n: delay_ms(self, n, chance=lambda: 0.0))


async def native(stores: Stores, policy: WebhookPolicy = POLICY, *, queued: int = 1) -> str:
    channel = await create(stores, kind=Kind.WEBHOOK, policy=policy, bindings=b"[]")
    await stores.queued(channel, queued)
    return channel


async def attempt(stores: Stores, deliveries: Attempts, channel: str) -> Outcome:
    lease = await claim(stores, channel)
    outcome = await deliveries.make(lease, HOOK.url, account=stores.account_id)
    await stores.leases.release(lease)
    return outcome


async def watching(stores: Stores) -> str:
    return await create(stores, kind=Kind.PULL, bindings=b'["system.#"]')


def queued_events(stores: Stores, channel: str) -> list[tuple[str, dict[str, Any]]]:
    """What a channel has in its queue."""
    entries = stores.direct.xrange(keyspace.queue(channel))
    return [(fields[b"topic"].decode(), orjson.loads(fields[b"data"])) for _, fields in entries]


@pytest.mark.parametrize(
    ("policy", "media_type", "sizes"),
    [
        (WebhookPolicy(timeout_s=3), "application/cloudevents+json", [1, 1, 1]),
        (
            WebhookPolicy(format=Format.CLOUDEVENTS_BATCH, method=Method.PUT, max_batch=2),
            "application/cloudevents-batch+json",
            [2, 1],
        ),
        (WebhookPolicy(format=Format.PELION), "application/json", [3]),
    ],
)
async def test_requests_are_as_the_policy_says(
    stores: Stores,
    deliveries: Attempts,
    outbound: FakeOutbound,
    policy: WebhookPolicy,
    media_type: str,
    sizes: list[int],
) -> None:
    channel = await native(stores, policy, queued=3)
    while await attempt(stores, deliveries, channel) is Outcome.ACCEPTED:
        pass

    found = []
    for request in outbound.requests:
        assert (request.method, request.timeout_s) == (policy.method, policy.timeout_s)
        assert request.headers["Content-Type"] == media_type
        assert request.headers["x"] == "y"
        body = orjson.loads(request.body)
        events = body if isinstance(body, list) else body.get("events", [body])
        found.append(len(events))
    assert found == sizes


@pytest.mark.parametrize("status", [201, 202, 299])
async def test_any_2xx_is_accepted_also_in_the_log(
    stores: Stores,
    deliveries: Attempts,
    outbound: FakeOutbound,
    caplog: pytest.LogCaptureFixture,
    status: int,
) -> None:
    caplog.set_level(logging.DEBUG)
    outbound.status = status
    channel = await native(stores)

    assert await attempt(stores, deliveries, channel) is Outcome.EMPTIED

    assert stores.entries(channel) == []
    [record] = [record for record in caplog.records if record.msg == "delivery.attempted"]
    assert vars(record)["facts"]["outcome"] == "accepted"


@pytest.mark.parametrize(
    ("status", "retry_after", "failed_before", "wait_ms"),
    [
        (500, "", 0, 10_000),
        (500, "", 1, 20_000),
        (500, "", 7, 20_000),
        (500, "300", 0, 10_000),
        (429, "", 0, 10_000),
        (429, "300", 0, 300_000),
        (503, "12", 5, 12_000),
        (503, "Fri, 31 Dec 9999 23:59:59 GMT", 0, DAY_MS),
        (503, "999999", 0, DAY_MS),
        (429, "0", 0, 10_000),
        (429, "soon", 1, 20_000),
        (308, "300", 0, 10_000),
    ],
)
async def test_the_next_attempt_is_when_the_backoff_or_the_receiver_says(
    stores: Stores,
    deliveries: Attempts,
    outbound: FakeOutbound,
    retries: FakeRetries,
    status: int,
    retry_after: str,
    failed_before: int,
    wait_ms: int,
) -> None:
    channel = await native(stores)
    stores.direct.hset(keyspace.channel(channel), "failed_attempts", failed_before)
    outbound.answer = lambda _: Attempt(status, "", 5, was_reached=True, retry_after=retry_after)

    assert await attempt(stores, deliveries, channel) is Outcome.RELEASED

    assert retries.scheduled == [(channel, failed_before + 1, wait_ms)]


async def test_a_redirect_is_recorded_in_words(
    stores: Stores, deliveries: Attempts, outbound: FakeOutbound
) -> None:
    channel = await native(stores)
    outbound.answer = lambda _: Attempt(301, "", 5, was_reached=True, location="https://new.example/")

    await attempt(stores, deliveries, channel)

    [(_, recorded)] = stores.direct.xrange(keyspace.attempts(channel))
    assert "redirect to https://new.example/" in orjson.loads(recorded[b"facts"])["detail"]


async def test_an_account_gets_notices_of_what_was_given_up_and_of_the_recovery(
    stores: Stores, deliveries: Attempts, outbound: FakeOutbound, clock: RedisClock
) -> None:
    watcher, channel = await watching(stores), await native(stores, queued=2)
    outbound.status = 500
    for clock.ahead_ms in (0, 30_000, 61_000):
        await attempt(stores, deliveries, channel)

    assert len(stores.entries(channel)) == 1
    [(topic, data)] = queued_events(stores, watcher)
    assert topic == "system.webhook.exhausted"
    assert (data["channel"], data["count"], data["event_ids"]) == (f"ch_{channel}", 1, ["0"])
    assert not stores.direct.hexists(keyspace.channel(channel), "notices")
    outbound.status = 200
    clock.ahead_ms = 90_000
    assert await attempt(stores, deliveries, channel) is Outcome.EMPTIED
    assert [topic for topic, _ in queued_events(stores, watcher)][1:] == ["system.webhook.recovered"]


async def test_what_was_refused_as_too_large_makes_a_notice(
    stores: Stores, deliveries: Attempts, outbound: FakeOutbound, clock: RedisClock
) -> None:
    watcher, channel = await watching(stores), await native(stores, queued=2)
    outbound.status = 413
    for clock.ahead_ms in (0, 11_000, 32_000):
        await attempt(stores, deliveries, channel)

    assert len(stores.entries(channel)) == 1
    [(topic, data)] = queued_events(stores, watcher)
    assert (topic, data["reason"]) == ("system.webhook.exhausted", "too-large")


async def test_our_own_events_that_are_given_up_make_no_notice(
    stores: Stores, deliveries: Attempts, outbound: FakeOutbound, clock: RedisClock
) -> None:
    watcher = await watching(stores)
    channel = await native(stores, WebhookPolicy(format=Format.PELION, give_up_after_s=60), queued=0)
    own = Event("s", "system.webhook.disabled", b"1")
    outbound.status = 500
    for begin_ms, events in ((0, [own]), (200_000, [own, own._replace(id="e", topic="system")])):
        await stores.queues.append(channel, events)
        for clock.ahead_ms in (begin_ms, begin_ms + 30_000, begin_ms + 61_000):
            await attempt(stores, deliveries, channel)
        assert stores.entries(channel) == []

    assert queued_events(stores, watcher) == []
    # Beside others they are not counted.
    await stores.queues.append(channel, [own, own._replace(id="mine", topic="orders")])
    for clock.ahead_ms in (400_000, 430_000, 461_000):
        await attempt(stores, deliveries, channel)
    [(_, data)] = queued_events(stores, watcher)
    assert (data["count"], data["event_ids"]) == (1, ["mine"])


async def test_a_notice_outlives_the_dispatcher_that_could_not_publish_it(
    stores: Stores,
    deliveries: Attempts,
    outbound: FakeOutbound,
    clock: RedisClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watcher, channel = await watching(stores), await native(stores)
    outbound.status = 410

    async def fail(*_: object, **__: object) -> None:
        raise StoreUnavailable(why="a test")

    with monkeypatch.context() as away:
        away.setattr("shared.publish.publisher.Publisher.publish", fail)
        assert await attempt(stores, deliveries, channel) is Outcome.RELEASED
    assert queued_events(stores, watcher) == []
    requests = len(outbound.requests)

    sweeping: Dispatcher = make_dispatcher(stores, deliveries, outbound, clock, sweep_s=0.05)
    async with sweeping.running():
        await wait_until(lambda: queued_events(stores, watcher) != [])
        await wait_until(lambda: not stores.direct.hexists(keyspace.channel(channel), "notices"))

    assert [topic for topic, _ in queued_events(stores, watcher)] == ["system.webhook.disabled"]
    assert len(outbound.requests) == requests, "a disabled webhook gets nothing"


async def test_a_notice_that_is_published_twice_has_one_id(
    stores: Stores, deliveries: Attempts, outbound: FakeOutbound, monkeypatch: pytest.MonkeyPatch
) -> None:
    watcher, channel = await watching(stores), await native(stores)
    outbound.status = 410

    async def die(*_: object) -> None:
        raise StoreUnavailable(why="a test")

    with monkeypatch.context() as dying:
        dying.setattr("shared.store.webhook_notices.WebhookNotices.remove", die)
        await attempt(stores, deliveries, channel)
    await deliveries._notices.publish(channel)

    entries = stores.direct.xrange(keyspace.queue(watcher))
    assert len(entries) == 2
    assert len({fields[b"id"] for _, fields in entries}) == 1


async def test_notices_that_have_one_number_have_two_ids(
    stores: Stores, deliveries: Attempts, outbound: FakeOutbound, clock: RedisClock
) -> None:
    """A Redis that lost its last writes counts again from before: receivers drop doubles by the id."""
    watcher, channel = await watching(stores), await native(stores)
    outbound.status = 410
    for clock.ahead_ms in (0, 1000):
        await attempt(stores, deliveries, channel)
        stores.direct.hdel(keyspace.channel(channel), "noticed", "disabled")

    entries = stores.direct.xrange(keyspace.queue(watcher))
    assert len({fields[b"id"] for _, fields in entries}) == len(entries) == 2


async def test_a_notice_of_a_later_release_is_published(stores: Stores, deliveries: Attempts) -> None:
    watcher, channel = await watching(stores), await native(stores)
    stores.direct.hset(keyspace.channel(channel), "notices", '4 5 throttled {"a":1}')

    await deliveries._notices.publish(channel)

    [(topic, data)] = queued_events(stores, watcher)
    assert (topic, data["a"]) == ("system.webhook.throttled", 1)
    assert not stores.direct.hexists(keyspace.channel(channel), "notices")


async def test_a_change_during_the_attempt_is_due_at_once(
    stores: Stores, deliveries: Attempts, outbound: FakeOutbound, retries: FakeRetries
) -> None:
    channel = await native(stores)
    outbound.status = 410

    async def change(_: Request) -> None:
        found = await stores.account_channels.read(channel)
        assert found is not None
        await stores.account_channels.change_webhook(found, lambda _: (HOOK, POLICY))

    outbound.on_request = change
    assert await attempt(stores, deliveries, channel) is Outcome.CHANGED

    assert retries.scheduled == []
    found = await stores.account_channels.read(channel)
    assert found is not None
    assert found.state == "active"


async def test_a_rate_keeps_a_webhook_from_the_next_request(
    stores: Stores, deliveries: Attempts, outbound: FakeOutbound
) -> None:
    channel = await native(stores, WebhookPolicy(rate_per_s=1), queued=3)

    outcomes = [await attempt(stores, deliveries, channel) for _ in range(3)]

    # What is late may be followed by one more.
    assert outcomes[-1] is Outcome.PACED
    assert len(outbound.requests) < 3
