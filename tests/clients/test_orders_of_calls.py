"""What applications and SDKs that cannot run here send, call by call, and what each of them needs.

Read from their code. None has another name for what it meets: a status that it does not expect stops it.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from tests.clients.stock import Aiohttp, Offer, Socket, as_browsers_do, key_first, with_header
from tests.harness.all_in_one import AllInOne
from tests.harness.api import Api, ApiKey, Response
from tests.harness.events import number_of, reading, readings, registration
from tests.harness.waiting import wait_until
from tests.harness.webhooks import Call, Webhook, webhook

WEBSOCKET, CALLBACK, PULL = (f"/v2/notification/{name}" for name in ("websocket", "callback", "pull"))
SUBSCRIPTIONS = "/v2/subscriptions"
WANTED = {"include_uid": True, "include_timestamp": True, "include_original_ep": True}
ALL_DEVICES = [{"endpoint-name": "*"}]


class Application:
    """Its calls, each with its key, and its sockets."""

    def __init__(self, api: Api, key: ApiKey) -> None:
        self.api, self.key = api, key

    async def call(self, method: str, path: str, **content: Any) -> Response:
        return await self.api.call(method, path, key=self.key, **content)

    async def calls(self, *wanted: tuple[str, str, int]) -> None:
        """One after the other, each with the status that it must have."""
        for method, path, status in wanted:
            response = await self.call(method, path)
            assert response.status == status, f"{method} {path}: {response}"

    @contextlib.asynccontextmanager
    async def socket(self, offer: Offer) -> AsyncIterator[Socket]:
        """One that reads all the time."""
        socket = await Aiohttp().open(offer)
        try:
            assert socket.subprotocol == ("wss" if offer.subprotocols else None)
            yield socket
        finally:
            await socket.close()

    async def acked(self) -> None:
        """Waits until nothing would come again on another socket."""
        await self.api.until(self.key, queue_size=0)

    async def publish(self, *numbers: int) -> None:
        assert set(await self.api.publish(self.key, *map(reading, numbers))) == {1}


@pytest.fixture
def app(api: Api, key: ApiKey) -> Application:
    return Application(api, key)


@pytest.fixture
async def hook() -> AsyncIterator[Webhook]:
    async with webhook() as receiver:
        yield receiver


async def test_kafka(origin: AllInOne, app: Application) -> None:
    """Reads fields without asking whether they are there, and of a message only the first section."""
    assert (await app.call("PUT", SUBSCRIPTIONS, json=ALL_DEVICES)).status == 204
    cfg = WANTED | {"deregistrations_as_object": True}
    body = {"serialization": {"type": "v2", "max_chunk_size": 10_000, "cfg": cfg}}
    put = await app.call("PUT", WEBSOCKET, json=body)
    assert (put.status, put.json["serialization"]) == (201, body["serialization"])
    async with app.socket(as_browsers_do(origin.url, app.key)) as socket:
        lives = ({"topic": "device.de-registrations", "data": "sensor-1"}, reading(2))
        await app.api.publish(app.key, registration("sensor-1"), reading(1), *lives)

        await wait_until(lambda: len(socket.messages) >= 4, what=lambda: socket.messages)
        first, second, third, fourth = socket.messages

        [device] = first.pop("registrations")
        assert {"ep", "uid", "timestamp", "original-ep", "resources"} <= device.keys()
        [value] = second.pop("notifications")
        assert value.keys() == {
            *("ep", "path", "ct", "payload", "max-age", "uid", "timestamp", "original-ep"),
        }
        assert isinstance(value["timestamp"], int)
        [gone] = third.pop("de-registrations")
        assert gone.keys() == {"ep", "uid", "timestamp", "original-ep"}
        assert [number_of(item) for item in fourth.pop("notifications")] == [2]
        assert first == second == third == {}


async def test_e2e(origin: AllInOne, app: Application) -> None:
    """The service's own system tests: settings as strings, connected at once, and again after each close."""
    cfg = dict.fromkeys(WANTED, "true")
    body = {"serialization": {"type": "v2", "max_chunk_size": "100", "cfg": cfg}}
    assert (await app.call("PUT", WEBSOCKET, json=body)).status in (200, 201)
    await app.call("PUT", SUBSCRIPTIONS, json=ALL_DEVICES)
    for number in range(3):
        async with app.socket(as_browsers_do(origin.url, app.key)) as socket:
            await app.publish(number)
            await socket.has([number])
            await app.acked()
            [item] = socket.messages[0]["notifications"]
            assert {"uid", "timestamp", "original-ep"} <= item.keys()
    async with app.socket(as_browsers_do(origin.url, app.key)) as socket:
        assert (await app.call("DELETE", WEBSOCKET)).status == 204
        assert await socket.closed() == 1001


