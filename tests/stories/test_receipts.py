"""Receipts: for an hour a publisher can read what became of its event in each channel."""

from typing import Any

import pytest

from tests.conftest import Listen, ListenSilently
from tests.harness.api import Api, ApiKey, Response
from tests.harness.events import Event, reading
from tests.harness.stack import Stack
from tests.harness.waiting import wait_until
from tests.stories.test_errors import assert_error


async def published(api: Api, key: ApiKey, *events: Event, **headers: str) -> list[str]:
    """Publishes events with receipts; returns their ids."""
    asking = [event | {"receipt": True} for event in events]
    response = await api.call("POST", "/v1/events", key=key, json=asking, headers=headers)
    assert response.status == 202, response.text
    return [each["id"] for each in response.json["events"]]


async def receipt(api: Api, key: ApiKey, event_id: str) -> Any:
    response = await api.receipt(key, event_id)
    assert response.status == 200, response.text
    return response.json


async def state_of(api: Api, key: ApiKey, event_id: str) -> dict[str, str]:
    """The state in the event's only channel."""
    [channel] = (await receipt(api, key, event_id))["channels"]
    return dict(channel)


async def until(api: Api, key: ApiKey, event_id: str, state: str) -> dict[str, str]:
    """Waits until the event has this state in its only channel."""

    async def is_there() -> bool:
        return (await state_of(api, key, event_id))["state"] == state

    await wait_until(is_there, what=state)
    return await state_of(api, key, event_id)


async def test_a_receipt_is_queued_and_then_acked(
    api: Api, other_api: Api, channel: ApiKey, listen: Listen
) -> None:
    [event] = await published(api, channel, reading(1, to=channel.id))

    queued = await receipt(other_api, channel, event)
    await listen(channel)
    acked = await until(api, channel, event, "acked")

    [before] = queued["channels"]
    assert set(queued) == {"id", "topic", "published_at", "channels", "channels_total"}
    assert (queued["id"], queued["topic"], queued["channels_total"]) == (event, "device.notifications", 1)
    assert before == {"channel": channel.id, "state": "queued", "queued_at": before["queued_at"]}
    assert set(acked) == {"channel", "state", "queued_at", "sent_at", "acked_at"}
    assert before["queued_at"] == acked["queued_at"] <= acked["sent_at"] <= acked["acked_at"]


async def test_sent_is_not_acked(
    api: Api, channel: ApiKey, stack: Stack, listen: Listen, listen_silently: ListenSilently
) -> None:
    """The first client acks nothing; the next socket receives the event again and acks it."""
    await listen_silently(channel, stack.edges[0].url)
    [event] = await published(api, channel, reading(1, to=channel.id))
    sent = await until(api, channel, event, "sent")

    await listen(channel, stack.edges[1].url)

    acked = await until(api, channel, event, "acked")
    assert set(sent) == {"channel", "state", "queued_at", "sent_at"}
    assert acked["sent_at"] == sent["sent_at"], "the time of the first send"


async def test_deleting_the_channel_drops_its_events(api: Api, channel: ApiKey) -> None:
    [event] = await published(api, channel, reading(1, to=channel.id))

    await api.delete_channel(channel)

    shown = await state_of(api, channel, event)
    assert (shown["state"], shown["reason"]) == ("dropped", "channel-deleted")
    assert shown["dropped_at"] >= shown["queued_at"]


async def test_each_channel_has_its_own_state(api: Api, channel: ApiKey, listen: Listen) -> None:
    colleague, third = [await api.api_key(account=channel.account) for _ in range(2)]
    for key in (channel, colleague, third):
        await api.call("PUT", "/v1/bindings", key=key, json=["orders.#"])
    await api.register(colleague)
    receiver = await listen(colleague)
    [event] = await published(api, channel, {"topic": "orders.paid", "data": 1})
    await receiver.received(1)
    await api.until(colleague, queue_size=0)

    shown = await receipt(api, channel, event)

    assert {each["channel"]: each["state"] for each in shown["channels"]} == {
        channel.id: "queued",
        colleague.id: "acked",
    }
    assert shown["channels_total"] == 2, "the third has no channel"


async def test_an_event_without_a_matching_channel(api: Api, key: ApiKey) -> None:
    [event] = await published(api, key, {"topic": "orders.paid", "data": 1})

    shown = await receipt(api, key, event)

    assert (shown["channels"], shown["channels_total"]) == ([], 0)


async def test_only_events_that_ask_for_a_receipt_have_one(api: Api, channel: ApiKey) -> None:
    events = [reading(n, to=channel.id) | {"receipt": n == 1} for n in range(2)]
    response = await api.post_events(channel, [*events, reading(2, to=channel.id)])

    ids = [each["id"] for each in response.json["events"]]

    assert [(await api.receipt(channel, event)).status for event in ids] == [404, 200, 404]


async def test_receipts_expire_after_an_hour(api: Api, channel: ApiKey, stack: Stack) -> None:
    [event] = await published(api, channel, reading(1, to=channel.id))
    with stack.redis.client() as redis:
        of = (channel.id, channel.account)
        names = [name for i in of for name in redis.scan_iter(f"{{{i}}}:receipt*", count=10_000)]
        assert len(names) == 3
        assert all(3_500_000 < redis.pttl(name) <= 3_600_000 for name in names)
        for name in names:
            redis.pexpire(name, 1)

    async def is_gone() -> bool:
        return (await api.receipt(channel, event)).status == 404

    await wait_until(is_gone)
    assert_error(await api.receipt(channel, event), 404, "not_found")


async def test_an_idempotent_repetition_keeps_the_receipt(api: Api, other_api: Api, channel: ApiKey) -> None:
    one = reading(1, to=channel.id)
    [event] = await published(api, channel, one, **{"Idempotency-Key": "once"})
    shown = await receipt(api, channel, event)

    again = await published(other_api, channel, one, **{"Idempotency-Key": "once"})

    assert again == [event]
    assert await receipt(api, channel, event) == shown


@pytest.mark.parametrize("given", ["a/b", "%2F", "a/../b", "?x#y", "größer als {x}:channel", "x" * 255])
async def test_any_valid_event_id_can_be_queried(api: Api, channel: ApiKey, given: str) -> None:
    await published(api, channel, reading(1, to=channel.id) | {"id": given})

    assert (await receipt(api, channel, given))["id"] == given


async def test_receipts_need_the_publish_scope_and_the_same_account(api: Api, channel: ApiKey) -> None:
    [event] = await published(api, channel, reading(1, to=channel.id))
    colleague = await api.api_key(account=channel.account, scopes=("publish",))
    receiver = await api.api_key(account=channel.account, scopes=("receive",))
    stranger = await api.api_key()

    def asked_by(key: ApiKey | None) -> Any:
        return api.call("GET", f"/v1/events/{event}", key=key)

    responses: list[Response] = [await asked_by(key) for key in (colleague, receiver, stranger, None)]

    assert [response.status for response in responses] == [200, 403, 404, 401]


async def test_receipt_must_be_a_boolean(api: Api, channel: ApiKey) -> None:
    response = await api.post_events(channel, reading(1, to=channel.id) | {"receipt": "yes"})

    assert_error(response, 400, "validation_error", field="receipt")
    assert await api.queue_size(channel) == 0
