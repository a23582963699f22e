"""Bindings to plain topics: matching events arrive under `events`, from the next publish on."""

import asyncio
from typing import Any

import pytest

from tests.conftest import Listen
from tests.harness.api import Api, ApiKey, Response
from tests.harness.events import Event, reading


async def put(api: Api, key: ApiKey, topics: object) -> Response:
    return await api.call("PUT", "/v1/bindings", key=key, json=topics)


async def bind(api: Api, key: ApiKey, *topics: str) -> None:
    response = await put(api, key, list(topics))
    assert (response.status, response.text) == (204, "")


async def bound(api: Api, key: ApiKey) -> Any:
    response = await api.call("GET", "/v1/bindings", key=key)
    assert response.status == 200
    return response.json


def event(topic: str, data: object = 1, **more: str) -> Event:
    return {"topic": topic, "data": data, **more}


@pytest.mark.parametrize(
    ("pattern", "topic", "wanted"),
    [
        ("orders.paid", "orders.paid", True),
        ("orders.paid", "orders.paid.late", False),
        ("orders.*.created", "orders.eu.created", True),
        ("orders.*.created", "orders.created", False),
        ("orders.*.created", "orders.eu.west.created", False),
        ("audit.#", "audit", True),
        ("audit.#", "audit.login.failed", True),
        ("audit.#", "audits", False),
        ("#", "anything.at.all", True),
        ("#.failed", "audit.login.failed", True),
        ("device", "device", True),
    ],
)
async def test_pattern_matching(api: Api, channel: ApiKey, pattern: str, topic: str, wanted: bool) -> None:
    await bind(api, channel, pattern)

    assert await api.publish(channel, event(topic)) == [int(wanted)]

    assert await api.queue_size(channel) == int(wanted)


async def test_an_event_arrives_with_its_fields(api: Api, channel: ApiKey, listen: Listen) -> None:
    await bind(api, channel, "orders.#", "audit.*")
    receiver = await listen(channel)

    first = event("orders.eu.created", {"order": 17}, id="e-1", name="created", time="noon")
    second = event("audit.login", "x", id="e-2")
    assert await api.publish(channel, first, event("nothing"), second) == [1, 0, 1]

    (_, one), (_, two) = await receiver.received(2)
    assert {section for section, _ in receiver.items} == {"events"}
    assert one == {**first, "name": "created", "time": "noon"}
    assert (two["id"], two["topic"], two["data"]) == ("e-2", "audit.login", "x")


async def test_a_change_takes_effect_with_the_next_publish_through_any_gateway(
    api: Api, other_api: Api, channel: ApiKey
) -> None:
    for here, there in ((api, other_api), (other_api, api)) * 10:
        await bind(here, channel, "orders.*")
        assert await there.publish(channel, event("orders.paid")) == [1]
        await bind(there, channel)
        assert await here.publish(channel, event("orders.paid")) == [0]


async def test_concurrent_changes_of_many_keys_all_take_effect(api: Api, other_api: Api) -> None:
    publisher = await api.api_key()
    keys = [await api.api_key(account=publisher.account) for _ in range(8)]
    await asyncio.gather(*(api.register(key) for key in keys))

    async def change(number: int) -> None:
        here, there = (api, other_api) if number % 2 else (other_api, api)
        for turn in range(5):
            await bind(here, keys[number], f"own.{number}.{turn}", f"own.{number}.{turn}.#")
            publishing = there.publish(
                publisher, event(f"own.{number}.{turn}"), event(f"own.{number}.{turn - 1}")
            )
            assert await publishing == [1, 0]

    await asyncio.gather(*(change(number) for number in range(len(keys))))


async def test_several_matching_bindings_give_one_notification(
    api: Api, channel: ApiKey, listen: Listen
) -> None:
    await bind(api, channel, "orders.*", "orders.paid", "#", "orders.paid")

    assert await api.publish(channel, event("orders.paid", id="once")) == [1]

    receiver = await listen(channel)
    await api.publish(channel, event("last", id="last"))
    assert [item["id"] for _, item in await receiver.received(2)] == ["once", "last"]


async def test_topic_bindings_do_not_match_device_topics(api: Api, channel: ApiKey) -> None:
    await bind(api, channel, "#", "device.#", "device.notifications")

    unwanted = [reading(1), event("device.unheard-of")]
    assert await api.publish(channel, *unwanted) == [0, 0]
    await api.subscribe(channel, {"endpoint-name": "*"})
    assert await api.publish(channel, *unwanted, event("other")) == [1, 0, 1]


async def test_an_addressed_event_ignores_bindings(api: Api, channel: ApiKey) -> None:
    sibling = await api.api_key(account=channel.account)
    await api.register(sibling)
    await bind(api, channel, "#")

    assert await api.publish(channel, event("orders.paid", to=sibling.id)) == [1]

    assert (await api.queue_size(channel), await api.queue_size(sibling)) == (0, 1)


async def test_bindings_match_only_events_of_their_account(api: Api, channel: ApiKey) -> None:
    await bind(api, channel, "#")

    assert await api.publish(await api.api_key(), event("orders.paid")) == [0]


