"""Serialization options of a channel, set at registration or later."""

from tests.conftest import Listen
from tests.harness.api import Api, ApiKey
from tests.harness.stack import Stack

ALL = {
    "type": "v2",
    "max_chunk_size": "100",
    "cfg": {"include_uid": "true", "include_timestamp": True, "include_original_ep": True},
}


async def put(api: Api, key: ApiKey, serialization: object) -> int:
    body = {"serialization": serialization}
    return (await api.call("PUT", "/v2/notification/websocket", key=key, json=body)).status


async def test_serialization_set_at_registration(api: Api, key: ApiKey, stack: Stack, listen: Listen) -> None:
    assert await put(api, key, ALL) == 201
    shown = (await api.channel(key)).json["serialization"]
    assert shown["max_chunk_size"] == 100
    assert shown["cfg"]["include_uid"] is True
    assert shown["cfg"]["deregistrations_as_object"] is False
    client = await listen(key, stack.edges[0].url)
    data = {"ep": "lamp", "path": "/1", "payload": "MA=="}

    response = await api.post_events(key, {"topic": "device.notifications", "data": data, "to": key.id})

    await client.received(1)
    [item] = client.frames[0]["notifications"]
    assert item.pop("timestamp") > 1_700_000_000_000
    assert item == {**data, "uid": response.json["events"][0]["id"], "original-ep": "lamp"}


async def test_a_change_applies_to_an_open_socket(
    api: Api, channel: ApiKey, stack: Stack, listen: Listen
) -> None:
    client = await listen(channel, stack.edges[0].url)
    gone = {"topic": "device.de-registrations", "data": "lamp", "to": channel.id}
    await api.post_events(channel, gone)
    await client.received(1)
    assert client.frames[0] == {"de-registrations": ["lamp"]}

    as_objects = {"type": "v2", "cfg": {"deregistrations_as_object": "true"}}
    assert await put(api, channel, as_objects) == 200
    await api.post_events(channel, gone)

    await client.received(2)
    assert client.frames[1] == {"de-registrations": [{"ep": "lamp"}]}


async def test_registering_without_serialization_keeps_it(api: Api, key: ApiKey) -> None:
    await put(api, key, ALL)

    await api.register(key)

    assert (await api.channel(key)).json["serialization"]["max_chunk_size"] == 100


async def test_invalid_serialization_is_refused_and_registers_nothing(api: Api, key: ApiKey) -> None:
    assert await put(api, key, {"type": "v1"}) == 400
    assert (await api.channel(key)).status == 404
