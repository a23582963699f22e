"""What the owner of a failing webhook sees: where, when, what was sent and answered, but never a secret."""

import base64
import json
from datetime import datetime
from typing import Any

import pytest
from aiohttp import web

from shared.store import keyspace
from tests.harness.channels import AccountChannels
from tests.harness.dispatching import dispatching_with, hook, mine
from tests.harness.processes import RUNNING
from tests.harness.stack import Stack
from tests.harness.waiting import wait_until
from tests.harness.webhooks import Call, Webhook

PLANTED = {
    "Authorization": "Bearer planted-in-authorization",
    "Cookie": "session=planted-in-cookie",
    "X-Api-Key": "planted-in-api-key",
}
SECRETS = ("planted-in-authorization", "planted-in-cookie", "planted-in-api-key")

__all__ = ["hook", "mine"]

dispatching = dispatching_with(dispatchers=1, LOG_LEVEL="debug")


async def echo(call: Call) -> web.StreamResponse:
    """Refuses a request, and sends back what was in it."""
    sent = {"you": "sent", **call.headers}
    return web.json_response(sent, status=503, headers={"X-Echo": call.headers["Authorization"]})


async def publish(mine: AccountChannels, *ids: str) -> None:
    events = [{"id": each, "topic": "orders.paid", "data": {"order": each}} for each in ids]
    await mine.api.publish(mine.key, *events)


async def attempts(mine: AccountChannels, channel: str, query: str = "") -> list[dict[str, Any]]:
    response = await mine.call("GET", f"/{channel}/deliveries{query}")
    assert response.status == 200, response.text
    found: list[dict[str, Any]] = response.json["deliveries"]
    return found


