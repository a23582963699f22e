"""Native webhooks as their receivers expect them: settings, answers, disabling, what the account is told."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from email.utils import formatdate
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from standardwebhooks import Webhook as Verifier

from shared.store import keyspace
from tests.harness.api import Api
from tests.harness.channels import AccountChannels
from tests.harness.stack import RedisLike, Stack, running_stack
from tests.harness.waiting import wait_until
from tests.harness.webhooks import Call, Webhook, webhook

QUICK: dict[str, Any] = {"backoff": [1]}


@pytest.fixture(scope="module")
def dispatching(redis_like: RedisLike | None) -> Iterator[Stack]:
    with running_stack(
        gateways=1, edges=0, dispatchers=2, redis_like=redis_like, ALLOW_PRIVATE_CALLBACKS="1", SWEEP_S=1
    ) as stack:
        yield stack


@pytest.fixture
async def mine(dispatching: Stack, http: aiohttp.ClientSession) -> AccountChannels:
    """Each test has an account of its own: notices go to all who bind them."""
    api = Api(http, dispatching.gateways[0].url, dispatching.admin_token)
    return AccountChannels(api, await api.api_key(scopes=("publish", "channels")))


@pytest.fixture
async def hook() -> AsyncIterator[Webhook]:
    async with webhook() as receiver:
        yield receiver


async def create(mine: AccountChannels, hook: Webhook, *, to: str = "orders.#", **settings: Any) -> str:
    made = await mine.create("webhook", bindings=[to], webhook={"url": hook.url, **settings})
    return str(made["id"])


async def patch(mine: AccountChannels, channel: str, **settings: Any) -> dict[str, Any]:
    response = await mine.call("PATCH", f"/{channel}", json={"webhook": settings})
    assert response.status == 200, response.text
    changed: dict[str, Any] = response.json["webhook"]
    return changed


async def publish(mine: AccountChannels, *numbers: int) -> None:
    await mine.api.publish(mine.key, *({"topic": "orders.paid", "data": number} for number in numbers))


async def told(mine: AccountChannels) -> str:
    """A pull channel with what the account is told."""
    return str((await mine.create("pull", bindings=["system.#"]))["id"])


async def notices(mine: AccountChannels, channel: str, count: int) -> list[tuple[str, dict[str, Any]]]:
    """So many notices, acked."""
    found: list[tuple[str, dict[str, Any]]] = []
    while len(found) < count:
        fetched = await mine.fetch(channel, max=100, wait_s=10)
        found += [(event["topic"], event["data"]) for event in fetched.events]
        if fetched.events:
            await mine.post(channel, "ack", lease=fetched.lease, until=fetched.entries[-1])
    return found


def numbers(hook: Webhook) -> list[int]:
    return [event["data"] for event in hook.events]


async def test_by_default_each_event_comes_alone_as_a_signed_cloudevent_by_post(
    mine: AccountChannels, hook: Webhook
) -> None:
    channel = await create(mine, hook, headers={"x-mine": "yes"}, secret_headers={"authorization": "s3"})
    secret = (await mine.call("GET", f"/{channel}/signing-secret")).json["signing_secret"]
    await publish(mine, 1, 2)

    await wait_until(lambda: numbers(hook) == [1, 2], what=lambda: hook.calls)

    for call in hook.calls:
        assert call.method == "POST"
        assert call.headers["content-type"] == "application/cloudevents+json"
        assert (call.headers["x-mine"], call.headers["authorization"]) == ("yes", "s3")
        Verifier(secret).verify(call.body, dict(call.headers))
    first = hook.events[0]
    assert (first["specversion"], first["type"], first["source"]) == (
        *("1.0", "orders.paid"),
        f"/accounts/{mine.key.account}",
    )


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
async def test_any_2xx_is_success(mine: AccountChannels, hook: Webhook, status: int) -> None:
    hook.says(status)
    channel = await create(mine, hook)
    await publish(mine, 1, 2)

    await wait_until(lambda: numbers(hook) == [1, 2])
    await mine.until(channel, state="active", pending=0, dropped=0)


@pytest.mark.parametrize(
    ("wanted", "media_type"),
    [("cloudevents-batch", "application/cloudevents-batch+json"), ("pelion", "application/json")],
)
async def test_batches_in_both_formats_keep_to_max_batch(
    mine: AccountChannels, hook: Webhook, wanted: str, media_type: str
) -> None:
    channel = await create(mine, hook, format=wanted, method="PUT", max_batch=3)
    await mine.do(channel, "pause")
    await publish(mine, *range(7))
    await mine.do(channel, "resume")

    await wait_until(lambda: len(hook.calls) == 3)
    assert {call.headers["content-type"] for call in hook.calls} == {media_type}
    assert {call.method for call in hook.calls} == {"PUT"}
    bodies = [json.loads(call.body) for call in hook.calls]
    batches = [body if isinstance(body, list) else body["events"] for body in bodies]
    assert [[event["data"] for event in batch] for batch in batches] == [[0, 1, 2], [3, 4, 5], [6]]


async def test_the_owner_of_a_webhook_may_set_the_content_type(mine: AccountChannels, hook: Webhook) -> None:
    await create(mine, hook, headers={"content-type": "application/json"})
    await publish(mine, 1)

    await wait_until(lambda: numbers(hook) == [1])
    assert hook.calls[0].headers.getall("content-type") == ["application/json"]  # type: ignore[attr-defined]


async def test_secret_headers_are_never_shown(mine: AccountChannels, hook: Webhook) -> None:
    made = await mine.create(
        "webhook",
        webhook={"url": hook.url, "headers": {"a": "1"}, "secret_headers": {"X-Token": "hush-hush"}},
    )
    channel = made["id"]
    assert made["webhook"]["secret_headers"] == ["X-Token"]
    assert made["webhook"]["headers"] == {"a": "1"}
    for response in (
        await mine.call("GET", f"/{channel}"),
        await mine.call("GET"),
        await mine.call("PATCH", f"/{channel}", json={"webhook": {"headers": {"b": "2"}}}),
        await mine.call("GET", f"/{channel}/deliveries"),
    ):
        assert response.status == 200
        assert "hush" not in response.text

    assert (await mine.do(channel, "test", 200)).json["accepted"]
    assert (hook.calls[-1].headers["x-token"], hook.calls[-1].headers["b"]) == ("hush-hush", "2")
    changed = await patch(mine, channel, secret_headers=None)
    assert (changed["secret_headers"], changed["headers"]) == ([], {"b": "2"})
    await mine.do(channel, "test", 200)
    assert "x-token" not in hook.calls[-1].headers


async def test_a_redirect_is_a_failure_that_says_so(mine: AccountChannels, hook: Webhook) -> None:
    async with webhook() as elsewhere:
        hook.says(308, Location=elsewhere.url)
        channel = await create(mine, hook)
        await publish(mine, 1)

        await mine.until(channel, state="failing", pending=1)
        tested = (await mine.do(channel, "test", 200)).json

        assert (tested["accepted"], tested["status"]) == (False, 308)
        assert f"redirected to {elsewhere.url}" in tested["error"]
        assert elsewhere.calls == []


async def test_410_disables_at_once_and_resume_tries_again(mine: AccountChannels, hook: Webhook) -> None:
    account = await told(mine)
    hook.says(410)
    channel = await create(mine, hook)
    await publish(mine, 1)

    await mine.until(channel, state="disabled", disabled_reason="gone", pending=1)
    [(topic, notice)] = await notices(mine, account, 1)
    assert topic == "system.webhook.disabled"
    assert (notice["channel"], notice["reason"]) == (channel, "gone")
    listed = (await mine.call("GET", "?state=disabled")).json["channels"]
    assert [(each["id"], each["disabled_reason"]) for each in listed] == [(channel, "gone")]
    assert (await mine.call("POST", f"/{channel}/deliveries/retry")).status == 409

    # The queue collects, and nothing is sent, also after a change.
    await publish(mine, 2)
    await patch(mine, channel, timeout_s=3)
    await mine.until(channel, state="disabled", pending=2)
    assert len(hook.calls) == 1

    hook.takes()
    await mine.do(channel, "resume")
    await wait_until(lambda: numbers(hook) == [1, 1, 2], what=lambda: numbers(hook))
    await mine.until(channel, state="active", pending=0)
    [(topic, notice)] = await notices(mine, account, 1)
    assert (topic, notice["channel"]) == ("system.webhook.recovered", channel)
    assert "disabled_since" not in await mine.get(channel)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("form", ["seconds", "date"])
async def test_retry_after_is_obeyed(mine: AccountChannels, hook: Webhook, status: int, form: str) -> None:
    asked: list[float] = []

    async def wait_a_little(call: Call) -> web.StreamResponse:
        asked.append(call.at_s)
        # A date has whole seconds.
        when = (
            "3" if form == "seconds" else formatdate(int(call.headers["webhook-timestamp"]) + 4, usegmt=True)
        )
        return web.Response(status=status, headers={"Retry-After": when})

    hook.answer = wait_a_little
    channel = await create(mine, hook, **QUICK)
    await publish(mine, 1)
    await mine.until(channel, state="failing")
    hook.takes()

    await mine.until(channel, state="active", pending=0)
    assert hook.calls[1].at_s - hook.calls[0].at_s >= 2.9
    assert len(hook.calls) == 2


async def test_what_is_given_up_is_told_and_the_next_is_delivered(
    mine: AccountChannels, hook: Webhook
) -> None:
    account = await told(mine)

    async def refuse_the_first(call: Call) -> web.StreamResponse:
        return web.Response(status=500 if json.loads(call.body)["data"] == 1 else 200)

    hook.answer = refuse_the_first
    channel = await create(mine, hook, **QUICK, give_up_after_s=2)
    events = [
        {"topic": "orders.paid", "data": number, "id": f"e-{number}", "receipt": True} for number in (1, 2, 3)
    ]
    await mine.api.publish(mine.key, *events)

    await mine.until(channel, state="active", pending=0, dropped=1)

    assert numbers(hook)[-2:] == [2, 3]
    assert set(numbers(hook)[:-2]) == {1}
    assert len(numbers(hook)) > 3, "it was tried more than once"
    receipt = (await mine.api.call("GET", "/v1/events/e-1", key=mine.key)).json
    [of_channel] = receipt["channels"]
    assert (of_channel["state"], of_channel["reason"]) == ("dropped", "exhausted")
    (exhausted, notice), (recovered, _) = await notices(mine, account, 2)
    assert (exhausted, recovered) == ("system.webhook.exhausted", "system.webhook.recovered")
    assert (notice["channel"], notice["count"], notice["event_ids"]) == (channel, 1, ["e-1"])


async def test_a_webhook_that_fails_for_too_long_is_disabled(mine: AccountChannels, hook: Webhook) -> None:
    hook.says(500)
    channel = await create(mine, hook, **QUICK, disable_after_s=2)
    await publish(mine, 1)

    await mine.until(channel, state="disabled", disabled_reason="failed-for-too-long", pending=1)
    calls = len(hook.calls)
    assert calls > 1

    await mine.do(channel, "resume")
    await wait_until(lambda: len(hook.calls) > calls)
    await mine.until(channel, state="failing")
    hook.takes()
    await mine.until(channel, state="active", pending=0)


async def test_a_failing_webhook_that_is_told_of_failures_makes_no_loop(
    mine: AccountChannels, hook: Webhook
) -> None:
    hook.says(500)
    settings = {**QUICK, "give_up_after_s": 1}
    both = [await create(mine, hook, to="#", **settings), await create(mine, hook, to="system.#", **settings)]
    await mine.call("PATCH", f"/{both[0]}", json={"bindings": ["#", "system.#"]})
    await publish(mine, 1)

    # The order, and one notice of it in each; what is given up of notices is not told.
    for channel, dropped in zip(both, (2, 1), strict=True):
        await mine.until(channel, pending=0, dropped=dropped)
    calls = len(hook.calls)
    watching = await told(mine)
    await publish(mine, 2)
    for channel, dropped in zip(both, (4, 2), strict=True):
        await mine.until(channel, pending=0, dropped=dropped)
    assert [topic for topic, _ in await notices(mine, watching, 1)] == ["system.webhook.exhausted"]
    assert len(hook.calls) > calls


async def test_a_change_is_due_at_once_while_the_webhook_fails(mine: AccountChannels, hook: Webhook) -> None:
    hook.says(500)
    channel = await create(mine, hook, backoff=[3600], headers={"a": "1"}, timeout_s=7)
    await publish(mine, 1)
    await mine.until(channel, state="failing")
    hook.takes()

    changed = await patch(mine, channel, format="pelion", method="PUT", backoff=[9])

    assert (changed["timeout_s"], changed["headers"], changed["backoff"]) == (7, {"a": "1"}, [9])
    await mine.until(channel, state="active", pending=0)
    last = hook.calls[-1]
    assert (last.method, [event["data"] for event in last.message["events"]]) == ("PUT", [1])
    assert (await patch(mine, channel, backoff=None))["backoff"] == [5, 30, 120, 300, 600]


async def test_two_changes_at_once_keep_what_each_leaves_out(mine: AccountChannels, hook: Webhook) -> None:
    channel = await create(mine, hook)
    given: dict[str, Any] = {
        "method": "PUT",
        "format": "pelion",
        "timeout_s": 3,
        "backoff": [1, 2],
        "rate_per_s": 50,
        "max_batch": 7,
        "max_in_flight": 20,
        "max_body_bytes": 2048,
        "give_up_after_s": 60,
        "disable_after_s": 120,
        "headers": {"a": "1"},
    }
    await asyncio.gather(*(patch(mine, channel, **{name: value}) for name, value in given.items()))

    assert (await mine.get(channel))["webhook"].items() >= given.items()


async def test_a_rate_bounds_the_requests_of_a_webhook(mine: AccountChannels, hook: Webhook) -> None:
    channel = await create(mine, hook, rate_per_s=5)
    await publish(mine, *range(16))

    await mine.until(channel, pending=0)
    times_s = [call.at_s for call in hook.calls]
    assert numbers(hook) == list(range(16))
    # A second has two requests more than the rate at most, and those under way before it may arrive in it.
    assert times_s[-1] - times_s[0] >= (16 - 1 - 2) / 5 - 0.2


async def test_a_test_event_shows_the_answer(mine: AccountChannels, hook: Webhook) -> None:
    async def refuse(call: Call) -> web.StreamResponse:
        return web.Response(status=422, text="no such \N{SNOWMAN} order" + "x" * 5000)

    channel = await create(mine, hook)
    secret = (await mine.call("GET", f"/{channel}/signing-secret")).json["signing_secret"]
    accepted = (await mine.do(channel, "test", 200)).json
    hook.answer = refuse
    refused = (await mine.do(channel, "test", 200)).json

    assert (accepted["accepted"], accepted["status"], accepted["error"]) == (True, 204, "")
    assert accepted["took_ms"] >= 0
    [sent, _] = hook.calls
    Verifier(secret).verify(sent.body, dict(sent.headers))
    assert (sent.method, sent.webhook_id) == ("POST", accepted["webhook_id"])
    assert hook.events[0]["type"] == "system.webhook.test"
    assert hook.events[0]["data"]["channel"] == channel
    assert (refused["accepted"], refused["status"]) == (False, 422)
    assert refused["error"]
    assert refused["response"].startswith("no such \N{SNOWMAN} order")
    assert len(refused["response"].encode()) <= 2048
    # It changes nothing.
    await mine.until(channel, state="active", pending=0)
    assert (await mine.call("GET", f"/{channel}/deliveries")).json["deliveries"] == []


async def test_a_test_without_a_receiver_says_why(mine: AccountChannels, hook: Webhook) -> None:
    channel = await create(mine, hook)
    await patch(mine, channel, url="http://127.0.0.1:1/nobody")

    tested = (await mine.do(channel, "test", 200)).json

    assert (tested["accepted"], tested["status"], tested["response"]) == (False, None, "")
    assert "refused" in tested["error"]
    assert (await mine.do(str((await mine.create("pull"))["id"]), "test", 409)).json


async def test_one_test_of_a_webhook_runs_at_a_time(mine: AccountChannels, hook: Webhook) -> None:
    opened = asyncio.Event()

    async def wait(_: Call) -> web.StreamResponse:
        await opened.wait()
        return web.Response(status=200)

    hook.answer = wait
    channel, other = await create(mine, hook, timeout_s=60), await create(mine, hook, timeout_s=60)
    tests = [asyncio.create_task(mine.do(channel, "test", 200))]
    await wait_until(lambda: hook.under_way == 1)

    refused = await mine.do(channel, "test", 429)
    assert "channel" in refused.text
    tests.append(asyncio.create_task(mine.do(other, "test", 200)))
    await wait_until(lambda: hook.under_way == 2)

    opened.set()
    assert [(await test).json["accepted"] for test in tests] == [True, True]


async def test_a_test_that_is_out_of_time_says_so(mine: AccountChannels, hook: Webhook) -> None:
    hook.hangs()
    channel = await create(mine, hook, timeout_s=1)

    tested = (await mine.do(channel, "test", 200)).json

    assert (tested["accepted"], tested["status"]) == (False, None)
    assert "timed out" in tested["error"]


async def test_a_notice_that_a_dead_dispatcher_left_is_published(
    mine: AccountChannels, hook: Webhook, dispatching: Stack
) -> None:
    account, channel = await told(mine), await create(mine, hook)
    with dispatching.redis.client() as direct:
        # As the script writes it in the step that disables the webhook.
        name = keyspace.channel(channel.removeprefix("ch_"))
        direct.hset(name, "notices", '7 1795907463007 disabled {"reason":"gone"}')

        [(topic, notice)] = await notices(mine, account, 1)
        assert (topic, notice["channel"], notice["reason"]) == ("system.webhook.disabled", channel, "gone")
        await wait_until(lambda: not direct.hexists(name, "notices"))


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"unknown": 1}, "webhook.unknown"),
        ({"method": "GET"}, "webhook.method"),
        ({"format": "xml"}, "webhook.format"),
        ({"timeout_s": 0}, "webhook.timeout_s"),
        ({"timeout_s": 61}, "webhook.timeout_s"),
        ({"timeout_s": 1.5}, "webhook.timeout_s"),
        ({"backoff": []}, "webhook.backoff"),
        ({"backoff": [0]}, "webhook.backoff"),
        ({"backoff": [86_401]}, "webhook.backoff"),
        ({"backoff": [1] * 21}, "webhook.backoff"),
        ({"give_up_after_s": 0}, "webhook.give_up_after_s"),
        ({"disable_after_s": -1}, "webhook.disable_after_s"),
        ({"max_in_flight": 101}, "webhook.max_in_flight"),
        ({"rate_per_s": 0}, "webhook.rate_per_s"),
        ({"max_batch": 385}, "webhook.max_batch"),
        ({"max_body_bytes": 1023}, "webhook.max_body_bytes"),
        ({"headers": {"Host": "x"}}, "webhook.headers"),
        ({"secret_headers": {"Host": "x"}}, "webhook.headers"),
        ({"headers": {"A": "1"}, "secret_headers": {"a": "2"}}, "webhook.secret_headers"),
    ],
)
async def test_settings_that_are_refused(
    mine: AccountChannels, hook: Webhook, wrong: dict[str, Any], field: str
) -> None:
    channel = await create(mine, hook)
    target = {"url": hook.url, **wrong}
    for response in (
        await mine.call("POST", json={"kind": "webhook", "webhook": target}),
        await mine.call("PATCH", f"/{channel}", json={"webhook": wrong}),
    ):
        assert response.status == 400
        assert field in response.text
    assert (await mine.get(channel))["webhook"]["timeout_s"] == 15