async def test_bindings_exist_without_a_channel_and_outlive_it(api: Api, key: ApiKey) -> None:
    await bind(api, key, "orders.*")
    assert await api.publish(key, event("orders.paid")) == [0]

    for _ in range(2):
        await api.register(key)
        assert await api.publish(key, event("orders.paid")) == [1]
        await api.delete_channel(key)
        assert await api.publish(key, event("orders.paid")) == [0]
        assert await bound(api, key) == ["orders.*"]


async def test_bindings_and_presubscriptions_are_independent(api: Api, key: ApiKey) -> None:
    await bind(api, key, "orders.*")
    await api.subscribe(key, {"endpoint-name": "a"})
    assert (await bound(api, key), await api.subscriptions(key)) == (["orders.*"], [{"endpoint-name": "a"}])

    await api.subscribe(key)
    assert await bound(api, key) == ["orders.*"]

    await api.subscribe(key, {"endpoint-name": "a"})
    await bind(api, key)
    assert (await bound(api, key), await api.subscriptions(key)) == ([], [{"endpoint-name": "a"}])


async def test_put_replaces_all_bindings_and_get_returns_them(api: Api, other_api: Api, key: ApiKey) -> None:
    assert await bound(api, key) == []
    await bind(api, key, "b.#", "a", "ä.*")
    assert await bound(other_api, key) == ["b.#", "a", "ä.*"]

    await bind(api, key, "c")
    assert await bound(api, key) == ["c"]

    for _ in range(2):
        assert (await api.call("DELETE", "/v1/bindings", key=key)).status == 204
        assert await bound(api, key) == []


async def test_bindings_at_the_limits_are_accepted(api: Api, key: ApiKey) -> None:
    for topics in (["x" * 255], [f"t.{n}" for n in range(1024)]):
        await bind(api, key, *topics)
        assert await bound(api, key) == topics


@pytest.mark.parametrize(
    ("topics", "field"),
    [
        (["ok", "x" * 256], "[1]"),
        ([""], "[0]"),
        ([5], "[0]"),
        ([None], "[0]"),
        (["a", ["b"]], "[1]"),
        (["a b"], "[0]"),
        (["orders*"], "[0]"),
        (["orders.#x"], "[0]"),
        ([f"t.{n}" for n in range(1025)], ""),
        ({"topic": "a"}, ""),
        ("a", ""),
        (None, ""),
    ],
)
async def test_invalid_bindings_are_refused_and_change_nothing(
    api: Api, key: ApiKey, topics: object, field: str
) -> None:
    await bind(api, key, "before")

    response = await put(api, key, topics)

    assert (response.status, response.json["type"]) == (400, "validation_error")
    assert [each["name"] for each in response.json["fields"]] == ([field] if field else [])
    assert await bound(api, key) == ["before"]


async def test_bindings_need_the_receive_scope(api: Api) -> None:
    publisher = await api.api_key(scopes=("publish",))
    for method in ("GET", "PUT", "DELETE"):
        assert (await api.call(method, "/v1/bindings", key=publisher, json=[])).status == 403
        assert (await api.call(method, "/v1/bindings", json=[])).status == 401


@pytest.mark.parametrize("topic", ["system", "system.", "system.webhook.disabled", "system.a b"])
async def test_topics_of_our_own_cannot_be_published(api: Api, channel: ApiKey, topic: str) -> None:
    await bind(api, channel, "#", "system.#")

    response = await api.call("POST", "/v1/events", key=channel, json=[event("a"), event(topic)])

    assert response.status == 400
    assert response.json["fields"][0]["name"] == "[1].topic"
    assert await api.queue_size(channel) == 0


@pytest.mark.parametrize("topic", ["systems", "System.webhook", "a.system", "sys.tem"])
async def test_topics_that_only_look_like_ours_are_ordinary(api: Api, channel: ApiKey, topic: str) -> None:
    await bind(api, channel, "#")
    assert await api.publish(channel, event(topic)) == [1]


async def test_conditions_choose_events_by_their_data(api: Api, channel: ApiKey, listen: Listen) -> None:
    posted = [
        {"topic": "orders.#", "where": {"country": ["de", "fr"], "total": {"gte": 100}}},
        {"topic": "orders.#", "where": {"customer.id": {"prefix": "vip_"}}},
        "invoices.#",
    ]
    assert (await put(api, channel, posted)).status == 204
    assert await bound(api, channel) == posted
    receiver = await listen(channel)

    counts = await api.publish(
        channel,
        event("orders.paid", {"country": "de", "total": 100}, id="both"),
        event("orders.paid", {"country": "de", "total": 99.9}, id="too small"),
        event("orders.paid", {"country": "it", "total": 500}, id="elsewhere"),
        event("orders.paid", {"customer": {"id": "vip_3"}}, id="important"),
        event("orders.paid", "no object", id="text"),
        event("invoices.paid", None, id="any"),
        event("other", {"country": "de", "total": 100}, id="other topic"),
    )

    assert counts == [1, 0, 0, 1, 0, 1, 0]
    assert [item["id"] for _, item in await receiver.received(3)] == ["both", "important", "any"]
