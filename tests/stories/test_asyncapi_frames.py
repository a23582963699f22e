"""Every message of the AsyncAPI document, as it is said in a story: it has the schema that it should have."""

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from shared.wire import sse
from tests.harness.api import Api, ApiKey
from tests.harness.event_stream import EventStreamParser, Message
from tests.harness.events import reading
from tests.harness.frames import CLIENT, SERVER, check_frame, messages
from tests.harness.native import NativeSocket, native_socket
from tests.harness.sse import OTHER, TOPIC, StreamClient, bind, keep
from tests.harness.stack import Stack
from tests.harness.tokens import Issuer, issuer
from tests.harness.waiting import wait_until

KITCHEN = "kitchen"
USUAL = {"read": ["orders.#"], "publish": ["orders.#"], "channels": [KITCHEN]}


@pytest.fixture
async def admin(api: Api) -> ApiKey:
    """Of an account with streams and a channel."""
    made = await api.api_key(scopes=("publish", "receive", "channels", "admin"))
    await bind(api, made, "orders.#")
    await keep(api, made, "orders.#")
    channel = {"kind": "websocket", "name": KITCHEN, "bindings": [OTHER]}
    assert (await api.call("POST", "/v1/channels", key=made, json=channel)).status == 201
    return made


@pytest.fixture
async def back_end(api: Api, admin: ApiKey) -> Issuer:
    return await issuer(api, admin)


class Client:
    """Says only what is documented."""

    def __init__(self, socket: NativeSocket) -> None:
        self.socket = socket
        self.said = set[str]()

    async def ask(self, **operation: Any) -> Any:
        self.said.add(check_frame("native", CLIENT, {"ref": 1, **operation}))
        return await self.socket.ask(**operation)

    async def tell(self, **operation: Any) -> None:
        """Without a ref."""
        self.said.add(check_frame("native", CLIENT, operation))
        await self.socket.send(operation)

    def heard(self) -> set[str]:
        return {check_frame("native", SERVER, frame) for frame in self.socket.frames}


@pytest.fixture
async def client(stack: Stack) -> AsyncIterator[Client]:
    async with native_socket(stack.edges[0].url) as socket:
        yield Client(socket)


async def test_every_frame_of_the_native_socket(
    stack: Stack, api: Api, admin: ApiKey, back_end: Issuer, client: Client
) -> None:
    socket = client.socket
    await client.ask(auth={"token": back_end.token(**USUAL)})
    await client.ask(ping={})
    await reads_topics(client, api, admin)
    await owns_a_channel(client, api, admin)
    event = {"topic": TOPIC, "id": "e-1", "data": [1], "receipt": True}
    await client.ask(publish={"events": [event], "idempotency_key": "k"})
    assert (await socket.refused(publish={"events": [{**event, "topic": "chat"}]}))["code"] == "forbidden"

    async with native_socket(stack.edges[1].url, bearer=admin.secret) as newer:
        await Client(newer).ask(open={"channel": KITCHEN})
        assert (await socket.next("closed"))["closed"]["reason"] == "taken_over"
    await client.ask(refresh={"token": back_end.token(read=["orders.other"])})
    assert (await socket.next("ended"))["ended"]["topic"] == TOPIC

    assert client.said == {each.name for each in messages("native", CLIENT)}
    assert client.heard() == {each.name for each in messages("native", SERVER)}


async def reads_topics(client: Client, api: Api, admin: ApiKey) -> None:
    socket = client.socket
    await client.ask(subscribe={"topic": TOPIC})
    await api.publish(admin, {"topic": TOPIC, "data": {"a": None}, "name": "n"})
    place = await socket.next("event")
    await api.publish(admin, {"topic": TOPIC, "data": 1, "to": admin.id})
    await socket.next("moved")
    assert (await api.call("DELETE", f"/v1/streams/{TOPIC}", key=admin)).status == 204
    await api.publish(admin, {"topic": TOPIC, "data": 2})
    await socket.next("recovered")
    await client.ask(unsubscribe={"topic": TOPIC})
    begun = await client.ask(subscribe={"topic": TOPIC, "epoch": "gone", "after": place["offset"]})
    assert begun["reason"] == "lost"


async def owns_a_channel(client: Client, api: Api, admin: ApiKey) -> None:
    socket = client.socket
    opened = await client.ask(open={"channel": KITCHEN, "ack_timeout_s": 60, "in_flight": 10})
    for number in range(3):
        await api.publish(admin, {"topic": OTHER, "data": number})
    deliveries = [await next_delivery(socket) for _ in range(3)]
    of_channel, entries = {"channel": opened["channel"]}, [each["entry"] for each in deliveries]
    await client.tell(ack={**of_channel, "entry": entries[0]})
    await client.ask(ack={**of_channel, "entry": entries[0]})
    await client.ask(nack={**of_channel, "entry": entries[1]})
    assert (await next_delivery(socket))["redelivered"]
    await client.tell(nack={**of_channel, "entry": entries[2], "delay_s": 1})
    await client.ask(close=of_channel)
    await client.ask(open={"channel": opened["channel"]})


async def next_delivery(socket: NativeSocket) -> Any:
    while "channel" not in (frame := await socket.next("event")):
        pass
    return frame


async def test_every_event_of_a_stream(
    stack: Stack, api: Api, http: aiohttp.ClientSession, admin: ApiKey
) -> None:
    reader = await api.api_key(account=admin.account, scopes=("receive",))
    await bind(api, reader, "orders.#")
    client = await StreamClient.open(http, stack.edges[0].url, reader, TOPIC, OTHER)
    try:
        await client.until_begun(2)
        await api.publish(admin, {"topic": TOPIC, "data": {"a": "b\nc"}})
        await client.until_count(1)
        assert (await api.admin("DELETE", f"/v1/api-keys/{reader.id}")).status == 204
        await client.until_end()
        came = [*client.parser.messages, *EventStreamParser().feed(sse.overflow())]
    finally:
        await client.close()
    assert {check_stream(each) for each in came} == {each.name for each in messages("stream", SERVER)}


def check_stream(message: Message) -> str:
    of_place = {"id": message.last_event_id} if message.type in ("message", "recovered") else {}
    of_type = {} if message.type == "message" else {"event": message.type}
    return check_frame("stream", SERVER, message.json, of_type | of_place)


async def test_notifications_of_the_pelion_socket(api: Api, channel: ApiKey, listen: Any) -> None:
    """The fixture of all stories checks them; here is one of each section."""
    receiver = await listen(channel)
    await bind(api, channel, "orders.#")
    await api.subscribe(channel, {"endpoint-name": "*"})
    of_devices = {
        "registrations": {"ep": "lamp", "ept": "t", "original-ep": "l"},
        "reg-updates": {"ep": "lamp"},
        "de-registrations": "lamp",
        "registrations-expired": "lamp",
        "async-responses": {"id": "1", "status": 200},
    }
    events: list[dict[str, Any]] = [
        {"topic": f"device.{name}", "data": data} for name, data in of_devices.items()
    ]
    events[-1]["to"] = channel.id
    await api.publish(channel, *events, reading(1), {"topic": TOPIC, "data": 1})
    await wait_until(
        lambda: {section for section, _ in receiver.items} == {*of_devices, "notifications", "events"},
        what=lambda: receiver.items,
    )
    for frame in receiver.frames:
        check_frame("pelion", SERVER, frame)