async def test_bridge_over_a_websocket(origin: AllInOne, app: Application) -> None:
    """Offers no subprotocol, and registers anew whatever it was closed with."""
    await app.call("PUT", SUBSCRIPTIONS, json=ALL_DEVICES)
    await app.calls(("PUT", WEBSOCKET, 201))
    async with app.socket(with_header(origin.url, app.key)) as socket:
        await app.publish(1)
        await socket.has([1])
        await app.acked()
        async with app.socket(with_header(origin.url, app.key)):
            assert await socket.closed() == 1001
    await app.publish(2)
    await app.calls(("PUT", WEBSOCKET, 200))
    async with app.socket(with_header(origin.url, app.key)) as socket:
        await socket.has([2])


async def test_bridge_over_a_webhook(app: Application, hook: Webhook) -> None:
    """Looks every minute whether its URL is still there as it was written, and writes it again."""

    async def as_its_servlet_does(_: Call) -> web.StreamResponse:
        return web.json_response({})

    hook.answer = as_its_servlet_does
    body = {"url": hook.url, "headers": {"Authentication": "5f4dcc3b5aa765d61d8327deb882cf99"}}
    await app.call("PUT", SUBSCRIPTIONS, json=ALL_DEVICES)
    await app.calls(("GET", CALLBACK, 404), ("DELETE", PULL, 200), ("DELETE", CALLBACK, 404))
    for number in range(2):
        assert (await app.call("PUT", CALLBACK, json=body)).status == 204
        seen = await app.call("GET", CALLBACK)
        assert (seen.status, seen.json["url"]) == (200, body["url"])
        await app.publish(number)
        await wait_until(lambda number=number: len(hook.items) > number)  # type: ignore[misc]
    assert [number_of(item) for item in hook.items] == [0, 1]
    assert hook.calls[0].headers["Authentication"] == "5f4dcc3b5aa765d61d8327deb882cf99"


async def test_bridge_over_a_long_poll(app: Application) -> None:
    await app.call("PUT", SUBSCRIPTIONS, json=ALL_DEVICES)
    await app.calls(("DELETE", CALLBACK, 404))
    polled = asyncio.create_task(app.call("GET", PULL))
    await wait_until(lambda: is_held(app))
    for number in range(3):
        await app.publish(number)
        response = await polled
        assert response.status == 200
        assert [number_of(item) for item in response.json["notifications"]] == [number]
        polled = asyncio.create_task(app.call("GET", PULL))
    await wait_until(lambda: is_held(app))
    removed = await app.call("DELETE", PULL)
    assert (removed.status, removed.text) == (200, "REMOVED")
    gone = await polled
    assert (gone.status, gone.text) == (410, "CHANNEL_DELETED")


async def is_held(app: Application) -> bool:
    """Is a socket or a poll open?"""
    response = await app.call("GET", f"/v1/channels/{app.key.id}")
    return response.status == 200 and bool(response.json["connected"])


async def test_swim(origin: AllInOne, app: Application, hook: Webhook) -> None:
    """Sends three DELETEs and its PUT together, in whatever order they arrive; closed, it starts over."""
    assert (await app.call("PUT", CALLBACK, json={"url": hook.url})).status == 204
    await app.call("PUT", SUBSCRIPTIONS, json=ALL_DEVICES)

    async def starts() -> bool:
        *deleted, put = await asyncio.gather(
            *(app.call("DELETE", path) for path in (CALLBACK, PULL, WEBSOCKET)), app.call("PUT", WEBSOCKET)
        )
        assert {response.status for response in deleted} <= {200, 204, 404}
        assert put.status in (200, 201, 400)
        async with app.socket(with_header(origin.url, app.key)) as socket:
            if await app.api.publish(app.key, reading(1)) == [0]:
                assert await socket.closed() == 1011
                return False
            await socket.has([1])
            return True

    await wait_until(starts)
    kind = await app.call("GET", "/v2/notification/channel")
    assert kind.json == {"delivery_mechanism": "WEB_SOCKET"}


