"""The stream of a topic by REST: its state, pages of its events, its purge, and who may."""

from typing import Any
from urllib.parse import quote

import pytest

from tests.harness.api import Api, ApiKey
from tests.stories.test_channel_rights import CALLERS, HIDDEN, MAY, SCOPE, Scene, scene
from tests.stories.test_errors import assert_error
from tests.stories.test_streams import key, published, put_rules

__all__ = ["key", "scene"]

TOPIC = "orders.paid"
RULES = [{"topics": ["orders.#"], "keep": {"count": 5, "age_s": 3600}}]


def path_of(topic: str = TOPIC, rest: str = "") -> str:
    return f"/v1/streams/{quote(topic, safe='')}{rest}"


async def state(api: Api, key: ApiKey, topic: str = TOPIC) -> dict[str, Any]:
    response = await api.call("GET", path_of(topic), key=key)
    assert response.status == 200, response.text
    found: dict[str, Any] = response.json
    return found


async def page(api: Api, key: ApiKey, query: str = "", topic: str = TOPIC) -> dict[str, Any]:
    response = await api.call("GET", path_of(topic, "/events") + query, key=key)
    assert response.status == 200, response.text
    found: dict[str, Any] = response.json
    return found


def numbers_in(page: dict[str, Any]) -> list[int]:
    return [event["data"] for event in page["events"]]


async def publish(api: Api, key: ApiKey, *numbers: int, topic: str = TOPIC) -> list[str]:
    """The offsets of the events."""
    made = await published(api, key, *({"topic": topic, "data": number} for number in numbers))
    return [each["stream"]["offset"] for each in made]


async def test_a_stream_says_where_it_begins_and_ends(api: Api, other_api: Api, key: ApiKey) -> None:
    await put_rules(api, key, RULES)
    nothing = await state(api, key)
    assert nothing == {
        **dict.fromkeys(("first", "last", "trimmed", "reason")),
        "topic": TOPIC,
        "epoch": "",
        "events": 0,
        "bytes": 0,
        "readers": 0,
        "keep": RULES[0]["keep"],
    }
    offsets = await publish(api, key, *range(8))
    found = await state(other_api, key)
    assert (found["first"], found["last"], found["events"]) == (offsets[3], offsets[7], 5)
    assert (found["trimmed"], found["reason"]) == (offsets[2], "trimmed")
    assert found["bytes"] > 0
    assert len(found["epoch"]) == 16
    await put_rules(api, key, [])
    assert await state(api, key) == {**found, "keep": None}


async def test_pages_follow_each_other_without_a_hole(api: Api, other_api: Api, key: ApiKey) -> None:
    await put_rules(api, key, RULES)
    assert await page(api, key) == {
        "epoch": "",
        "recovered": True,
        "reason": None,
        "first": None,
        "last": None,
        "events": [],
        "next_after": "0-0",
    }
    await publish(api, key, *range(5))
    found: list[int] = []
    query = "?limit=2"
    for each in (api, other_api, api):
        now = await page(each, key, query)
        assert (now["recovered"], now["reason"]) == (True, None)
        found += numbers_in(now)
        query = f"?limit=2&epoch={now['epoch']}&after={now['next_after']}"
    assert found == list(range(5))
    assert now["next_after"] == now["last"]
    assert numbers_in(await page(api, key, query)) == []
    [event] = (await page(api, key, "?limit=1"))["events"]
    assert event.items() >= {"topic": TOPIC, "offset": now["first"], "name": None, "data": 0}.items()


async def test_a_page_says_what_is_missing_before_it_and_why(api: Api, key: ApiKey) -> None:
    await put_rules(api, key, RULES)
    offsets = await publish(api, key, *range(8))
    epoch = (await state(api, key))["epoch"]
    ms = int(offsets[7].partition("-")[0])
    # offset, epoch; the reason, and the events that are read nevertheless
    cases: list[tuple[str, str, str | None, list[int]]] = [
        (offsets[7], epoch, None, []),
        (offsets[4], epoch, None, [5, 6, 7]),
        (offsets[4], "", None, [5, 6, 7]),
        (offsets[2], epoch, None, [3, 4, 5, 6, 7]),
        (offsets[1], epoch, "trimmed", [3, 4, 5, 6, 7]),
        ("0-0", epoch, "trimmed", [3, 4, 5, 6, 7]),
        (f"{ms + 1}-0", epoch, "lost", []),
        (offsets[4], "another", "lost", [5, 6, 7]),
    ]
    for offset, of, reason, events in cases:
        found = await page(api, key, f"?after={offset}&epoch={of}")
        assert (found["recovered"], found["reason"]) == (reason is None, reason), (offset, of)
        assert numbers_in(found) == events
        assert found["first"] == offsets[3]


async def test_a_purge_begins_another_epoch(api: Api, other_api: Api, key: ApiKey) -> None:
    await put_rules(api, key, RULES)
    assert (await api.call("DELETE", path_of(), key=key)).status == 404
    made = await published(api, key, *({"topic": TOPIC, "data": number} for number in range(3)))
    offsets = [each["stream"]["offset"] for each in made]
    before = await state(api, key)
    assert (await api.call("DELETE", path_of(), key=key)).status == 204
    after = await state(other_api, key)
    assert after["epoch"] != before["epoch"]
    assert (after["first"], after["last"], after["trimmed"]) == (None, offsets[2], offsets[2])
    assert (after["reason"], after["events"], after["bytes"]) == ("purged", 0, 0)
    gone = await api.call("GET", f"/v1/history/{made[0]['id']}", key=key)
    assert gone.status == 404
    [offset] = await publish(api, key, 3)
    found = await page(api, key, f"?after={offsets[2]}&epoch={before['epoch']}")
    assert (found["recovered"], found["reason"], numbers_in(found)) == (False, "purged", [3])
    assert (found["epoch"], found["first"]) == (after["epoch"], offset)
    entries = (await api.admin("GET", f"/v1/audit?account={key.account}")).json["entries"]
    assert entries[0].items() >= {"action": "stream.purged", "by": key.id, "name": TOPIC}.items()


