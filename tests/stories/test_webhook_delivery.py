"""What is pending to a webhook reaches it: signed, in order, tried again until it is taken."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator

import aiohttp
import pytest
from aiohttp import web
from standardwebhooks import Webhook as Verifier

from tests.harness.api import Api, ApiKey
from tests.harness.events import number_of, reading, readings, registration
from tests.harness.stack import RedisLike, Stack, running_stack
from tests.harness.waiting import wait_until
from tests.harness.webhooks import Call, Webhook, webhook


@pytest.fixture(scope="module")
def dispatching(redis_like: RedisLike | None) -> Iterator[Stack]:
    """A gateway and two dispatchers."""
    with running_stack(
        gateways=1, edges=0, dispatchers=2, redis_like=redis_like, ALLOW_PRIVATE_CALLBACKS="1"
    ) as stack:
        yield stack


@pytest.fixture
def api(dispatching: Stack, http: aiohttp.ClientSession) -> Api:
    return Api(http, dispatching.gateways[0].url, dispatching.admin_token)


@pytest.fixture
async def hook() -> AsyncIterator[Webhook]:
    async with webhook() as receiver:
        yield receiver


@pytest.fixture
async def hooked(api: Api, hook: Webhook) -> ApiKey:
    """An API key whose webhook is registered."""
    key = await api.api_key()
    await api.register_webhook(key, hook.url)
    return key


def numbers(hook: Webhook) -> list[int]:
    return [number_of(item) for item in hook.items]


async def test_what_is_published_is_sent(api: Api, hook: Webhook, hooked: ApiKey) -> None:
    await api.publish(hooked, *readings(range(10), to=hooked.id))

    await wait_until(lambda: len(hook.items) == 10, what=lambda: hook.calls)
    assert numbers(hook) == list(range(10))
    assert hook.calls[0].headers["Content-Type"] == "application/json"
    assert hook.tests == 1


async def test_what_waits_meanwhile_is_merged_and_one_request_is_under_way_at_a_time(
    api: Api, hook: Webhook, hooked: ApiKey
) -> None:
    held = asyncio.Event()

    async def when_released(_: Call) -> web.StreamResponse:
        await held.wait()
        return web.Response(status=200)

    hook.answer = when_released
    for number in range(20):
        await api.publish(hooked, reading(number, to=hooked.id))
    await api.publish(hooked, registration("device-1"))
    await wait_until(lambda: hook.calls)
    held.set()

    await wait_until(lambda: len(hook.items) == 21, what=lambda: hook.calls)
    assert [number_of(i) for call in hook.calls for i in call.message.get("notifications", ())] == [
        *range(20)
    ]
    assert len(hook.calls) == 2
    assert set(hook.calls[1].message) == {"notifications", "registrations"}
    assert max(call.at_once for call in hook.calls) == 1


async def test_every_request_verifies_with_the_signing_secret(
    api: Api, hook: Webhook, hooked: ApiKey
) -> None:
    response = await api.call("GET", f"/v1/channels/{hooked.id}/signing-secret", key=hooked)
    await api.publish(hooked, reading(1, to=hooked.id))
    await wait_until(lambda: hook.calls)

    [call] = hook.calls
    verified = Verifier(response.json["signing_secret"]).verify(call.body, dict(call.headers))
    assert verified == call.message


async def test_a_retry_has_the_same_batch_under_the_same_id_and_newcomers_wait(
    api: Api, hook: Webhook, hooked: ApiKey
) -> None:
    hook.says(500)
    await api.publish(hooked, *readings(range(3), to=hooked.id))
    await wait_until(lambda: hook.calls)
    await api.publish(hooked, *readings(range(3, 6), to=hooked.id))
    await wait_until(lambda: len(hook.calls) >= 2)
    hook.takes()
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
    await wait_until(lambda: len(hook.calls) >= 2)
    hook.takes()
    await wait_until(lambda: numbers(hook)[-1:] == [1] and not hook.under_way)

    await api.publish(hooked, reading(2, to=hooked.id))
    await wait_until(lambda: numbers(hook)[-1] == 2, what=lambda: numbers(hook))


async def test_tries_follow_at_1_2_and_4_seconds(api: Api, hook: Webhook, hooked: ApiKey) -> None:
    hook.says(500)
    await api.publish(hooked, reading(1, to=hooked.id))
    await wait_until(lambda: len(hook.calls) >= 4)

    at_s = [call.at_s for call in hook.calls]
    gaps_s = [later - earlier for earlier, later in itertools.pairwise(at_s)]
    for gap_s, wanted_s in zip(gaps_s, (1, 2, 4), strict=False):
        assert gap_s >= wanted_s, gaps_s


async def test_another_url_gets_what_failed_at_once(api: Api, hook: Webhook, hooked: ApiKey) -> None:
    hook.says(500)
    await api.publish(hooked, reading(1, to=hooked.id))
    await wait_until(lambda: len(hook.calls) >= 3)

    async with webhook() as other:
        await api.register_webhook(hooked, other.url)
        await wait_until(lambda: other.items)
        assert numbers(other) == [1]
        before = len(hook.calls)
        await api.publish(hooked, reading(2, to=hooked.id))
        await wait_until(lambda: numbers(other) == [1, 2])
        assert len(hook.calls) == before


async def test_attempts_are_told_and_can_be_made_now(api: Api, hook: Webhook, hooked: ApiKey) -> None:
    hook.says(503)
    await api.publish(hooked, reading(1, to=hooked.id))
    await wait_until(lambda: len(hook.calls) >= 3)
    hook.takes()

    # The next try is seconds away.
    response = await api.call("POST", f"/v1/channels/{hooked.id}/deliveries/retry", key=hooked)
    assert response.status == 202

    async def is_told() -> bool:
        told = (await api.call("GET", f"/v1/channels/{hooked.id}/deliveries", key=hooked)).json["deliveries"]
        return bool(told[0]["status"] == 204)

    await wait_until(is_told)
    told = (await api.call("GET", f"/v1/channels/{hooked.id}/deliveries", key=hooked)).json["deliveries"]
    assert [attempt["status"] for attempt in told] == [204, *[503] * (len(told) - 1)]
    assert told[0]["next_attempt_at"] is None
    assert told[1]["next_attempt_at"] is not None
    assert {attempt["webhook_id"] for attempt in told} == {hook.calls[0].webhook_id}
    assert {attempt["batch"] for attempt in told} == {1}


async def test_a_retry_can_be_wished_for_while_a_try_hangs(
    api: Api, hook: Webhook, hooked: ApiKey, dispatching: Stack
) -> None:
    hook.says(503)
    await api.publish(hooked, reading(1, to=hooked.id))
    await wait_until(lambda: len(hook.calls) == 2)
    held = asyncio.Event()

    async def late(_: Call) -> web.StreamResponse:
        await held.wait()
        return web.Response(status=503)

    hook.answer = late
    await wait_until(lambda: len(hook.calls) == 3)
    response = await api.call("POST", f"/v1/channels/{hooked.id}/deliveries/retry", key=hooked)
    assert response.status == 202
    hook.hangs()
    held.set()

    await wait_until(lambda: len(hook.calls) == 4)
    with dispatching.redis.client() as redis:
        record = redis.hgetall(f"{{{hooked.id}}}:channel")
    assert record[b"failed_attempts"] == b"2", "the one that hung did not put off the next"


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
    assert numbers(hook)[1:] == [3], "the queue went with the channel"


async def test_receipts_tell_of_webhooks_too(api: Api, hook: Webhook, hooked: ApiKey) -> None:
    hook.says(500)
    await api.publish(hooked, {**reading(1, to=hooked.id), "id": "event-1", "receipt": True})

    async def state(wanted: str) -> bool:
        channels = (await api.receipt(hooked, "event-1")).json["channels"]
        return bool(channels and channels[0]["state"] == wanted)

    await wait_until(lambda: state("sent"))
    hook.takes()
    await wait_until(lambda: state("acked"))


async def test_the_publishers_trace_goes_on(api: Api, hook: Webhook, hooked: ApiKey) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    headers = {"traceparent": f"00-{trace}-b7ad6b7169203331-01"}
    await api.call("POST", "/v1/events", key=hooked, json=reading(1, to=hooked.id), headers=headers)

    await wait_until(lambda: hook.calls)
    assert hook.calls[0].headers["traceparent"].split("-")[1] == trace