async def test_sdk_java(origin: AllInOne, app: Application, hook: Webhook) -> None:
    """Clears all kinds, whichever is there; after a takeover it registers, looks and connects again."""
    assert (await app.call("PUT", CALLBACK, json={"url": hook.url})).status == 204
    await app.call("PUT", SUBSCRIPTIONS, json=ALL_DEVICES)
    await app.calls(
        *(("GET", CALLBACK, 200), ("PUT", WEBSOCKET, 400)),
        *(("DELETE", CALLBACK, 204), ("DELETE", PULL, 200), ("DELETE", WEBSOCKET, 404)),
        *(("GET", CALLBACK, 404), ("PUT", WEBSOCKET, 201), ("GET", WEBSOCKET, 200)),
    )
    async with app.socket(key_first(origin.url, app.key)) as older:
        async with app.socket(key_first(origin.url, app.key)):
            assert await older.closed() == 1001
        await app.publish(1)
        await app.calls(("PUT", WEBSOCKET, 200), ("GET", WEBSOCKET, 200))
        async with app.socket(key_first(origin.url, app.key)) as newer:
            await newer.has([1])
        await app.calls(("DELETE", WEBSOCKET, 204))


async def test_sdk_net(origin: AllInOne, app: Application, hook: Webhook) -> None:
    """Deletes a webhook that is in the way until there is none, and deletes its channel after each close."""
    assert (await app.call("PUT", CALLBACK, json={"url": hook.url})).status == 204
    await app.call("PUT", SUBSCRIPTIONS, json=ALL_DEVICES)
    await app.calls(
        *(("GET", CALLBACK, 200), ("GET", WEBSOCKET, 404), ("PUT", WEBSOCKET, 400)),
        *(("DELETE", CALLBACK, 204), ("PUT", WEBSOCKET, 201)),
    )
    async with app.socket(key_first(origin.url, app.key)) as older:
        async with app.socket(key_first(origin.url, app.key)):
            assert await older.closed() == 1001
        await app.calls(("DELETE", WEBSOCKET, 204), ("PUT", WEBSOCKET, 201))
        async with app.socket(key_first(origin.url, app.key)) as newer:
            await app.publish(1)
            await newer.has([1])
    await app.calls(("DELETE", WEBSOCKET, 204), ("DELETE", WEBSOCKET, 404))


async def test_sdk_js(app: Application) -> None:
    """Starts one poll too many with each subscription; those must end by a 409, and the first go on."""
    await app.calls(("GET", CALLBACK, 404))
    first = asyncio.create_task(app.call("GET", PULL))
    await wait_until(lambda: is_held(app))
    for number in range(4):
        assert (await app.call("PUT", f"{SUBSCRIPTIONS}/sensor-1/3303/0/{5700 + number}")).status == 200
        surplus = await app.call("GET", PULL)
        assert (surplus.status, surplus.text) == (409, "CONCURRENT_PULL_REQUEST_RECEIVED")

    await app.publish(1)

    response = await first
    assert [number_of(item) for item in response.json["notifications"]] == [1]
    await app.calls(("DELETE", SUBSCRIPTIONS, 204), ("DELETE", PULL, 200))


async def test_quick_start(app: Application, hook: Webhook) -> None:
    """Writes `bearer` in lower case, and asks for time stamps in its webhook."""
    headers = {"Authorization": f"bearer {app.key.secret}"}

    async def call(method: str, path: str, **content: Any) -> int:
        return (await app.api.call(method, path, headers=headers, **content)).status

    assert await call("DELETE", SUBSCRIPTIONS) == 204
    assert await call("PUT", SUBSCRIPTIONS, json=[{"resource-path": ["/3303/0/5700"]}]) == 204
    assert await call("DELETE", CALLBACK) == 404
    assert await call("DELETE", PULL) == 200
    serialization = {"type": "v2", "cfg": {"include_timestamp": True}}
    body = {"url": hook.url, "headers": {}, "serialization": serialization}
    assert await call("PUT", CALLBACK, json=body) == 204
    await app.publish(1)
    await wait_until(lambda: hook.items)
    assert {number_of(item): type(item["timestamp"]) for item in hook.items} == {1: int}


async def test_mbed_connector_node(app: Application) -> None:
    """Its first poll only asks whether polling works, and makes the channel."""
    accepts = {"Accept": "application/json"}
    first = await app.call("GET", f"{PULL}?noWait=true", headers=accepts)
    assert (first.status, first.text) == (204, "")
    await app.api.publish(app.key, *readings(range(3), to=app.key.id))

    second = await app.call("GET", PULL, headers=accepts)

    assert [number_of(item) for item in second.json["notifications"]] == [0, 1, 2]