@pytest.mark.parametrize(
    "topic", ["orders.a/b", "orders.events", "orders.x/events", "orders.\u00e9?#%2F", "orders..", "orders.*"]
)
async def test_a_topic_may_have_any_characters(api: Api, key: ApiKey, topic: str) -> None:
    await put_rules(api, key, [{"topics": ["orders.#"]}])
    [offset] = await publish(api, key, 1, topic=topic)
    assert (await state(api, key, topic))["last"] == offset
    assert numbers_in(await page(api, key, topic=topic)) == [1]
    assert (await api.call("DELETE", path_of(topic), key=key)).status == 204


async def test_events_for_one_channel_or_customer_are_passed_over(api: Api, key: ApiKey) -> None:
    await put_rules(api, key, RULES)
    made = (await api.call("POST", "/v1/channels", key=key, json={"kind": "pull"})).json["id"]
    event = {"topic": TOPIC, "data": 1}
    *_, last = await published(api, key, event, {**event, "to": made}, {**event, "customer": "acme"})
    found = await page(api, key)
    assert numbers_in(found) == [1]
    assert found["next_after"] == found["last"] == last["stream"]["offset"]
    assert (await state(api, key))["events"] == 3


@pytest.mark.parametrize(
    ("query", "field"),
    [
        *(
            (f"?after={after}", "after")
            for after in ("", "a", "1", "01-0", "(1-0", "$", "1-1000000000000000")
        ),
        ("?after=1-0&epoch=" + "e" * 33, "epoch"),
        ("?epoch=abc", "epoch"),
        *((f"?limit={limit}", "limit") for limit in (0, 101, "a")),
    ],
)
async def test_a_page_that_cannot_be_is_refused(api: Api, key: ApiKey, query: str, field: str) -> None:
    response = await api.call("GET", path_of(rest="/events") + query, key=key)
    assert_error(response, 400, "validation_error")
    assert response.json["fields"][0]["name"] == field


@pytest.mark.parametrize("topic", ["device.registrations", "system.x", "other"])
async def test_a_topic_without_a_stream_is_not_found(api: Api, key: ApiKey, topic: str) -> None:
    await put_rules(api, key, RULES)
    for method, rest in (("GET", ""), ("GET", "/events"), ("DELETE", "")):
        assert_error(await api.call(method, path_of(topic, rest), key=key), 404, "not_found")


VERBS = {"get": ("GET", "", 200), "read": ("GET", "/events", 200), "purge": ("DELETE", "", 204)}
# What each caller gets who is no manager; a key with `receive` is bound to the topic.
OTHERS = {
    "a key with receive": {"get": SCOPE, "read": 200, "purge": SCOPE},
    "a key with publish": dict.fromkeys(VERBS, SCOPE),
}


@pytest.mark.parametrize("caller", CALLERS)
async def test_who_may(scene: Scene, caller: str) -> None:
    admin, reader = scene.callers["an admin of the account"], scene.callers["a key with receive"]
    assert admin is not None
    assert reader is not None
    await put_rules(scene.api, admin, RULES)
    bound = await scene.api.call("PUT", "/v1/bindings", key=reader, json=["orders.*"])
    assert bound.status == 204
    publisher = scene.callers["a key with publish"]
    assert publisher is not None
    await publish(scene.api, publisher, 1)
    may = CALLERS[caller][0]
    for verb, (method, rest, success) in VERBS.items():
        response = await scene.call(caller, method, path_of(rest=rest))
        wanted = OTHERS[caller][verb] if caller in OTHERS else success if may == MAY else may
        # Whoever is of another account asks for its own topic, which has no stream; no key of it is bound.
        assert response.status == wanted, (verb, response.text)
        if caller not in OTHERS and may == HIDDEN:
            named = f"{path_of(rest=rest)}?account={scene.account}"
            asked = await scene.api.call(method, named, key=scene.callers[caller])
            assert asked.status == HIDDEN


@pytest.mark.parametrize(
    ("bindings", "status"),
    [
        (["orders.paid"], 200),
        (["#"], 200),
        ([{"topic": "orders.paid"}], 200),
        ([], 403),
        (["orders.sent", "orders.paid.x"], 403),
        ([{"topic": "orders.paid", "where": {"a": 1}}], 403),
    ],
)
async def test_a_receiver_reads_topics_that_it_is_bound_to(
    api: Api, key: ApiKey, bindings: list[Any], status: int
) -> None:
    await put_rules(api, key, RULES)
    await publish(api, key, 1)
    receiver = await api.api_key(account=key.account, scopes=("receive",))
    assert (await api.call("PUT", "/v1/bindings", key=receiver, json=bindings)).status == 204
    response = await api.call("GET", path_of(rest="/events"), key=receiver)
    assert response.status == status
    if status == 200:
        assert numbers_in(response.json) == [1]
    else:
        assert response.json["fields"][0]["name"] == "topic"
