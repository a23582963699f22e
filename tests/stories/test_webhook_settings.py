"""Settings of native webhooks, as they are given, shown, changed and refused; and test events by them."""

import asyncio
from typing import Any

import pytest
from aiohttp import web
from standardwebhooks import Webhook as Verifier

from tests.harness.channels import AccountChannels
from tests.harness.dispatching import dispatching_with, hook, mine
from tests.harness.native_webhooks import create
from tests.harness.waiting import wait_until
from tests.harness.webhooks import Call, Webhook
from tests.stories.test_webhook_policies import patch, publish

__all__ = ["hook", "mine"]

dispatching = dispatching_with(SWEEP_S=1)


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


async def test_long_urls_and_tokens_reach_the_receiver(mine: AccountChannels, hook: Webhook) -> None:
    token, signed = "Bearer " + "x" * 7000, "?signature=" + "y" * 1900
    channel = await create(mine, hook)
    changed = await patch(mine, channel, url=hook.url + signed, secret_headers={"Authorization": token})

    assert changed["url"] == hook.url + signed
    assert (await mine.do(channel, "test", 200)).json["accepted"]
    await publish(mine, 1)
    await wait_until(lambda: len(hook.calls) == 2)
    assert [call.headers["authorization"] for call in hook.calls] == [token, token]
    # An attempt is recorded with its ack.
    await mine.until(channel, pending=0)
    [attempt] = (await mine.call("GET", f"/{channel}/deliveries")).json["deliveries"]
    assert attempt["url"] == hook.url + signed


async def test_two_changes_at_once_keep_what_each_leaves_out(mine: AccountChannels, hook: Webhook) -> None:
    channel = await create(mine, hook)
    given: dict[str, Any] = {
        "method": "PUT",
        "format": "pelion",
        "timeout_s": 3,
        "backoff": [1, 2],
        "rate_per_s": 50,
        "max_batch": 7,
        "max_body_bytes": 2048,
        "give_up_after_s": 60,
        "disable_after_s": 120,
        "headers": {"a": "1"},
    }
    await asyncio.gather(*(patch(mine, channel, **{name: value}) for name, value in given.items()))

    assert (await mine.get(channel))["webhook"].items() >= given.items()


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
    await patch(mine, channel, url="http://127.0.0.1:1/closed")

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
        ({"max_in_flight": 0}, "webhook.max_in_flight"),
        ({"max_in_flight": 101}, "webhook.max_in_flight"),
        ({"max_in_flight": 2, "format": "pelion"}, "webhook.max_in_flight"),
        ({"max_in_flight": 2, "format": "cloudevents-batch", "max_batch": 2}, "webhook.max_in_flight"),
        ({"rate_per_s": 0}, "webhook.rate_per_s"),
        ({"max_batch": 385}, "webhook.max_batch"),
        ({"max_body_bytes": 1023}, "webhook.max_body_bytes"),
        ({"headers": {"Host": "x"}}, "webhook.headers"),
        ({"headers": {"A": "x" * 8192}}, "webhook.headers: makes 8193 characters"),
        ({"headers": {f"{number}": "" for number in range(33)}}, "webhook.headers: makes 33 headers"),
        ({"url": "http://example.com/" + "x" * 2030}, "webhook.url: has 2049 characters"),
        ({"secret_headers": {"Host": "x"}}, "webhook.secret_headers"),
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
