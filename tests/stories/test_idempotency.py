"""Idempotency-Key: a repeated request, through any gateway, publishes once and gets the first response."""

import asyncio
import json
from typing import Any

import pytest

from tests.conftest import Listen
from tests.harness.api import Api, ApiKey, Response
from tests.harness.events import reading, readings
from tests.harness.proxy import gateway_behind_proxy
from tests.harness.raw import exchange
from tests.harness.stack import Stack
from tests.stories.test_errors import assert_error

REPLAYED = "Idempotent-Replayed"


async def post(api: Api, key: ApiKey, events: object, *, under: str) -> Response:
    return await api.call("POST", "/v1/events", key=key, json=events, headers={"Idempotency-Key": under})


def ids_in(response: Response) -> list[str]:
    assert response.status == 202, response.text
    return [event["id"] for event in response.json["events"]]


async def test_a_repetition_gets_the_first_response_and_queues_nothing(
    api: Api, other_api: Api, channel: ApiKey
) -> None:
    events = readings(range(3), to=channel.id)

    first = await post(api, channel, events, under="order-17")
    again = [await post(each, channel, events, under="order-17") for each in (api, other_api)]

    assert first.status == 202
    assert REPLAYED not in first.headers
    for response in again:
        assert (response.status, response.text) == (202, first.text)
        assert response.headers[REPLAYED] == "true"
        assert response.headers["Content-Type"] == first.headers["Content-Type"]
    assert await api.queue_size(channel) == 3


async def test_the_first_response_is_kept_after_changes(api: Api, channel: ApiKey) -> None:
    event = reading(1, to=channel.id)
    first = await post(api, channel, event, under="before")
    assert first.json["events"][0]["channels"] == 1
    await api.delete_channel(channel)

    assert (await post(api, channel, event, under="before")).text == first.text
    assert (await post(api, channel, event, under="after")).json["events"][0]["channels"] == 0


async def test_a_long_response_is_repeated_byte_for_byte(api: Api, other_api: Api, channel: ApiKey) -> None:
    events = [{"topic": "t", "data": n} | ({"to": channel.id} if n % 3 else {}) for n in range(10_000)]

    first = await post(api, channel, events, under="long")
    again = await post(other_api, channel, events, under="long")

    assert first.status == 202
    assert again.text == first.text
    assert again.headers[REPLAYED] == "true"


async def test_without_the_header_a_repetition_is_queued_again(api: Api, channel: ApiKey) -> None:
    responses = [await api.post_events(channel, reading(1, to=channel.id)) for _ in range(2)]

    assert not any(REPLAYED in response.headers for response in responses)
    assert await api.queue_size(channel) == 2


async def test_a_quoted_key_equals_a_bare_one(api: Api, channel: ApiKey) -> None:
    """The IETF draft requires a quoted string; most publishers send it bare."""
    event = reading(1, to=channel.id)

    first = await post(api, channel, event, under="8e03978e-40d5-43dd-bc93-6894a57f9324")
    again = await post(api, channel, event, under='"8e03978e-40d5-43dd-bc93-6894a57f9324"')

    assert again.text == first.text
    assert again.headers[REPLAYED] == "true"


async def test_different_keys_are_different_requests(api: Api, channel: ApiKey) -> None:
    event = reading(1, to=channel.id)

    responses = [await post(api, channel, event, under=under) for under in ("a", "A", "a b", "x" * 255)]

    assert len({ids_in(response)[0] for response in responses}) == len(responses)
    assert await api.queue_size(channel) == len(responses)


async def test_idempotency_keys_are_per_api_key(api: Api, channel: ApiKey) -> None:
    colleague = await api.api_key(account=channel.account)
    event = reading(1, to=channel.id)

    responses = [await post(api, each, event, under="mine") for each in (channel, colleague)]

    assert REPLAYED not in responses[1].headers
    assert ids_in(responses[0]) != ids_in(responses[1])
    assert await api.queue_size(channel) == 2


async def test_receivers_get_the_ids_in_the_response(api: Api, channel: ApiKey, listen: Listen) -> None:
    events = [
        {"topic": "orders", "data": 1, "to": channel.id},
        {"topic": "orders", "data": 2, "to": channel.id, "id": "my-own"},
        {"topic": "orders", "data": 3, "to": channel.id},
    ]

    ids = ids_in(await post(api, channel, events, under="ids"))

    assert ids[1] == "my-own"
    assert len(set(ids)) == 3
    receiver = await listen(channel)
    assert [item["id"] for _, item in await receiver.received(3)] == ids


