"""CloudEvents in by the official SDK, in each mode, and out to each receiver."""

import json
from typing import Any

import orjson
import pytest
from cloudevents.core.bindings import http
from cloudevents.core.v1.event import CloudEvent

from tests.conftest import Listen
from tests.harness.api import Api, ApiKey, Response
from tests.harness.channels import AccountChannels
from tests.stories.test_errors import assert_error

BATCH = "application/cloudevents-batch+json"
MODES = ["structured", "binary", "batch"]


def order(number: int, **more: Any) -> CloudEvent:
    attributes = {"type": "orders.paid", "source": "/shop", "id": f"e{number}", "subject": "Größe 5 %"}
    return CloudEvent({**attributes, **more}, {"number": number, "country": "de"})


async def send(api: Api, key: ApiKey, mode: str, *events: CloudEvent, **more: str) -> Response:
    """Sends them in one request, so one at most unless it is a batch."""
    if mode == "batch":
        body = b"[" + b",".join(http.to_structured_event(each).body for each in events) + b"]"
        headers = {"content-type": BATCH}
    else:
        [event] = events
        made = http.to_binary_event(event) if mode == "binary" else http.to_structured_event(event)
        # The SDK names no media type for JSON, and the HTTP client would name one of its own.
        headers, body = {"content-type": "application/json", **made.headers}, made.body
    return await api.call("POST", "/v1/events", key=key, data=body, headers={**headers, **more})


@pytest.fixture
async def mine(api: Api) -> AccountChannels:
    """The channels of a new account, by a key that publishes too."""
    return AccountChannels(api, await api.api_key(scopes=("publish", "channels")))


@pytest.mark.parametrize("mode", MODES)
async def test_a_pull_channel_gets_data_and_attributes(mine: AccountChannels, mode: str) -> None:
    where = {"topic": "orders.#", "where": {"country": "de"}}
    channel = str((await mine.create("pull", bindings=[where]))["id"])

    response = await send(mine.api, mine.key, mode, order(1, region="eu"))

    assert (response.status, response.json) == (202, {"events": [{"id": "e1", "channels": 1}]}), response.text
    [event] = (await mine.fetch(channel)).events
    assert (event["id"], event["topic"], event["name"]) == ("e1", "orders.paid", None)
    assert event["data"] == {"number": 1, "country": "de"}
    attributes = {"source": "/shop", "subject": "Größe 5 %", "region": "eu"}
    assert attributes.items() <= event["attributes"].items()


@pytest.mark.parametrize("mode", MODES)
async def test_pelions_socket_gets_the_data(api: Api, channel: ApiKey, listen: Listen, mode: str) -> None:
    receiver = await listen(channel)

    response = await send(api, channel, mode, order(1, notifyto=channel.id))

    assert response.status == 202, response.text
    [(section, item)] = await receiver.received(1)
    assert section == "events"
    assert set(item) == {"id", "topic", "name", "time", "data"}
    assert (item["id"], item["topic"], item["name"]) == ("e1", "orders.paid", None)
    assert item["data"] == {"number": 1, "country": "de"}


@pytest.mark.parametrize("subject", ["short", "a long one" * 50])
async def test_a_batch_keeps_its_order(mine: AccountChannels, subject: str) -> None:
    """Also one that is so long that others have their turns while it is read."""
    channel = str((await mine.create("pull", bindings=["orders.#"]))["id"])

    batch = (order(number, subject=subject) for number in range(100))
    response = await send(mine.api, mine.key, "batch", *batch)

    assert response.status == 202, response.text
    assert (await mine.fetch(channel, max=100)).numbers == list(range(100))


async def test_one_id_of_two_sources_has_two_receipts(api: Api, channel: ApiKey) -> None:
    of_a = order(1, source="/a?x=1", notifyto=channel.id, notifyreceipt=True)
    of_b = order(1, source="/b", type="orders.sent", notifyto=channel.id, notifyreceipt=True)
    assert (await send(api, channel, "batch", of_a, of_b)).status == 202

    a = await api.call("GET", "/v1/events/e1?source=%2Fa%3Fx%3D1", key=channel)
    b = await api.call("GET", "/v1/events/e1?source=/b", key=channel)

    assert [a.json["topic"], b.json["topic"]] == ["orders.paid", "orders.sent"]
    assert (await api.receipt(channel, "e1")).status == 404


async def test_binary_headers_belong_to_an_idempotent_request(mine: AccountChannels) -> None:
    """The body is the data alone: another event may have the same."""
    key = {"idempotency-key": "one"}
    event = order(1)
    other = CloudEvent({**event.get_attributes(), "subject": "another"}, {"number": 1, "country": "de"})

    [first, again] = [await send(mine.api, mine.key, "binary", event, **key) for _ in range(2)]
    refused = await send(mine.api, mine.key, "binary", other, **key)

    assert (first.status, again.status, again.text) == (202, 202, first.text)
    assert refused.status == 422


@pytest.mark.parametrize("hot", [False, True])
@pytest.mark.parametrize(
    ("headers", "body", "field"),
    [
        ({"content-type": "application/cloudevents+json"}, b'{"specversion":"0.3"}', "specversion"),
        ({"content-type": "application/cloudevents+avro"}, b"{}", "Content-Type"),
        ({"content-type": BATCH}, b'[{"specversion":"1.0","id":"1"}]', "[0].source"),
        ({"content-type": "application/json", "ce-id": "1"}, b"{}", "ce-specversion"),
        ({"content-type": "application/json", "ce-specversion": "1.0", "ce-id": "1", "ce-source": "a",
          "ce-type": "b", "ce-notifyto": "unknown"}, b"{}", "ce-notifyto"),
    ],
)  # fmt: skip
async def test_an_error_names_the_attribute(
    api: Api, channel: ApiKey, headers: dict[str, str], body: bytes, field: str, *, hot: bool
) -> None:
    """As the hot route has it, and as the app does, which has every request with an Idempotency-Key."""
    more = {} if hot else {"idempotency-key": "one"}

    response = await api.call("POST", "/v1/events", key=channel, data=body, headers={**headers, **more})

    assert_error(response, 400, "validation_error")
    assert [each["name"] for each in response.json["fields"]] == [field]


async def test_a_header_that_merely_begins_so_changes_nothing(api: Api, channel: ApiKey) -> None:
    body = orjson.dumps({"topic": "orders.paid", "data": 1})

    response = await api.call("POST", "/v1/events", key=channel, data=body, headers={"ce-trace": "1"})

    assert response.status == 202
    assert len(json.loads(response.text)["events"]) == 1
