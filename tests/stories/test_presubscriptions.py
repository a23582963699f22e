"""Presubscriptions select the device notifications of a channel, from the next publish on."""

from typing import Any

import pytest

from tests.conftest import Listen
from tests.harness.api import Api, ApiKey
from tests.harness.events import reading, registration

Subscription = dict[str, Any]

MATCHES: list[tuple[Subscription, str, str, bool]] = [
    ({"endpoint-name": "sensor-1"}, "sensor-1", "/3303/0/5700", True),
    ({"endpoint-name": "sensor-1"}, "sensor-10", "/3303/0/5700", False),
    ({"endpoint-name": "sensor-1*"}, "sensor-10", "/3303/0/5700", True),
    ({"endpoint-name": "sensor-1*"}, "sensor-1", "/3303/0/5700", True),
    ({"endpoint-name": "sensor-1*"}, "sensor-2", "/3303/0/5700", False),
    ({"endpoint-name": "*"}, "anything", "/1", True),
    ({"endpoint-name": "Sensor-1"}, "sensor-1", "/3303/0/5700", False),
    ({"resource-path": ["/3303/0/5700"]}, "any", "/3303/0/5700", True),
    ({"resource-path": ["/3303/0/5700"]}, "any", "/3303/0/5701", False),
    ({"resource-path": ["/3303/*"]}, "any", "/3303/0/5701", True),
    ({"resource-path": ["/3303/*"]}, "any", "/3304/0/5701", False),
    ({"resource-path": ["*"]}, "any", "/3304/0/5701", True),
    ({"resource-path": ["/1", "/3303/0*"]}, "any", "/3303/0/5701", True),
    ({"resource-path": ["/1", "/3303/0*"]}, "any", "/10", False),
    ({"endpoint-name": "a*", "resource-path": ["/1*"]}, "ab", "/1/2", True),
    ({"endpoint-name": "a*", "resource-path": ["/1*"]}, "ab", "/2", False),
    ({"endpoint-name": "a*", "resource-path": ["/1*"]}, "b", "/1/2", False),
    ({"endpoint-type": "Light"}, "never-registered", "/1", False),
]


@pytest.mark.parametrize(("subscription", "ep", "path", "wanted"), MATCHES)
async def test_presubscription_matching(
    api: Api, channel: ApiKey, subscription: Subscription, ep: str, path: str, wanted: bool
) -> None:
    await api.subscribe(channel, subscription)

    assert await api.publish(channel, reading(1, ep=ep, path=path)) == [int(wanted)]

    assert await api.queue_size(channel) == int(wanted)


async def test_a_change_takes_effect_with_the_next_publish_through_another_gateway(
    api: Api, other_api: Api, channel: ApiKey
) -> None:
    for here, there in ((api, other_api), (other_api, api)) * 10:
        await here.subscribe(channel, {"endpoint-name": "sensor-*"})
        assert await there.publish(channel, reading(1)) == [1]
        await there.subscribe(channel)
        assert await here.publish(channel, reading(1)) == [0]


async def test_a_new_channel_receives_the_next_publish_through_another_gateway(
    api: Api, other_api: Api, key: ApiKey
) -> None:
    await api.subscribe(key, {"endpoint-name": "sensor-*"})
    for here, there in ((api, other_api), (other_api, api)) * 5:
        await here.register(key)
        assert await there.publish(key, reading(1), reading(2, to=key.id)) == [1, 1]
        await there.delete_channel(key)
        assert await here.publish(key, reading(1), reading(2, to=key.id)) == [0, 0]


@pytest.mark.parametrize("topic", ["device.registrations", "device.reg-updates"])
async def test_a_registration_sets_the_devices_type(
    api: Api, other_api: Api, channel: ApiKey, topic: str
) -> None:
    await api.subscribe(channel, {"endpoint-type": "Light", "resource-path": ["/3311/*"]})
    notification = reading(1, ep="lamp-1", path="/3311/0/5850")
    assert await api.publish(channel, notification) == [0]

    await api.publish(channel, registration("lamp-1", ept="Light", topic=topic))
    assert await other_api.publish(channel, notification) == [1]
    assert await api.publish(channel, notification, reading(2, ep="lamp-2", path="/3311/0/5850")) == [1, 0]

    await other_api.publish(channel, registration("lamp-1", ept="Heater", topic=topic))
    assert await api.publish(channel, notification) == [0]


async def test_a_type_applies_to_later_events_of_the_same_request(api: Api, channel: ApiKey) -> None:
    await api.subscribe(channel, {"endpoint-type": "Light"})

    counted = await api.publish(channel, registration("lamp", ept="Light"), reading(1, ep="lamp"))

    assert counted == [1, 1]


