"""Events as NDJSON, one a line; an invalid line refuses the whole request, and the error names it."""

import json
from typing import Any

import pytest

from tests.conftest import Listen
from tests.harness.api import Api, ApiKey, Response
from tests.harness.events import reading, readings
from tests.stories.test_errors import assert_error


async def post(api: Api, key: ApiKey, body: str, *, media_type: str = "application/x-ndjson") -> Response:
    headers = {"Content-Type": media_type}
    return await api.call("POST", "/v1/events", key=key, data=body.encode(), headers=headers)


def lines(*events: dict[str, Any]) -> str:
    return "".join(json.dumps(event) + "\n" for event in events)


@pytest.mark.parametrize(
    "media_type",
    ["application/x-ndjson", "application/ndjson", "Application/X-NDJSON ; charset=utf-8"],
)
async def test_one_event_a_line(api: Api, channel: ApiKey, listen: Listen, media_type: str) -> None:
    response = await post(api, channel, lines(*readings(range(50), to=channel.id)), media_type=media_type)

    assert response.status == 202
    assert [event["channels"] for event in response.json["events"]] == [1] * 50
    await (await listen(channel)).received_numbers(range(50))


async def test_a_single_line_without_a_line_end(api: Api, channel: ApiKey) -> None:
    response = await post(api, channel, json.dumps(reading(1, to=channel.id)))

    assert [event["channels"] for event in response.json["events"]] == [1]


async def test_blank_lines_and_crlf_are_accepted(api: Api, channel: ApiKey, listen: Listen) -> None:
    posted = [json.dumps(event) for event in readings(range(3), to=channel.id)]

    response = await post(api, channel, f"\n  \r\n{posted[0]}\r\n\t\n {posted[1]} \n\n{posted[2]}\n\n")

    assert response.status == 202
    await (await listen(channel)).received_numbers(range(3))


NAMED: list[tuple[str, str]] = [
    ('{"topic": "orders"', "line 5"),
    ("orders", "line 5"),
    ("[1, 2]", "line 5"),
    ('[{"topic": "orders", "data": 1}]', "line 5"),
    ('{"topic": "a", "data": 1} {"topic": "b", "data": 2}', "line 5"),
    ('{"data": 1}', "line 5.topic"),
    ('{"topic": "orders", "data": 1, "to": "unknown"}', "line 5.to"),
    ('{"topic": "device.notifications", "data": {"path": "/1"}}', "line 5.data.ep"),
]


@pytest.mark.parametrize(("wrong", "name"), NAMED)
async def test_an_invalid_line_is_named_and_nothing_is_queued(
    api: Api, channel: ApiKey, wrong: str, name: str
) -> None:
    good = json.dumps(reading(1, to=channel.id))

    response = await post(api, channel, f"{good}\n\n{good}\n \r\n{wrong}\n{good}\n")

    assert_error(response, 400, "validation_error", field=name)
    assert [field["name"] for field in response.json["fields"]] == [name]
    assert await api.queue_size(channel) == 0


@pytest.mark.parametrize("body", ["", "\n", " \r\n\n"])
async def test_a_body_without_events_is_refused(api: Api, key: ApiKey, body: str) -> None:
    assert_error(await post(api, key, body), 400, "validation_error")


async def test_the_limits_are_those_of_json(api: Api, channel: ApiKey) -> None:
    line = '{"topic":"t","data":0}\n'
    long = lines({"topic": "t", "data": "x" * 257 * 1024})

    response = await post(api, channel, line * 10_000)
    assert len(response.json["events"]) == 10_000
    assert_error(await post(api, channel, line * 10_001), 413, "payload_too_large")
    assert_error(await post(api, channel, line + long), 413, "payload_too_large", field="line 2.data")
    assert_error(await post(api, channel, "\n" * (8 * 1024 * 1024 + 1)), 413, "payload_too_large")


async def test_the_content_type_selects_ndjson(api: Api, key: ApiKey) -> None:
    two = lines({"topic": "t", "data": 1}, {"topic": "t", "data": 2})

    assert_error(await post(api, key, two, media_type="application/json"), 400, "validation_error")
    assert_error(await post(api, key, "[" + two.strip() + "]"), 400, "validation_error", field="line 1")


async def test_ndjson_with_an_idempotency_key(api: Api, other_api: Api, channel: ApiKey) -> None:
    body = lines(*readings(range(3), to=channel.id))
    headers = {"Content-Type": "application/x-ndjson", "Idempotency-Key": "lines"}

    first, again = [
        await each.call("POST", "/v1/events", key=channel, data=body, headers=headers)
        for each in (api, other_api)
    ]

    assert first.status == 202
    assert again.text == first.text
    assert again.headers["Idempotent-Replayed"] == "true"
    assert await api.queue_size(channel) == 3
