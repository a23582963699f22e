"""Webhook delivery: signed, in order, retried until the receiver accepts.

Only the test of the backoff waits for it; the others request a retry.
"""

import asyncio
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from standardwebhooks import Webhook as Verifier

from tests.harness.api import Api, ApiKey
from tests.harness.dispatching import dispatching_with, hook
from tests.harness.events import number_of, reading, readings, registration
from tests.harness.stack import Stack
from tests.harness.waiting import wait_until
from tests.harness.webhooks import Call, Webhook, webhook

__all__ = ["hook"]

dispatching = dispatching_with()


@pytest.fixture
def api(dispatching: Stack, http: aiohttp.ClientSession) -> Api:
    return Api(http, dispatching.gateways[0].url, dispatching.admin_token)


@pytest.fixture
async def hooked(api: Api, hook: Webhook) -> ApiKey:
    """An API key with a registered webhook."""
    key = await api.api_key()
    await api.register_webhook(key, hook.url)
    return key


def numbers(hook: Webhook) -> list[int]:
    return [number_of(item) for item in hook.items]


async def retry_now(api: Api, key: ApiKey) -> None:
    response = await api.call("POST", f"/v1/channels/{key.id}/deliveries/retry", key=key)
    assert response.status == 202, response.text


async def test_published_events_are_delivered(api: Api, hook: Webhook, hooked: ApiKey) -> None:
    await api.publish(hooked, *readings(range(10), to=hooked.id))

    await wait_until(lambda: len(hook.items) == 10, what=lambda: hook.calls)
    assert numbers(hook) == list(range(10))
    assert hook.calls[0].headers["Content-Type"] == "application/json"
    assert hook.tests == 1


async def test_one_request_at_a_time_and_waiting_notifications_are_batched(
    api: Api, hook: Webhook, hooked: ApiKey
) -> None:
    release = asyncio.Event()

    async def accept_when_released(_: Call) -> web.StreamResponse:
        await release.wait()
        return web.Response(status=200)

    hook.answer = accept_when_released
    for number in range(20):
        await api.publish(hooked, reading(number, to=hooked.id))
    await api.publish(hooked, registration("device-1"))
    await wait_until(lambda: hook.calls)
    release.set()

    await wait_until(lambda: len(hook.items) == 21, what=lambda: hook.calls)
    assert [number_of(i) for call in hook.calls for i in call.message.get("notifications", ())] == [
        *range(20)
    ]
    assert len(hook.calls) == 2
    assert set(hook.calls[1].message) == {"notifications", "registrations"}
    assert max(call.at_once for call in hook.calls) == 1


async def test_requests_are_signed_by_standard_webhooks(api: Api, hook: Webhook, hooked: ApiKey) -> None:
    response = await api.call("GET", f"/v1/channels/{hooked.id}/signing-secret", key=hooked)
    await api.publish(hooked, reading(1, to=hooked.id))
    await wait_until(lambda: hook.calls)

    [call] = hook.calls
    verified = Verifier(response.json["signing_secret"]).verify(call.body, dict(call.headers))
    assert verified == call.message


async def test_a_retry_repeats_the_same_batch_with_the_same_id(
    api: Api, hook: Webhook, hooked: ApiKey
) -> None:
    hook.says(500)
    await api.publish(hooked, *readings(range(3), to=hooked.id))
    await wait_until(lambda: hook.calls)
    await api.publish(hooked, *readings(range(3, 6), to=hooked.id))
    hook.takes()
    await retry_now(api, hooked)
    await wait_until(lambda: numbers(hook)[-3:] == [3, 4, 5], what=lambda: numbers(hook))

    *tried, last = hook.calls
    assert {call.webhook_id for call in tried} == {tried[0].webhook_id}
    assert {call.body for call in tried} == {tried[0].body}
    assert last.webhook_id != tried[0].webhook_id
    assert [number_of(item) for item in last.message["notifications"]] == [3, 4, 5]


@pytest.mark.parametrize("status", [201, 302, 404, 410, 500, 503])
async def test_only_200_and_204_are_success(api: Api, hook: Webhook, hooked: ApiKey, status: int) -> None:
    hook.says(status, Location="/elsewhere")
    await api.publish(hooked, reading(1, to=hooked.id))
    await wait_until(lambda: hook.calls)
    hook.takes()
    await retry_now(api, hooked)
    await wait_until(lambda: len(hook.calls) == 2 and not hook.under_way)

    await api.publish(hooked, reading(2, to=hooked.id))
    await wait_until(lambda: numbers(hook) == [1, 1, 2], what=lambda: numbers(hook))