async def test_a_deregistration_removes_the_devices_type(api: Api, channel: ApiKey) -> None:
    await api.subscribe(channel, {"endpoint-type": "Light"})
    await api.publish(channel, registration("lamp", ept="Light"))
    assert await api.publish(channel, reading(1, ep="lamp")) == [1]

    await api.publish(channel, {"topic": "device.de-registrations", "data": "lamp"})

    assert await api.publish(channel, reading(1, ep="lamp")) == [0]


async def test_several_matching_presubscriptions_give_one_notification(
    api: Api, channel: ApiKey, listen: Listen
) -> None:
    await api.subscribe(channel, {"endpoint-name": "sensor-*"}, {"resource-path": ["*"]})

    assert await api.publish(channel, reading(1), reading(2)) == [1, 1]

    receiver = await listen(channel)
    await receiver.received_numbers([1, 2])


async def test_each_channel_gets_its_own_selection(api: Api, channel: ApiKey, listen: Listen) -> None:
    sibling = await api.api_key(account=channel.account)
    stranger = await api.api_key()
    for other in (sibling, stranger):
        await api.register(other)
    await api.subscribe(channel, {"endpoint-name": "a*"})
    await api.subscribe(sibling, {"endpoint-name": "*"})
    await api.subscribe(stranger, {"endpoint-name": "*"})

    assert await api.publish(channel, reading(1, ep="a"), reading(2, ep="b")) == [2, 1]

    assert await api.queue_size(stranger) == 0
    await (await listen(channel)).received_numbers([1])
    await (await listen(sibling)).received_numbers([1, 2])


async def test_put_replaces_all_presubscriptions_and_get_returns_them(api: Api, key: ApiKey) -> None:
    assert await api.subscriptions(key) == []
    first: list[Subscription] = [
        {"endpoint-name": "sensor-*", "endpoint-type": "Light", "resource-path": ["/1", "/2*"]},
        {"endpoint-type": "Ö"},
        {"resource-path": ["*"]},
    ]
    await api.subscribe(key, *first)
    assert await api.subscriptions(key) == first

    await api.subscribe(key, {"endpoint-name": "*"})
    assert await api.subscriptions(key) == [{"endpoint-name": "*"}]

    assert (await api.call("DELETE", "/v2/subscriptions", key=key)).status == 204
    assert await api.subscriptions(key) == []


async def test_presubscriptions_at_the_limits_are_accepted(api: Api, key: ApiKey) -> None:
    at_the_limit: list[list[Subscription]] = [
        [{"endpoint-name": "n" * 64, "endpoint-type": "t" * 64, "resource-path": ["/" + "p" * 127]}],
        [{"resource-path": [f"/{n}" for n in range(256)]}],
        [{"endpoint-name": f"device-{n}"} for n in range(1024)],
    ]
    for subscriptions in at_the_limit:
        assert (await api.put_subscriptions(key, subscriptions)).status == 204
        assert await api.subscriptions(key) == subscriptions


REFUSED: list[tuple[object, str]] = [
    ([{"endpoint-name": "n" * 65}], "endpoint-name"),
    ([{"endpoint-type": "t" * 65}], "endpoint-type"),
    ([{"resource-path": ["/" + "p" * 128]}], "resource-path"),
    ([{"resource-path": [f"/{n}" for n in range(257)]}], "resource-path"),
    ([{"endpoint-name": f"device-{n}"} for n in range(1025)], ""),
    ([{}], ""),
    ([{"resource-path": []}], "resource-path"),
    ([{"resource-path": "/1"}], "resource-path"),
    ([{"resource-path": [1]}], "resource-path"),
    ([{"endpoint-name": 1}], "endpoint-name"),
    ([{"endpoint-name": "a"}, "b"], "1"),
    ({"endpoint-name": "a"}, ""),
    ("a", ""),
]


@pytest.mark.parametrize(("subscriptions", "field"), REFUSED)
async def test_invalid_presubscriptions_are_refused_and_change_nothing(
    api: Api, key: ApiKey, subscriptions: object, field: str
) -> None:
    await api.subscribe(key, {"endpoint-name": "before"})

    response = await api.put_subscriptions(key, subscriptions)

    assert response.status == 400
    assert response.json["message"]
    assert any(field in each["name"] for each in response.json["fields"]) or not field, response.text
    assert await api.subscriptions(key) == [{"endpoint-name": "before"}]
