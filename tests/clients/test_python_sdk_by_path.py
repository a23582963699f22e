"""The Python SDK behind a proxy that divides by path: beside a device side, and through a rolling restart."""

from collections.abc import Callable, Iterator

import aiohttp
import pytest

from tests.clients.by_path import DeviceSide, device_side, proxy_by_path
from tests.clients.in_thread import in_thread
from tests.clients.python_sdk import RESOURCE, python_sdk, until_equal, until_it_polls, values_of
from tests.harness.all_in_one import AllInOne
from tests.harness.api import Api, ApiKey
from tests.harness.events import reading
from tests.harness.processes import Service
from tests.harness.stack import Stack, running_stack
from tests.harness.waiting import wait_until

PULL = "/v2/notification/pull"


@pytest.fixture(scope="module")
def apart() -> Iterator[Stack]:
    """A gateway and two edges, whose polls last."""
    with running_stack(gateways=1, edges=2, LONG_POLL_WAIT_S=600) as stack:
        yield stack


@pytest.fixture
def api_apart(apart: Stack, http: aiohttp.ClientSession) -> Api:
    return Api(http, apart.gateways[0].url, apart.admin_token)


def divided(gateway: str, edges: Callable[[], list[str]]) -> Callable[[str], list[str]]:
    return lambda path: edges() if path == PULL else [gateway]


async def test_the_device_side_is_elsewhere(origin: AllInOne, api: Api, key: ApiKey) -> None:
    """What the SDK finds out from there it subscribes to here, and values of both kinds come from here."""
    device, path = RESOURCE
    values: list[bytes] = []
    async with device_side(DeviceSide(api, key, RESOURCE, "21.5")) as elsewhere:
        ours = ("/v2/notification/", "/v2/subscriptions")
        origins = lambda asked: [origin.url if asked.startswith(ours) else elsewhere]  # noqa: E731
        async with proxy_by_path(origins) as proxy, python_sdk(proxy.url, key) as sdk:
            wanted = sdk.subscribe.channels.ResourceValues(device_id=device, resource_path=path)
            observer = await in_thread(sdk.subscribe, wanted)
            observer.add_callback(lambda value: values.append(value["payload"]))
            await until_it_polls(api, key)
            assert await in_thread(sdk.get_resource_subscription, device, path) is True

            assert await api.publish(key, reading(7), reading(8, path="/3/0/13")) == [1, 0]

            await until_equal(values, [b"7"])
            assert await in_thread(sdk.get_resource_value, device, path, timeout=15) == "21.5"


async def restarted(edge: Service) -> None:
    edge.terminate()
    await wait_until(lambda: edge.ended, within_s=40)
    edge.start()
    await wait_until(lambda: edge.ready, within_s=40)


async def test_a_rolling_restart_is_not_noticed(
    apart: Stack, api_apart: Api, caplog: pytest.LogCaptureFixture
) -> None:
    """Each edge in turn answers the open poll before it goes; the next poll is taken by the other."""
    api = api_apart
    key = await api.api_key()
    by_path = divided(apart.gateways[0].url, lambda: [edge.url for edge in apart.edges])
    async with proxy_by_path(by_path) as proxy, python_sdk(proxy.url, key) as sdk:
        values = await values_of(sdk)
        await in_thread(sdk.start_notifications)
        await until_it_polls(api, key)
        for number, edge in enumerate([*apart.edges, apart.edges[0]]):
            await restarted(edge)
            await api.publish(key, reading(number))
            await until_equal(values, list(range(number + 1)))

        assert set(proxy.statuses(PULL)) == {200, 204}
    assert "Notification long poll failed" not in caplog.text


async def test_empty_answers_are_no_news(apart: Stack, api_apart: Api) -> None:
    api = api_apart
    key = await api.api_key()
    with apart.more_edges("brief", LONG_POLL_WAIT_S=0.1) as [brief]:
        by_path = divided(apart.gateways[0].url, lambda: [brief.url])
        async with proxy_by_path(by_path) as proxy, python_sdk(proxy.url, key) as sdk:
            values = await values_of(sdk)
            await in_thread(sdk.start_notifications)
            await wait_until(lambda: proxy.statuses(PULL).count(204) >= 5)

            await api.publish(key, reading(1))

            await until_equal(values, [1])
            assert set(proxy.statuses(PULL)) <= {200, 204}
