"""Retained topics: rules, the answer of a publish, and events by their ids."""

from typing import Any
from urllib.parse import quote

import pytest

from tests.harness.api import Api, ApiKey, Response
from tests.stories.test_errors import assert_error

KEEP = {"count": 100, "age_s": 3600}
KEPT = [{"topics": ["orders.#"], "keep": KEEP}]


@pytest.fixture
async def key(api: Api) -> ApiKey:
    """A key of a new account that publishes, and has all of its channels."""
    return await api.api_key(scopes=("publish", "channels"))


async def put_rules(api: Api, key: ApiKey, rules: object) -> None:
    response = await api.call("PUT", "/v1/streams", key=key, json=rules)
    assert response.status == 204, response.text


async def history(api: Api, key: ApiKey, event_id: str) -> Response:
    return await api.call("GET", f"/v1/history/{quote(event_id, safe='')}", key=key)


async def published(api: Api, key: ApiKey, *events: object, **more: Any) -> list[dict[str, Any]]:
    response = await api.call("POST", "/v1/events", key=key, json=list(events), **more)
    assert response.status == 202, response.text
    found: list[dict[str, Any]] = response.json["events"]
    return found


async def test_an_event_that_a_rule_names_is_retained(api: Api, other_api: Api, key: ApiKey) -> None:
    await put_rules(api, key, KEPT)
    assert (await other_api.call("GET", "/v1/streams", key=key)).json == KEPT

    paid: dict[str, Any] = {"topic": "orders.paid", "id": "a/1 \u00e9", "name": "n", "data": {"n": 1.50}}
    first, second = await published(other_api, key, paid, {"topic": "other", "data": 1})
    assert (first["channels"], second) == (0, {"id": second["id"], "channels": 0})
    found = await history(api, key, paid["id"])
    assert found.status == 200, found.text
    assert '"data":{"n": 1.5}' in found.text
    assert found.json.items() >= {**paid, **first["stream"], "time": None}.items()
    assert "to" not in found.json
    assert_error(await history(api, key, second["id"]), 404, "not_found")


async def test_rules_count_for_the_next_publish(api: Api, other_api: Api, key: ApiKey) -> None:
    order = {"topic": "orders.paid", "data": 1}
    for each in (api, other_api):
        assert "stream" not in (await published(each, key, order))[0]
    await put_rules(api, key, KEPT)
    for each in (api, other_api):
        assert "stream" in (await published(each, key, order))[0]
    await put_rules(api, key, [])
    assert (await api.call("GET", "/v1/streams", key=key)).json == []
    for each in (api, other_api):
        # A gateway that has not read the new rules yet may retain one publish more, and says so.
        await published(each, key, order)
        assert "stream" not in (await published(each, key, order))[0]


async def test_the_first_rule_that_matches_counts(api: Api, key: ApiKey) -> None:
    await put_rules(api, key, [{"topics": ["orders.paid"], "keep": {"count": 2}}, *KEPT])
    paid = await published(api, key, *({"topic": "orders.paid", "data": n} for n in range(3)))
    sent = await published(api, key, *({"topic": "orders.sent", "data": n} for n in range(3)))
    found = [(await history(api, key, event["id"])).status for event in (*paid, *sent)]
    assert found == [404, 200, 200, 200, 200, 200]


async def test_the_newest_event_of_an_id_is_found(api: Api, key: ApiKey) -> None:
    await put_rules(api, key, KEPT)
    offset = "0-0"
    for topic in ("orders.a", "orders.b", "orders.a"):
        before = offset
        # Events of several topics are compared by the ms of their offsets.
        while ms_in(offset) == ms_in(before):
            [last] = await published(api, key, {"topic": topic, "id": "same", "data": topic})
            offset = last["stream"]["offset"]
    found = (await history(api, key, "same")).json
    assert (found["topic"], found["offset"]) == ("orders.a", offset)


def ms_in(offset: str) -> str:
    return offset.partition("-")[0]


async def test_an_event_for_one_channel_or_customer_says_so(api: Api, key: ApiKey) -> None:
    await put_rules(api, key, KEPT)
    body = {"kind": "pull", "name": "mine"}
    made = (await api.call("POST", "/v1/channels", key=key, json=body)).json["id"]
    event = {"topic": "orders.paid", "data": 1}
    first, second = await published(api, key, {**event, "to": "mine"}, {**event, "customer": "acme"})
    assert (await history(api, key, first["id"])).json["to"] == made
    assert (await history(api, key, second["id"])).json["customer"] == "acme"


async def test_a_repetition_names_the_same_offset_and_retains_nothing(
    api: Api, other_api: Api, key: ApiKey
) -> None:
    await put_rules(api, key, KEPT)
    under = {"Idempotency-Key": "k"}
    order = {"topic": "orders.paid", "data": 1}
    first = await published(api, key, order, headers=under)
    [between] = await published(api, key, order)
    assert await published(other_api, key, order, headers=under) == first
    [last] = await published(api, key, order)
    offsets = [each["stream"]["offset"] for each in (first[0], between, last)]
    assert len(set(offsets)) == 3
    found = (await history(api, key, first[0]["id"])).json
    assert found["offset"] == offsets[0]


@pytest.mark.parametrize(
    ("rules", "field"),
    [
        ([{"topics": []}], "[0].topics"),
        ([{"topics": ["a*"]}], "[0].topics[0]"),
        ([{"topics": ["a", "device.#"]}], "[0].topics[1]"),
        ([{"topics": ["system.x"]}], "[0].topics[0]"),
        ([{"topics": ["a"], "keep": {"count": 0}}], "[0].keep.count"),
        ([{"topics": ["a"], "keep": {"count": 100_001}}], "[0].keep.count"),
        ([{"topics": ["a"], "keep": {"age_s": 30 * 86_400 + 1}}], "[0].keep.age_s"),
        ([{"topics": ["a"], "more": 1}], "[0].more"),
        ([{"topics": ["a"]}] * 101, None),
    ],
)
async def test_rules_that_cannot_be_kept_are_refused(
    api: Api, key: ApiKey, rules: Any, field: str | None
) -> None:
    response = await api.call("PUT", "/v1/streams", key=key, json=rules)
    assert_error(response, 400, "validation_error")
    assert field is None or response.json["fields"][0]["name"] == field
    assert (await api.call("GET", "/v1/streams", key=key)).json == []


async def test_topics_of_devices_have_no_stream(api: Api, key: ApiKey) -> None:
    await put_rules(api, key, [{"topics": ["#"]}])
    [event] = await published(api, key, {"topic": "device.registrations", "data": {"ep": "lamp"}})
    assert "stream" not in event
    assert (await history(api, key, event["id"])).status == 404


async def test_what_changes_the_rules_is_in_the_audit_log(api: Api, key: ApiKey) -> None:
    await put_rules(api, key, KEPT)
    entries = (await api.admin("GET", f"/v1/audit?account={key.account}")).json["entries"]
    assert (entries[0]["action"], entries[0]["by"], entries[0]["target"]) == (
        "streams.put",
        key.id,
        key.account,
    )
