"""One attempt: what it sends, and what follows from the response."""

import logging

import pytest

from services.webhook_dispatcher.outcomes import Outcome
from shared.model.errors import NoLongerOwner
from shared.outbound.client import Attempt
from shared.store import keyspace
from tests.store.recorded import recorded
from tests.store.stores import RedisClock, Stores, events
from tests.webhook_dispatcher.conftest import (
    EXPIRY_MS,
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

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
OTHER_TRACE = "00-1af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def test_an_accepted_batch_is_acked(
    stores: Stores, deliveries: Attempts, outbound: FakeOutbound, retries: FakeRetries
) -> None:
    channel = await webhook(stores, queued=3)
    lease = await claim(stores, channel)

    assert await deliveries.make(lease) is Outcome.EMPTIED

    [request] = outbound.requests
    assert (request.url, request.headers["X-Origin"]) == (URL, "us")
    assert {"webhook-id", "webhook-timestamp", "webhook-signature"} <= set(request.headers)
    assert stores.entries(channel) == []
    assert stores.owner(channel) == lease.owner, "the lease is kept for the next batch"
    [delivery] = recorded(stores.direct, channel)
    assert (delivery["status"], delivery["count"], delivery["webhook_id"]) == (200, 3, request.webhook_id)
    assert retries.scheduled == []
    assert await deliveries.make(lease) is Outcome.NOTHING_TO_SEND


@pytest.mark.parametrize(("status", "outcome"), [(500, "5xx"), (410, "4xx"), (202, "2xx")])
async def test_a_refused_batch_is_kept_and_a_retry_is_scheduled(
    stores: Stores,
    deliveries: Attempts,
    outbound: FakeOutbound,
    retries: FakeRetries,
    caplog: pytest.LogCaptureFixture,
    status: int,
    outcome: str,
) -> None:
    caplog.set_level(logging.INFO)
    channel = await webhook(stores, queued=3)
    outbound.status = status

    assert await deliveries.make(await claim(stores, channel)) is Outcome.RELEASED

    assert len(stores.entries(channel)) == 3
    assert stores.owner(channel) is None
    assert retries.scheduled == [(channel, 1, 1000)]
    [record] = [record for record in caplog.records if record.msg == "delivery.attempted"]
    assert vars(record)["facts"] == {"channel": channel, "outcome": outcome, "batch": 3, "took_ms": 7}


async def test_a_retry_repeats_the_batch_after_a_growing_backoff(
    stores: Stores, deliveries: Attempts, outbound: FakeOutbound, retries: FakeRetries, clock: RedisClock
) -> None:
    channel = await webhook(stores, queued=2)
    outbound.status = 503
    await deliveries.make(await claim(stores, channel))
    await stores.queued(channel, 1)
    lease = await claim(stores, channel)
    assert await deliveries.make(lease) is Outcome.BACKOFF

    clock.ahead_ms = 1000
    assert await deliveries.make(lease) is Outcome.RELEASED
    clock.ahead_ms = 3000
    outbound.status = 200
    lease = await claim(stores, channel)
    assert await deliveries.make(lease) is Outcome.ACCEPTED

    assert retries.scheduled == [(channel, 1, 1000), (channel, 2, 3000)]
    first, *more = outbound.requests
    assert [(request.webhook_id, request.body) for request in more] == [(first.webhook_id, first.body)] * 2
    assert len(stores.entries(channel)) == 1, "what came later is in the next batch"


async def test_a_url_that_changes_during_the_attempt_is_due_at_once(
    stores: Stores, deliveries: Attempts, outbound: FakeOutbound, retries: FakeRetries
) -> None:
    channel = await webhook(stores, queued=1)
    outbound.statuses[URL] = 500

    async def change(_: Request) -> None:
        await register(stores, channel, "https://example.com/new")

    outbound.on_request = change
    assert await deliveries.make(await claim(stores, channel)) is Outcome.CHANGED

    assert retries.scheduled == []
    outbound.on_request = None
    lease = await claim(stores, channel)
    assert await deliveries.make(lease) is Outcome.MOVED, "another host was resolved"
    assert await deliveries.make(lease, "https://example.com/new") is Outcome.EMPTIED
    assert outbound.requests[-1].url == "https://example.com/new"