async def until(mine: AccountChannels, channel: str, query: str = "", *, count: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []

    async def are_there() -> bool:
        found[:] = await attempts(mine, channel, query)
        return len(found) >= count

    await wait_until(are_there)
    return found


async def retry(mine: AccountChannels, channel: str) -> None:
    assert (await mine.call("POST", f"/{channel}/deliveries/retry")).status == 202


async def create(mine: AccountChannels, url: str, headers: dict[str, str] | None = None) -> str:
    target = {"url": url, "headers": headers or {}}
    made = await mine.create("webhook", bindings=["orders.#"], webhook=target)
    return str(made["id"])


async def one(mine: AccountChannels, channel: str, attempt: dict[str, Any]) -> dict[str, Any]:
    response = await mine.call("GET", f"/{channel}/deliveries/{attempt['id']}")
    assert response.status == 200, response.text
    shown: dict[str, Any] = response.json
    assert {name: shown[name] for name in attempt} == attempt
    return shown


async def test_a_failure_shows_everything_that_its_owner_needs(mine: AccountChannels, hook: Webhook) -> None:
    hook.answer = echo
    url = f"{hook.url}?tenant=17"
    channel = await create(mine, url, {**PLANTED, "X-Tenant": "t-17"})
    await publish(mine, "e-1")

    [failed, *_] = await until(mine, channel, count=1)
    shown = await one(mine, channel, failed)

    [call, *_] = hook.calls
    assert (failed["url"], failed["outcome"], failed["status"], failed["error"]) == (url, "failure", 503, "")
    assert (failed["events"], failed["batch"], failed["again"]) == (["e-1"], 1, None)
    assert failed["webhook_id"] == call.webhook_id
    assert datetime.fromisoformat(failed["next_attempt_at"]) > datetime.fromisoformat(failed["at"])
    sent, answered = shown["request"], shown["response"]
    assert {name: sent["headers"][name] for name in PLANTED} == dict.fromkeys(PLANTED, "***")
    assert sent["headers"]["X-Tenant"] == "t-17"
    assert sent["headers"]["webhook-id"] == call.webhook_id
    assert sent["headers"]["webhook-signature"] == "***"
    assert (sent["body"]["text"], sent["body"]["encoding"]) == (call.body.decode(), "utf-8")
    assert sent["body_bytes"] == len(call.body)
    assert json.loads(answered["body"]["text"])["you"] == "sent"
    assert json.loads(answered["body"]["text"])["X-Tenant"] == "t-17"
    assert answered["headers"]["x-echo"] == "***"


async def test_a_failure_without_an_answer_says_why_in_words(mine: AccountChannels, hook: Webhook) -> None:
    channel = await create(mine, "http://127.0.0.1:1/no-listener")
    await publish(mine, "e-1")

    [failed, *_] = await until(mine, channel, count=1)
    shown = await one(mine, channel, failed)

    assert (failed["status"], failed["error"]) == (None, "not-connected")
    assert "refused" in failed["detail"]
    assert "e-1" in shown["request"]["body"]["text"]
    assert shown["response"] is None


async def test_a_body_that_is_no_text_is_base64_and_only_its_beginning(
    mine: AccountChannels, hook: Webhook
) -> None:
    async def binary(_: Call) -> web.StreamResponse:
        return web.Response(status=500, body=b"\xff" * 5000)

    hook.answer = binary
    channel = await create(mine, hook.url)
    await publish(mine, "e" * 200, *(f"{n}-{'x' * 100}" for n in range(30)))

    [failed, *_] = await until(mine, channel, count=1)
    shown = await one(mine, channel, failed)

    answer = shown["response"]["body"]
    assert (base64.b64decode(answer["text"]), answer["encoding"]) == (b"\xff" * 2048, "base64")
    assert len(shown["request"]["body"]["text"].encode()) <= 2048


async def test_attempts_are_found_by_event_and_outcome(mine: AccountChannels, hook: Webhook) -> None:
    hook.says(500)
    channel = await create(mine, hook.url)
    await publish(mine, "e-1")
    await until(mine, channel, count=1)
    await retry(mine, channel)
    await until(mine, channel, count=2)
    hook.takes()
    await retry(mine, channel)
    await until(mine, channel, "?outcome=success", count=1)
    await publish(mine, "e-2")
    await until(mine, channel, "?outcome=success", count=2)

    every = await attempts(mine, channel)
    of_first = await attempts(mine, channel, "?event_id=e-1")
    failures = await attempts(mine, channel, "?event_id=e-1&outcome=failure")
    [success] = await attempts(mine, channel, "?event_id=e-2")

    assert [each["outcome"] for each in of_first] == ["success", *["failure"] * len(failures)]
    assert every == [success, *of_first]
    assert failures == of_first[1:]
    assert {each["webhook_id"] for each in of_first} == {of_first[0]["webhook_id"]}
    assert (success["next_attempt_at"], success["events"]) == (None, ["e-2"])
    shown = await one(mine, channel, success)
    assert (shown["request"], shown["response"]) == (None, None)
    assert await attempts(mine, channel, "?event_id=e-3") == []
    paged: list[dict[str, Any]] = []
    after = ""
    while True:
        page = (await mine.call("GET", f"/{channel}/deliveries?limit=1{after}")).json
        paged += page["deliveries"]
        if page["next_after"] is None:
            break
        after = f"&after={page['next_after']}"
    assert paged == every


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=201",
        "limit=x",
        "outcome=bad",
        "after=x",
        "after=%2B",
        "event_id=%0A",
        "event_id=" + "x" * 256,
    ],
)
async def test_a_wrong_query_names_its_field(mine: AccountChannels, query: str) -> None:
    channel = await create(mine, "https://example.com/")

    response = await mine.call("GET", f"/{channel}/deliveries?{query}")

    assert response.status == 400
    assert query.partition("=")[0] in response.text


async def test_secrets_are_in_no_attempt_no_log_and_no_answer(
    mine: AccountChannels, hook: Webhook, dispatching: Stack
) -> None:
    hook.answer = echo
    channel = await create(mine, hook.url, PLANTED)
    signing = (await mine.call("GET", f"/{channel}/signing-secret")).json["signing_secret"]
    await publish(mine, "e-1")
    [failed, *_] = await until(mine, channel, count=1)

    signatures = [call.headers["webhook-signature"].partition(",")[2] for call in hook.calls]
    shown = await mine.call("GET", f"/{channel}/deliveries/{failed['id']}")
    listed = await mine.call("GET", f"/{channel}/deliveries")
    tested = await mine.call("POST", f"/{channel}/test")
    assert "***" in tested.json["response"]
    with dispatching.redis.client() as redis:
        stored = str(redis.xrange(keyspace.attempts(channel.removeprefix("ch_"))))
    logs = "".join(each.stdout + each.stderr for each in RUNNING)

    assert "delivery.attempted" in logs
    assert "e-1" in stored
    assert hook.calls[0].headers["Cookie"] == PLANTED["Cookie"], "the receiver gets them"
    for secret in (*SECRETS, signing, signing.removeprefix("whsec_"), *signatures):
        for text in (shown.text, listed.text, tested.text, stored, logs):
            assert secret not in text