async def test_backoff_doubles_from_one_second(api: Api, hook: Webhook, hooked: ApiKey) -> None:
    hook.says(500)
    await api.publish(hooked, reading(1, to=hooked.id))
    await wait_until(lambda: len(hook.calls) == 3)

    first, second, third = (call.at_s for call in hook.calls)
    assert second - first >= 1
    assert third - second >= 2


async def test_a_new_url_gets_the_failed_batch_without_backoff(
    api: Api, hook: Webhook, hooked: ApiKey
) -> None:
    hook.says(500)
    await api.publish(hooked, reading(1, to=hooked.id))
    await wait_until(lambda: len(hook.calls) == 2)

    async with webhook() as other:
        await api.register_webhook(hooked, other.url)
        await wait_until(lambda: other.items)
        assert other.calls[0].at_s - hook.calls[1].at_s < 2, "the next attempt would be due after 2 s"
        await api.publish(hooked, reading(2, to=hooked.id))
        await wait_until(lambda: numbers(other) == [1, 2])
        assert len(hook.calls) == 2


async def test_attempts_are_listed(api: Api, hook: Webhook, hooked: ApiKey) -> None:
    async def attempts() -> list[dict[str, Any]]:
        response = await api.call("GET", f"/v1/channels/{hooked.id}/deliveries", key=hooked)
        return list(response.json["deliveries"])

    async def count(wanted: int) -> bool:
        return len(await attempts()) == wanted

    hook.says(503)
    await api.publish(hooked, reading(1, to=hooked.id))
    await wait_until(lambda: count(1))
    hook.takes()
    await retry_now(api, hooked)
    await wait_until(lambda: count(2))

    accepted, failed = await attempts()
    assert (accepted["status"], failed["status"]) == (204, 503)
    assert accepted["next_attempt_at"] is None
    assert failed["next_attempt_at"] is not None
    assert accepted["webhook_id"] == failed["webhook_id"] == hook.calls[0].webhook_id
    assert accepted["batch"] == failed["batch"] == 1


async def test_a_retry_requested_during_an_attempt_follows_it_at_once(
    api: Api, hook: Webhook, hooked: ApiKey, dispatching: Stack
) -> None:
    release = asyncio.Event()

    async def fail_when_released(_: Call) -> web.StreamResponse:
        await release.wait()
        return web.Response(status=503)

    with dispatching.redis.client() as redis:

        def has_failed_once() -> bool:
            return bool(redis.hget(f"{{{hooked.id}}}:channel", "failed_attempts") == b"1")

        hook.says(503)
        await api.publish(hooked, reading(1, to=hooked.id))
        await wait_until(has_failed_once)
        hook.answer = fail_when_released
        await retry_now(api, hooked)
        await wait_until(lambda: len(hook.calls) == 2)
        await retry_now(api, hooked)
        hook.hangs()
        release.set()

        await wait_until(lambda: len(hook.calls) == 3)
        assert has_failed_once(), "the second failure does not count: a retry was requested"


async def test_a_deleted_webhook_is_not_called_again(api: Api, hook: Webhook, hooked: ApiKey) -> None:
    hook.says(500)
    await api.publish(hooked, reading(1, to=hooked.id))
    await wait_until(lambda: len(hook.calls) == 1)

    assert (await api.call("DELETE", "/v2/notification/callback", key=hooked)).status == 204
    assert await api.publish(hooked, reading(2, to=hooked.id)) == [0]
    hook.takes()
    await api.register_webhook(hooked, hook.url)
    await api.publish(hooked, reading(3, to=hooked.id))

    await wait_until(lambda: numbers(hook)[-1] == 3)
    assert numbers(hook)[1:] == [3], "the queue was deleted with the channel"


async def test_receipts_show_webhook_deliveries(api: Api, hook: Webhook, hooked: ApiKey) -> None:
    hook.says(500)
    await api.publish(hooked, {**reading(1, to=hooked.id), "id": "event-1", "receipt": True})

    async def state(wanted: str) -> bool:
        channels = (await api.receipt(hooked, "event-1")).json["channels"]
        return bool(channels and channels[0]["state"] == wanted)

    await wait_until(lambda: state("sent"))
    hook.takes()
    await retry_now(api, hooked)
    await wait_until(lambda: state("acked"))


async def test_requests_carry_the_publishers_trace(api: Api, hook: Webhook, hooked: ApiKey) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    headers = {"traceparent": f"00-{trace}-b7ad6b7169203331-01"}
    await api.call("POST", "/v1/events", key=hooked, json=reading(1, to=hooked.id), headers=headers)

    await wait_until(lambda: hook.calls)
    assert hook.calls[0].headers["traceparent"].split("-")[1] == trace
