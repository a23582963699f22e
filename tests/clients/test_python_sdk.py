"""The Python SDK: subscriptions, values by long poll and by webhook, errors."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from mbed_cloud.exceptions import CloudApiException

from tests.clients.in_thread import in_thread
from tests.clients.python_sdk import (
    RESOURCE,
    python_sdk,
    stopped,
    taken_from,
    until_equal,
    until_it_polls,
    values_of,
)
from tests.harness.all_in_one import AllInOne
from tests.harness.api import Api, ApiKey
from tests.harness.events import reading, readings, registration
from tests.harness.waiting import wait_until
from tests.harness.webhooks import Call, webhook


@pytest.fixture
async def sdk(origin: AllInOne, key: ApiKey) -> AsyncIterator[Any]:
    async with python_sdk(origin.url, key) as made:
        yield made


async def test_values_arrive_in_a_queue_and_a_callback(api: Api, key: ApiKey, sdk: Any) -> None:
    values = await values_of(sdk)
    queue = await in_thread(sdk.add_resource_subscription, "sensor-2", "/3303/0/5700")
    await in_thread(sdk.start_notifications)
    await until_it_polls(api, key)

    for first in range(0, 60, 20):
        assert set(await api.publish(key, *readings(range(first, first + 20)))) == {1}
    await api.publish(key, reading(7, ep="sensor-2"))

    await until_equal(values, list(range(60)))
    assert await in_thread(taken_from(queue)) == b"7"


async def test_stopping_ends_the_open_poll_and_polling_can_restart(api: Api, key: ApiKey, sdk: Any) -> None:
    """The SDK waits for its poll to end, whose time-out is ten minutes here."""
    values = await values_of(sdk)
    for _ in range(3):
        await in_thread(sdk.start_notifications)
        await until_it_polls(api, key)

        await in_thread(sdk.stop_notifications)

        assert (await api.call("GET", "/v2/notification/channel", key=key)).status == 404
        assert await api.publish(key, reading(99)) == [0]
    await in_thread(sdk.start_notifications)
    await until_it_polls(api, key)
    await api.publish(key, reading(1))
    await until_equal(values, [1])


async def test_resource_subscriptions(sdk: Any) -> None:
    device, path = RESOURCE
    assert await in_thread(sdk.get_resource_subscription, device, path) is False
    assert await in_thread(sdk.list_device_subscriptions, device) is None

    await in_thread(sdk.add_resource_subscription, device, path)
    await in_thread(sdk.add_resource_subscription, device, "/3/0/13")

    assert await in_thread(sdk.get_resource_subscription, device, path) is True
    assert await in_thread(sdk.list_device_subscriptions, device) == [path, "/3/0/13"]
    await in_thread(sdk.delete_resource_subscription, device, path)
    assert await in_thread(sdk.get_resource_subscription, device, path) is False
    assert await in_thread(sdk.list_device_subscriptions, device) == ["/3/0/13"]
    await in_thread(sdk.delete_device_subscriptions, device)
    assert await in_thread(sdk.list_device_subscriptions, device) is None


async def test_presubscriptions(api: Api, key: ApiKey, sdk: Any) -> None:
    wanted = [
        {"device_id": "sensor-*", "device_type": None, "resource_paths": ["/3303/*", "/3/0/13"]},
        {"device_id": None, "device_type": "lamp", "resource_paths": None},
    ]
    assert await in_thread(sdk.list_presubscriptions) == []

    await in_thread(sdk.update_presubscriptions, wanted)

    kept = await in_thread(sdk.list_presubscriptions)
    assert [each.to_dict() for each in kept] == wanted
    assert (await api.subscriptions(key))[1] == {"endpoint-type": "lamp"}
    await in_thread(sdk.delete_presubscriptions)
    assert await in_thread(sdk.list_presubscriptions) == []


async def test_observers_of_values_and_device_states(
    origin: AllInOne, api: Api, key: ApiKey, sdk: Any
) -> None:
    """The SDK's newer interface, which puts presubscriptions and polls by itself.

    It handles the sections of a message in its own order: the server sends a removal in another message than
    the registration.
    """
    channels = sdk.subscribe.channels
    values: list[dict[str, Any]] = []
    states: list[dict[str, Any]] = []
    wanted = channels.ResourceValues(
        device_id="sensor-*", resource_path="/3303/*", first_value="on_registration"
    )
    (await in_thread(sdk.subscribe, wanted)).add_callback(values.append)
    (await in_thread(sdk.subscribe, channels.DeviceStateChanges())).add_callback(states.append)
    await until_it_polls(api, key)

    await api.publish(
        key,
        registration("sensor-1", ept="thermometer"),
        reading(21),
        reading(5, ep="lamp"),
        reading(22, ep="sensor-2"),
        {"topic": "device.de-registrations", "data": "sensor-1"},
        {"topic": "device.registrations-expired", "data": "sensor-2"},
    )

    await wait_until(lambda: len(values) >= 2 and len(states) >= 3, what=lambda: (values, states))
    assert [(value["device_id"], value["resource_path"], value["payload"]) for value in values] == [
        ("sensor-1", "/3303/0/5700", b"21"),
        ("sensor-2", "/3303/0/5700", b"22"),
    ]
    assert [(state["channel"], state["device_id"]) for state in states] == [
        ("registrations", "sensor-1"),
        ("de_registrations", "sensor-1"),
        ("registrations_expired", "sensor-2"),
    ]
    assert states[0]["device_type"] == "thermometer"
    assert states[0]["resources"][0]["path"] == "/3303/0/5700"

    await stopped(origin.url, key, sdk.subscribe.unsubscribe_all)
    assert await api.subscriptions(key) == []


async def test_values_by_webhook(api: Api, key: ApiKey, sdk: Any) -> None:
    """The application's web server passes requests to the SDK, which calls the callback."""
    values = await values_of(sdk)
    assert await in_thread(sdk.get_webhook) is None
    async with webhook() as hook:

        async def pass_to_sdk(call: Call) -> web.StreamResponse:
            await in_thread(sdk.notify_webhook_received, call.body.decode())
            return web.Response(status=200)

        hook.answer = pass_to_sdk
        await in_thread(sdk.update_webhook, hook.url, {"X-Origin": "pelion"})

        kept = await in_thread(sdk.get_webhook)
        assert (kept.url, kept.headers) == (hook.url, {"X-Origin": "pelion"})
        await api.publish(key, *readings(range(5)))
        await until_equal(values, list(range(5)))
        assert {call.headers["X-Origin"] for call in hook.calls} == {"pelion"}

        await in_thread(sdk.update_webhook, f"{hook.url}/elsewhere")
        assert (await in_thread(sdk.get_webhook)).url == f"{hook.url}/elsewhere"
        await in_thread(sdk.delete_webhook)
        assert await in_thread(sdk.get_webhook) is None
        assert await in_thread(sdk.delete_webhook) is None
        assert await api.publish(key, reading(5)) == [0]


