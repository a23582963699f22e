"""Subscriptions to single resources of a device, by URL; independent of presubscriptions."""

import pytest
from yarl import URL

from shared.store import keyspace
from tests.conftest import Listen
from tests.harness.api import Api, ApiKey, Response
from tests.harness.events import reading
from tests.harness.stack import Stack

TEMPERATURE = "sensor-1/3303/0/5700"


async def ask(api: Api, method: str, key: ApiKey, path: str) -> Response:
    """One request whose path is not re-encoded."""
    async with api._http.request(
        method,
        URL(f"{api.url}/v2/subscriptions/{path}", encoded=True),
        headers={"Authorization": f"Bearer {key.secret}"},
    ) as response:
        return Response(response.status, response.headers, await response.text())


async def subscribe(api: Api, key: ApiKey, *resources: str) -> None:
    for resource in resources:
        response = await ask(api, "PUT", key, resource)
        assert (response.status, response.text) == (200, "")


async def test_device_and_path_match_exactly(api: Api, channel: ApiKey) -> None:
    await subscribe(api, channel, TEMPERATURE)

    counted = await api.publish(
        channel,
        reading(1),
        reading(2, ep="sensor-10"),
        reading(3, ep="sensor-"),
        reading(4, path="/3303/0/570"),
        reading(5, path="/3303/0/5700/0"),
        reading(6, path="3303/0/5700"),
    )

    assert counted == [1, 0, 0, 0, 0, 1]


async def test_a_change_takes_effect_with_the_next_publish_through_any_gateway(
    api: Api, other_api: Api, channel: ApiKey
) -> None:
    for here, there in ((api, other_api), (other_api, api)) * 5:
        await subscribe(here, channel, TEMPERATURE)
        assert await there.publish(channel, reading(1)) == [1]
        assert (await ask(there, "DELETE", channel, TEMPERATURE)).status == 204
        assert await here.publish(channel, reading(1)) == [0]


async def test_put_and_delete_are_idempotent(api: Api, key: ApiKey) -> None:
    await subscribe(api, key, TEMPERATURE, TEMPERATURE)
    assert (await ask(api, "GET", key, "sensor-1")).text == "/3303/0/5700"

    for _ in range(2):
        assert (await ask(api, "DELETE", key, TEMPERATURE)).status == 204
        assert (await ask(api, "GET", key, TEMPERATURE)).status == 404
    for _ in range(2):
        assert (await ask(api, "DELETE", key, "sensor-1")).status == 204


async def test_get_of_a_device_lists_its_paths(api: Api, other_api: Api, key: ApiKey) -> None:
    await subscribe(api, key, "sensor-1/3303/0/5700", "sensor-1/3/0/13", "sensor-2/1")

    response = await ask(other_api, "GET", key, "sensor-1")
    assert (response.status, response.headers["Content-Type"]) == (200, "text/uri-list")
    assert response.text == "/3303/0/5700\n/3/0/13"
    assert (await ask(api, "GET", key, "sensor-3")).status == 404
    assert (await ask(api, "GET", key, "sensor")).status == 404


async def test_get_of_a_resource_has_no_body(api: Api, key: ApiKey) -> None:
    await subscribe(api, key, TEMPERATURE)

    for resource, status in ((TEMPERATURE, 200), ("sensor-1/3303/0", 404), ("sensor-2/3303/0/5700", 404)):
        response = await ask(api, "GET", key, resource)
        assert (response.status, response.text) == (status, "")


async def test_deleting_a_device_keeps_other_devices(api: Api, channel: ApiKey) -> None:
    await subscribe(api, channel, "a/1", "a/2", "ab/1", "b/1")

    assert (await ask(api, "DELETE", channel, "a")).status == 204

    published = [reading(1, ep=ep, path=path) for ep, path in (("a", "/1"), ("a", "/2"), ("ab", "/1"))]
    assert await api.publish(channel, *published) == [0, 0, 1]
    assert (await ask(api, "GET", channel, "a")).status == 404
    assert (await ask(api, "GET", channel, "b")).text == "/1"


@pytest.mark.parametrize(
    "written",
    [
        "sensor-1//3303/0/5700",
        "sensor-1/%2F3303%2F0%2F5700",
        "sensor-1/3303%2f0/5700",
        "%73ensor-1/3303/0/5700",
        "sensor-1/3303/0/5700?x=/y",
    ],
)
async def test_equivalent_spellings_of_the_path(api: Api, channel: ApiKey, written: str) -> None:
    await subscribe(api, channel, written)

    assert await api.publish(channel, reading(1)) == [1]
    for way in (written, TEMPERATURE):
        assert (await ask(api, "GET", channel, way)).status == 200
    assert (await ask(api, "GET", channel, "sensor-1")).text == "/3303/0/5700"
    assert (await ask(api, "DELETE", channel, written)).status == 204
    assert (await ask(api, "GET", channel, TEMPERATURE)).status == 404