@pytest.mark.parametrize(
    ("body", "media_type"),
    [
        pytest.param('{"topic":"t","data":2}', "application/json", id="another body"),
        pytest.param('{"topic":"t", "data":1}', "application/json", id="another spelling"),
        pytest.param('{"topic":"t","data":1}', "application/x-ndjson", id="another content type"),
    ],
)
async def test_a_key_reused_for_another_body_is_a_422(
    api: Api, other_api: Api, key: ApiKey, body: str, media_type: str
) -> None:
    async def send(through: Api, data: str, content_type: str) -> Response:
        headers = {"Idempotency-Key": "taken", "Content-Type": content_type}
        return await through.call("POST", "/v1/events", key=key, data=data, headers=headers)

    first = await send(api, '{"topic":"t","data":1}', "application/json")
    other = await send(other_api, body, media_type)
    same = await send(other_api, '{"topic":"t","data":1}', "Application/JSON; charset=utf-8")

    assert first.status == 202
    assert_error(other, 422, "idempotency_mismatch", field="Idempotency-Key")
    assert same.text == first.text


@pytest.mark.parametrize(
    "wrong", [{"to": "0" * 32}, {"topic": "a b"}, {"data": "x" * 300_000}], ids=["to", "topic", "too long"]
)
async def test_a_refused_request_does_not_use_up_its_key(
    api: Api, channel: ApiKey, wrong: dict[str, Any]
) -> None:
    event = reading(1, to=channel.id)
    refused = [await post(api, channel, [event, event | wrong], under="mended") for _ in range(2)]
    assert [response.status // 100 for response in refused] == [4, 4]
    assert refused[0].json["fields"] == refused[1].json["fields"]

    response = await post(api, channel, [event], under="mended")

    assert response.status == 202
    assert REPLAYED not in response.headers
    assert await api.queue_size(channel) == 1


async def test_of_concurrent_requests_one_is_carried_out(api: Api, other_api: Api, channel: ApiKey) -> None:
    events = readings(range(5), to=channel.id)

    responses = await asyncio.gather(
        *(post((api, other_api)[n % 2], channel, events, under="storm") for n in range(40))
    )

    assert {response.status for response in responses} <= {202, 409}
    done = [response for response in responses if response.status == 202]
    assert sum(REPLAYED not in response.headers for response in done) == 1
    assert len({response.text for response in done}) == 1
    assert await api.queue_size(channel) == 5


async def test_a_repetition_during_the_first_request_is_a_409(
    stack: Stack, api: Api, other_api: Api, channel: ApiKey
) -> None:
    event = {"topic": "t", "data": "stop here", "to": channel.id}
    async with gateway_behind_proxy(stack) as (gateway, proxy):
        slow_api = api.at(gateway.url)
        proxy.hold_from(b"stop here")
        first = asyncio.create_task(post(slow_api, channel, event, under="slow"))
        await proxy.until_it_holds()

        early = await post(other_api, channel, event, under="slow")
        other = await post(other_api, channel, event | {"data": 2}, under="slow")
        proxy.let_go()
        done = await first

    assert_error(early, 409, "conflict", field="Idempotency-Key")
    assert int(early.headers["Retry-After"]) >= 1
    assert_error(other, 422, "idempotency_mismatch", field="Idempotency-Key")
    assert done.status == 202
    again = await post(other_api, channel, event, under="slow")
    assert again.text == done.text
    assert again.headers[REPLAYED] == "true"
    assert await api.queue_size(channel) == 1


@pytest.mark.parametrize("given", ["", '""', '"open', 'a"b"\tc"', '"a"b', '"a\\b"', "x" * 256, "clé"])
async def test_an_invalid_key_is_refused(api: Api, channel: ApiKey, given: str) -> None:
    response = await post(api, channel, reading(1, to=channel.id), under=given)

    assert_error(response, 400, "validation_error", field="Idempotency-Key")
    assert await api.queue_size(channel) == 0


async def test_two_idempotency_keys_are_refused(api: Api, key: ApiKey) -> None:
    body = '{"topic":"t","data":1}'
    lines = ["POST /v1/events HTTP/1.1", "Host: localhost", f"Authorization: Bearer {key.secret}"]
    lines += ["Idempotency-Key: a", "Idempotency-Key: a", f"Content-Length: {len(body)}", "", body]

    status, _, text = await exchange(api.url, "\n".join(lines))

    assert status == 400
    assert json.loads(text)["fields"][0]["name"] == "Idempotency-Key"


async def test_other_endpoints_ignore_the_header(api: Api, key: ApiKey) -> None:
    for status in (201, 200):
        response = await api.call(
            "PUT", "/v2/notification/websocket", key=key, headers={"Idempotency-Key": "x"}
        )
        assert response.status == status
