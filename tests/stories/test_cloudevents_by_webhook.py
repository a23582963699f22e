"""What a publisher sends with the official SDK, a receiver reads with it from a signed request."""

import json
from typing import Any

import pytest
from cloudevents.core.bindings import http as binding
from cloudevents.core.v1.event import CloudEvent
from standardwebhooks import Webhook as Verifier

from tests.harness.channels import AccountChannels
from tests.harness.dispatching import dispatching_with, mine
from tests.harness.waiting import wait_until
from tests.harness.webhooks import Call, webhook
from tests.stories.test_cloudevents import MODES, send
from tests.wire.cloudevents import valid

SOURCE = {"source": "https://shop.example/%C3%BC?a=b#c", "type": "orders.paid"}
EVENTS = [
    CloudEvent({**SOURCE, "id": "json", "subject": "Größe 5 %", "region": "eu"}, {"number": 1}),
    CloudEvent({**SOURCE, "id": "text", "datacontenttype": "text/plain"}, "Grüße"),
    CloudEvent({**SOURCE, "id": "bytes", "datacontenttype": "image/png"}, b"\x89PNG\x00"),
]

__all__ = ["mine"]

dispatching = dispatching_with(dispatchers=1)


def read(call: Call) -> list[Any]:
    """The events of a request, by the SDK, each valid by the schema of CloudEvents."""
    media_type, body = call.headers["content-type"], json.loads(call.body)
    texts = [json.dumps(each).encode() for each in body] if isinstance(body, list) else [call.body]
    assert media_type == f"application/cloudevents{'-batch' if isinstance(body, list) else ''}+json"
    for text in texts:
        valid(text)
    headers = {"content-type": "application/cloudevents+json"}
    return [binding.from_structured_event(binding.HTTPMessage(headers, text)) for text in texts]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("form", ["cloudevents", "cloudevents-batch"])
async def test_there_and_back(mine: AccountChannels, form: str, mode: str) -> None:
    async with webhook() as hook:
        target = {"url": hook.url, "format": form}
        channel = str((await mine.create("webhook", bindings=["orders.#"], webhook=target))["id"])
        shown = await mine.call("GET", f"/{channel}/signing-secret")
        await mine.do(channel, "pause")
        for each in EVENTS:
            response = await send(mine.api, mine.key, mode, each)
            assert response.status == 202, response.text
        await mine.do(channel, "resume")
        await wait_until(lambda: len(hook.events) == len(EVENTS), what=lambda: hook.calls)

    for call in hook.calls:
        Verifier(shown.json["signing_secret"]).verify(call.body, dict(call.headers))
    came = [event for call in hook.calls for event in read(call)]
    assert [event.get_data() for event in came] == [event.get_data() for event in EVENTS]
    # Without a media type the data is JSON, and goes out as such.
    usual = {"datacontenttype": "application/json"}
    assert [event.get_attributes() for event in came] == [usual | event.get_attributes() for event in EVENTS]
    assert len(hook.calls) == (len(EVENTS) if form == "cloudevents" else 1)
