"""A publisher's trace covers the whole delivery: publish, queued, sent, acked."""

import secrets

import aiohttp

from tests.conftest import Listen, Start
from tests.harness.api import Api, ApiKey
from tests.harness.collector import Collector, Span, collecting
from tests.harness.events import reading
from tests.harness.processes import Service
from tests.harness.waiting import wait_until

STEPS = ("notification.queued", "notification.sent", "notification.acked")


def new_trace() -> tuple[str, str]:
    return secrets.token_hex(16), secrets.token_hex(8)


async def publish(api: Api, key: ApiKey, number: int, **headers: str) -> str:
    """Publishes an event for the key's own channel; returns its id."""
    event = reading(number, to=key.id)
    response = await api.call("POST", "/v1/events", key=key, json=event, headers=headers)
    assert response.status == 202, response.text
    return str(response.json["events"][0]["id"])


async def stopped(service: Service) -> None:
    """Stops the service, which exports its last spans."""
    service.terminate()
    await wait_until(lambda: service.ended)


def of_event(collector: Collector, event_id: str) -> list[Span]:
    return [span for span in collector.named(*STEPS) if span.facts["event"] == event_id]


async def test_a_sampled_trace_continues_to_the_ack(
    start: Start, http: aiohttp.ClientSession, listen: Listen
) -> None:
    with collecting() as collector:
        stack = start(edges=1, OTLP_URL=collector.url)
        api = Api(http, stack.gateways[0].url, stack.admin_token)
        key = await api.api_key()
        await api.register(key)
        sampled, unsampled = new_trace(), new_trace()
        traced = await publish(api, key, 0, traceparent=f"00-{sampled[0]}-{sampled[1]}-01")
        not_sampled = await publish(api, key, 1, traceparent=f"00-{unsampled[0]}-{unsampled[1]}-00")
        without_trace = await publish(api, key, 2)
        malformed = await publish(api, key, 3, traceparent=f"00-{sampled[0]}-{'0' * 16}-01")
        receiver = await listen(key, stack.edges[0].url)
        await receiver.received_numbers(range(4))
        await api.until(key, queue_size=0)
        await stopped(stack.edges[0])
        await stopped(stack.gateways[0])

    by_trace = [span for span in collector.named("publish") if span.trace == sampled[0]]
    [published] = by_trace
    assert published.parent == sampled[1]
    steps = {span.name: span for span in of_event(collector, traced)}
    assert set(steps) == set(STEPS)
    assert all(span.trace == sampled[0] and span.parent == published.id for span in steps.values())
    assert all(span.facts == {"channel": key.id, "event": traced} for span in steps.values())
    queued, sent, acked = (steps[step] for step in STEPS)
    assert queued.start_ns <= queued.end_ns <= sent.start_ns <= sent.end_ns <= acked.start_ns
    assert acked.start_ns <= acked.end_ns
    assert not [span for span in collector.spans if span.trace == unsampled[0]]
    assert [of_event(collector, event) for event in (not_sampled, without_trace, malformed)] == [[], [], []]
    assert [span.parent for span in collector.named("publish") if span.trace != sampled[0]] == ["", ""]
