"""Native webhooks as their receivers expect them: settings, answers, disabling, notices to the account."""

import json
from email.utils import formatdate
from typing import Any

import pytest
from aiohttp import web
from standardwebhooks import Webhook as Verifier

from shared.store import keyspace
from tests.harness.channels import AccountChannels
from tests.harness.dispatching import dispatching_with, hook, mine
from tests.harness.native_webhooks import create
from tests.harness.stack import Stack
from tests.harness.waiting import wait_until
from tests.harness.webhooks import Call, Webhook, webhook

QUICK: dict[str, Any] = {"backoff": [1]}

__all__ = ["hook", "mine"]

dispatching = dispatching_with(SWEEP_S=1)


async def patch(mine: AccountChannels, channel: str, **settings: Any) -> dict[str, Any]:
    response = await mine.call("PATCH", f"/{channel}", json={"webhook": settings})
    assert response.status == 200, response.text
    changed: dict[str, Any] = response.json["webhook"]
    return changed


async def publish(mine: AccountChannels, *numbers: int) -> None:
    await mine.api.publish(mine.key, *({"topic": "orders.paid", "data": number} for number in numbers))


async def notice_channel(mine: AccountChannels) -> str:
    """A pull channel that gets the account's notices."""
    return str((await mine.create("pull", bindings=["system.#"]))["id"])


async def notices(mine: AccountChannels, channel: str, count: int) -> list[tuple[str, dict[str, Any]]]:
    """So many notices, acked. One may come twice, under the same id."""
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    while len(found) < count:
        fetched = await mine.fetch(channel, max=100, wait_s=10)
        found |= {event["id"]: (event["topic"], event["data"]) for event in fetched.events}
        if fetched.events:
            await mine.post(channel, "ack", lease=fetched.lease, until=fetched.entries[-1])
    return list(found.values())


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


async def test_a_redirect_is_a_failure_that_says_so(mine: AccountChannels, hook: Webhook) -> None:
    async with webhook() as elsewhere:
        hook.says(308, Location=elsewhere.url)
        channel = await create(mine, hook)
        await publish(mine, 1)

        await mine.until(channel, state="failing", pending=1)
        tested = (await mine.do(channel, "test", 200)).json

        assert (tested["accepted"], tested["status"]) == (False, 308)
        assert f"redirect to {elsewhere.url}" in tested["error"]
        assert elsewhere.calls == []


async def test_410_disables_at_once_and_resume_tries_again(mine: AccountChannels, hook: Webhook) -> None:
    account = await notice_channel(mine)
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


async def test_a_notice_goes_to_what_is_bound_by_then(mine: AccountChannels, hook: Webhook) -> None:
    """Of three notices one of two dispatchers publishes two, and the bindings have changed between them."""
    watching = [await notice_channel(mine)]
    hook.says(410)
    channel = await create(mine, hook)
    await publish(mine, 1)
    await expect_notice(mine, watching, "disabled")

    watching.append(await notice_channel(mine))
    hook.takes()
    await mine.do(channel, "resume")
    await expect_notice(mine, watching, "recovered")

    watching.append(await notice_channel(mine))
    hook.says(410)
    await publish(mine, 2)
    await expect_notice(mine, watching, "disabled")


async def expect_notice(mine: AccountChannels, watching: list[str], word: str) -> None:
    for each in watching:
        assert [topic for topic, _ in await notices(mine, each, 1)] == [f"system.webhook.{word}"]


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


async def test_what_is_given_up_makes_a_notice_and_the_next_is_delivered(
    mine: AccountChannels, hook: Webhook
) -> None:
    account = await notice_channel(mine)

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


@pytest.mark.long
async def test_a_failing_webhook_that_is_bound_to_notices_makes_no_loop(
    mine: AccountChannels, hook: Webhook
) -> None:
    hook.says(500)
    settings = {**QUICK, "give_up_after_s": 1}
    both = [await create(mine, hook, to="#", **settings), await create(mine, hook, to="system.#", **settings)]
    await mine.call("PATCH", f"/{both[0]}", json={"bindings": ["#", "system.#"]})
    await publish(mine, 1)

    # The order, and one notice of it in each, which may come twice; a notice that is given up makes none.
    for channel, dropped in zip(both, (2, 1), strict=True):
        await mine.until(channel, pending=0, dropped=range(dropped, dropped + 2))
    calls = len(hook.calls)
    watching = await notice_channel(mine)
    await publish(mine, 2)
    for channel, dropped in zip(both, (4, 2), strict=True):
        await mine.until(channel, pending=0, dropped=range(dropped, dropped + 3))
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


async def test_a_rate_bounds_the_requests_of_a_webhook(mine: AccountChannels, hook: Webhook) -> None:
    channel = await create(mine, hook, rate_per_s=5)
    await publish(mine, *range(16))

    await mine.until(channel, pending=0)
    times_s = [call.at_s for call in hook.calls]
    assert numbers(hook) == list(range(16))
    # A second has two requests more than the rate at most, and those under way before it may arrive in it.
    assert times_s[-1] - times_s[0] >= (16 - 1 - 2) / 5 - 0.2


async def test_a_notice_that_a_dead_dispatcher_left_is_published(
    mine: AccountChannels, hook: Webhook, dispatching: Stack
) -> None:
    account, channel = await notice_channel(mine), await create(mine, hook)
    with dispatching.redis.client() as direct:
        # As the script writes it in the step that disables the webhook.
        name = keyspace.channel(channel.removeprefix("ch_"))
        direct.hset(name, "notices", '7 1795907463007 disabled {"reason":"gone"}')

        [(topic, notice)] = await notices(mine, account, 1)
        assert (topic, notice["channel"], notice["reason"]) == ("system.webhook.disabled", channel, "gone")
        await wait_until(lambda: not direct.hexists(name, "notices"))