async def test_percent_encoded_names(api: Api, channel: ApiKey) -> None:
    await subscribe(api, channel, "a%2Fb%20%C3%B6/x%20y/%25")

    assert await api.publish(channel, reading(1, ep="a/b ö", path="/x y/%")) == [1]
    assert await api.publish(channel, reading(1, ep="a", path="/b ö/x y/%")) == [0]
    assert (await ask(api, "GET", channel, "a%2Fb%20%C3%B6")).text == "/x%20y/%25"
    assert (await ask(api, "GET", channel, "a")).status == 404


async def test_resources_and_presubscriptions_are_independent(api: Api, channel: ApiKey) -> None:
    await subscribe(api, channel, TEMPERATURE)
    assert await api.subscriptions(channel) == []
    await api.subscribe(channel, {"endpoint-name": "other"})
    await api.subscribe(channel)
    assert (await api.call("DELETE", "/v2/subscriptions", key=channel)).status == 204
    assert await api.publish(channel, reading(1)) == [1]

    await api.subscribe(channel, {"endpoint-name": "sensor-*"})
    assert (await ask(api, "DELETE", channel, "sensor-1")).status == 204
    assert await api.subscriptions(channel) == [{"endpoint-name": "sensor-*"}]
    assert await api.publish(channel, reading(1)) == [1]


async def test_a_resource_and_a_presubscription_give_one_notification(
    api: Api, channel: ApiKey, listen: Listen
) -> None:
    await api.subscribe(channel, {"endpoint-name": "sensor-*"})
    await subscribe(api, channel, TEMPERATURE)

    assert await api.publish(channel, reading(1), reading(2)) == [1, 1]

    await (await listen(channel)).received_numbers([1, 2])


async def test_subscriptions_survive_the_channel_and_end_with_the_key(
    api: Api, key: ApiKey, stack: Stack
) -> None:
    await subscribe(api, key, TEMPERATURE)
    for _ in range(2):
        await api.register(key)
        assert await api.publish(key, reading(1)) == [1]
        await api.delete_channel(key)

    await api.revoke(key)

    with stack.redis.client() as redis:
        assert redis.hexists(keyspace.routing(key.account), f"resources:{key.id}") == 0


@pytest.mark.parametrize(
    ("resource", "field"),
    [
        ("n" * 65 + "/1", "device-id"),
        ("a/" + "p" * 128, "resourcePath"),
        ("a%09b/1", "device-id"),
        ("a/1%7F", "resourcePath"),
        ("a%FF/1", "device-id"),
        ("a*/1", "device-id"),
        ("a/3/*", "resourcePath"),
        ("/1", "device-id"),
    ],
)
async def test_an_invalid_resource_is_refused(api: Api, key: ApiKey, resource: str, field: str) -> None:
    for method in ("PUT", "GET", "DELETE"):
        response = await ask(api, method, key, resource)
        assert (response.status, response.json["type"]) == (400, "validation_error")
        assert [each["name"] for each in response.json["fields"]] == [field]


async def test_at_most_1024_resources(api: Api, channel: ApiKey, stack: Stack) -> None:
    await subscribe(api, channel, "n" * 64 + "/" + "p" * 127)
    assert await api.publish(channel, reading(1, ep="n" * 64, path="/" + "p" * 127)) == [1]

    with stack.redis.client() as redis:
        table, field = keyspace.routing(channel.account), f"resources:{channel.id}"
        lines = [redis.hget(table, field), *(f"device-{n}\t/1\n".encode() for n in range(1022))]
        redis.hset(table, field, b"".join(lines))
    await subscribe(api, channel, "device-1022/1")
    response = await ask(api, "PUT", channel, "one-more/1")
    assert (response.status, response.json["type"]) == (400, "validation_error")
    assert "1024" in response.json["message"]
    await subscribe(api, channel, "device-7/1")
    assert (await ask(api, "GET", channel, "one-more/1")).status == 404

    assert (await ask(api, "DELETE", channel, "device-7/1")).status == 204
    await subscribe(api, channel, "one-more/1")
    assert await api.publish(channel, reading(1, ep="one-more", path="/1")) == [1]


async def test_a_put_needs_a_resource_path(api: Api, key: ApiKey) -> None:
    for path in ("sensor-1", "sensor-1/", "sensor-1//"):
        assert (await ask(api, "PUT", key, path)).status == 405
        assert (await ask(api, "GET", key, path)).status == 404
    assert (await ask(api, "GET", key, "")).status == 404


async def test_subscriptions_need_the_receive_scope(api: Api, key: ApiKey) -> None:
    publisher = await api.api_key(scopes=("publish",))
    for method in ("GET", "PUT", "DELETE"):
        assert (await ask(api, method, publisher, TEMPERATURE)).status == 403
    assert (await api.call("PUT", f"/v2/subscriptions/{TEMPERATURE}")).status == 401