async def test_a_webhook_replaces_polling(api: Api, key: ApiKey, sdk: Any) -> None:
    """The SDK deletes the poll's channel first; its open poll must not create that again."""
    await in_thread(sdk.start_notifications)
    await until_it_polls(api, key)
    async with webhook() as hook:
        await in_thread(sdk.update_webhook, hook.url)

        await in_thread(sdk.stop_notifications)

        assert (await in_thread(sdk.get_webhook)).url == hook.url
        await api.publish(key, reading(1, to=key.id))
        await wait_until(lambda: hook.items)


async def test_errors_have_status_and_request_id(origin: AllInOne, key: ApiKey, sdk: Any) -> None:
    with pytest.raises(CloudApiException) as refused:
        await in_thread(sdk.update_webhook, "http://127.0.0.1:1/closed")
    assert refused.value.status == 400
    assert await in_thread(sdk.get_webhook) is None
    assert len(sdk.get_last_api_metadata().request_id) > 8

    unknown_key = ApiKey(id="0", account="0", secret="ak_" + "0" * 80)
    async with python_sdk(origin.url, unknown_key) as unauthenticated:
        with pytest.raises(CloudApiException) as unknown:
            await in_thread(unauthenticated.get_webhook)
    assert unknown.value.status == 401


async def test_polling_continues_after_the_channel_is_deleted(
    api: Api, key: ApiKey, sdk: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The open poll gets a 410; the SDK logs it and polls again."""
    values = await values_of(sdk)
    await in_thread(sdk.start_notifications)
    await until_it_polls(api, key)

    removed = await api.call("DELETE", "/v2/notification/pull", key=key)

    assert (removed.status, removed.text) == (200, "REMOVED")
    await wait_until(lambda: "(410)" in caplog.text)
    assert "CHANNEL_DELETED" in caplog.text
    await until_it_polls(api, key)
    await api.publish(key, *readings(range(3)))
    await until_equal(values, [0, 1, 2])


async def test_a_second_client_gets_a_409_and_the_first_continues(
    origin: AllInOne, api: Api, key: ApiKey, sdk: Any, caplog: pytest.LogCaptureFixture
) -> None:
    values = await values_of(sdk)
    await in_thread(sdk.start_notifications)
    await until_it_polls(api, key)
    async with python_sdk(origin.url, key) as second:
        await in_thread(second.start_notifications)
        await wait_until(lambda: "(409)" in caplog.text)

        await api.publish(key, reading(1))

        await until_equal(values, [1])


async def test_a_second_client_takes_over_when_the_first_stops(
    origin: AllInOne, api: Api, key: ApiKey, sdk: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The second client gets the 409 and polls again."""
    await in_thread(sdk.start_notifications)
    await until_it_polls(api, key)
    async with python_sdk(origin.url, key) as second:
        values_of_second = await values_of(second)
        await in_thread(second.start_notifications)
        await wait_until(lambda: "(409)" in caplog.text)
        assert "CONCURRENT_PULL_REQUEST_RECEIVED" in caplog.text

        await in_thread(sdk.stop_notifications)

        await until_it_polls(api, key)
        await api.publish(key, reading(2))
        await until_equal(values_of_second, [2])


async def test_polling_starts_when_a_channel_of_another_kind_is_deleted(
    api: Api, key: ApiKey, sdk: Any, caplog: pytest.LogCaptureFixture
) -> None:
    values = await values_of(sdk)
    await api.register(key)
    await in_thread(sdk.start_notifications)
    await wait_until(lambda: "(400)" in caplog.text)

    assert (await api.delete_channel(key)).status == 204

    await until_it_polls(api, key)
    await api.publish(key, reading(1))
    await until_equal(values, [1])