async def test_a_webhook_ends_after_failing_for_its_expiry(
    stores: Stores,
    deliveries: Attempts,
    outbound: FakeOutbound,
    retries: FakeRetries,
    clock: RedisClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    channel = await webhook(stores, queued=2)
    outbound.status = 500
    for at_ms in (0, 1000, EXPIRY_MS):
        assert stores.direct.exists(keyspace.channel(channel))
        clock.ahead_ms = at_ms
        assert await deliveries.make(await claim(stores, channel)) is Outcome.RELEASED

    assert not stores.direct.exists(keyspace.channel(channel))
    assert stores.entries(channel) == []
    assert [failed for _, failed, _ in retries.scheduled] == [1, 2]
    [record] = [record for record in caplog.records if record.msg == "webhook.ended"]
    assert vars(record)["facts"] == {"channel": channel, "lost": 2}


@pytest.mark.parametrize("status", [200, 500])
async def test_a_lease_lost_during_the_attempt_leaves_all_to_the_new_owner(
    stores: Stores, deliveries: Attempts, outbound: FakeOutbound, retries: FakeRetries, status: int
) -> None:
    channel = await webhook(stores, queued=1)
    outbound.status = status
    owner = f"{OTHER_INSTANCE}/1"

    async def take_over(_: Request) -> None:
        await claim(stores, channel, owner)

    outbound.on_request = take_over
    lease = await claim(stores, channel)
    assert await deliveries.make(lease) is Outcome.RELEASED

    assert stores.owner(channel) == owner
    assert len(stores.entries(channel)) == 1
    assert recorded(stores.direct, channel) == []
    assert retries.scheduled == []
    with pytest.raises(NoLongerOwner):
        await deliveries.make(lease)


async def test_a_batch_over_the_limit_is_sent_in_parts(
    stores: Stores, deliveries: Attempts, outbound: FakeOutbound
) -> None:
    channel = await webhook(stores, queued=150)
    lease = await claim(stores, channel)

    assert await deliveries.make(lease) is Outcome.ACCEPTED
    assert len(stores.entries(channel)) == 50
    assert await deliveries.make(lease) is Outcome.EMPTIED
    assert len({request.webhook_id for request in outbound.requests}) == 2


@pytest.mark.parametrize(
    ("traces", "header"),
    [
        ([TRACE, TRACE], TRACE),
        ([TRACE, OTHER_TRACE], None),
        ([TRACE, ""], None),
        (["", ""], None),
    ],
)
async def test_a_request_continues_the_trace_of_all_its_notifications(
    stores: Stores, deliveries: Attempts, outbound: FakeOutbound, traces: list[str], header: str | None
) -> None:
    channel = await webhook(stores)
    for number, traceparent in enumerate(traces):
        await stores.queues.append(channel, events(number), traceparent=traceparent)

    await deliveries.make(await claim(stores, channel))

    assert outbound.requests[0].headers.get("traceparent") == header


async def test_receipts_are_sent_before_the_request_and_acked_after_it(
    stores: Stores, deliveries: Attempts, outbound: FakeOutbound
) -> None:
    channel = await webhook(stores)
    await stores.queues.append(channel, [event._replace(receipt=True) for event in events(0)])
    receipt = keyspace.receipt(channel, "0")
    seen: list[set[bytes]] = []

    async def check(_: Request) -> None:
        seen.append({b"sent", b"acked"} & set(stores.direct.hgetall(receipt)))

    outbound.on_request = check
    await deliveries.make(await claim(stores, channel))

    assert seen == [{b"sent"}]
    assert {b"sent", b"acked"} <= set(stores.direct.hgetall(receipt))


async def test_a_failure_is_recorded_with_what_was_sent_and_answered(
    stores: Stores, deliveries: Attempts, outbound: FakeOutbound
) -> None:
    channel = await webhook(stores, queued=3)
    answer = Attempt(502, "", 7, response_body=b"no", response_headers={"server": "x"}, detail="in words")
    outbound.answer = lambda _: answer

    await deliveries.make(await claim(stores, channel))

    [request] = outbound.requests
    [failed] = recorded(stores.direct, channel)
    assert (failed["url"], failed["method"], failed["detail"]) == (URL, request.method, "in words")
    assert (failed["outcome"], failed["events"]) == ("failure", ["0", "1", "2"])
    details = failed["details"]
    assert details["headers"] == {**request.headers, "webhook-signature": "***"}
    assert (details["body"]["text"], details["body_bytes"]) == (request.body.decode(), len(request.body))
    assert (details["answer"]["text"], details["answer_headers"]) == ("no", {"server": "x"})


async def test_a_success_is_recorded_without_bodies(
    stores: Stores, deliveries: Attempts, outbound: FakeOutbound
) -> None:
    channel = await webhook(stores, queued=2)
    outbound.answer = lambda _: Attempt(200, "", 7, response_body=b"x" * 2048)

    await deliveries.make(await claim(stores, channel))

    [success] = recorded(stores.direct, channel)
    assert (success["outcome"], success["details"], success["events"]) == ("success", None, ["0", "1"])


async def test_an_account_without_room_keeps_what_happened_and_not_what_was_sent(
    stores: Stores, deliveries: Attempts, outbound: FakeOutbound
) -> None:
    channel = await webhook(stores, queued=1)
    outbound.status = 500
    sums = deliveries._stores.attempt_bytes
    sums.grew("full", 10**12)
    await sums.report()

    await deliveries.make(await claim(stores, channel), account="full")
    await deliveries.make(await claim(stores, channel))

    [failed] = recorded(stores.direct, channel)
    assert (failed["status"], failed["events"], failed["details"]) == (500, ["0"], None)
    other = await webhook(stores, queued=1)
    await deliveries.make(await claim(stores, other), account="other")
    assert recorded(stores.direct, other)[0]["details"] is not None
