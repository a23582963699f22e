"""Durable channels on native sockets from outside: acks by frame, redelivery, takeovers, killed edges."""

import asyncio
from typing import Any

import aiohttp
import pytest

from tests.conftest import Listen, Start
from tests.harness.api import Api
from tests.harness.channels import AccountChannels, Sockets
from tests.harness.events import reading
from tests.harness.native import NativeSocket, native_socket
from tests.harness.stack import Stack
from tests.harness.tokens import Issuer, issuer
from tests.harness.waiting import wait_until

SCOPES = ("publish", "receive", "channels", "admin")


@pytest.fixture
async def mine(api: Api) -> AccountChannels:
    return AccountChannels(api, await api.api_key(scopes=SCOPES))


@pytest.fixture
async def back_end(api: Api, mine: AccountChannels) -> Issuer:
    return await issuer(api, mine.key)


@pytest.fixture
async def kitchen(mine: AccountChannels) -> str:
    """The id of a channel that gets the orders."""
    made = await mine.create(name="kitchen", bindings=["orders.#"])
    return str(made["id"])


async def publish(mine: AccountChannels, *numbers: int, **more: Any) -> None:
    events = [{"topic": "orders.paid", "data": number, **more} for number in numbers]
    response = await mine.api.post_events(mine.key, events)
    assert response.status == 202, response.text


def entry_of(socket: NativeSocket, number: int) -> str:
    """The entry of the last event with this number."""
    return str([frame["entry"] for frame in socket.of("entry") if frame["event"]["data"] == number][-1])


def again(socket: NativeSocket) -> list[Any]:
    """What came with `redelivered`."""
    return [frame["event"]["data"] for frame in socket.of("entry") if frame.get("redelivered")]


async def ack(socket: NativeSocket, channel: str, number: int) -> None:
    await socket.ask(ack={"channel": channel, "entry": entry_of(socket, number)})


async def test_from_the_first_event_to_the_last_ack(
    stack: Stack, mine: AccountChannels, back_end: Issuer, kitchen: str
) -> None:
    await publish(mine, 0, 1)
    token = back_end.token(channels=["kitchen"], read=None)
    async with native_socket(stack.edges[0].url, token=token) as socket:
        assert await socket.ask(open={"channel": "kitchen"}) == {"channel": kitchen, "name": "kitchen"}
        await socket.until_data([0, 1])
        await publish(mine, 2)
        await socket.until_data([0, 1, 2])
        frame = socket.of("entry")[0]
        assert frame["channel"] == kitchen
        assert frame["event"].items() >= {"type": "orders.paid", "specversion": "1.0", "data": 0}.items()

        await mine.until(kitchen, pending=3, connected=True)
        await ack(socket, kitchen, 1)
        assert (await mine.get(kitchen))["pending"] == 1
        await socket.send({"ack": {"channel": kitchen, "entry": entry_of(socket, 2)}})
        await mine.until(kitchen, pending=0)
        assert await socket.ask(close={"channel": kitchen}) == {"channel": kitchen}
        assert (await mine.get(kitchen))["connected"] is False
        assert again(socket) == []


async def test_an_edge_is_killed_between_an_event_and_its_ack_and_after_one(
    start: Start, http: aiohttp.ClientSession
) -> None:
    stack = start(edges=2, HEARTBEAT_S=0.3, HEARTBEAT_TTL_S=1)
    api = Api(http, stack.gateways[0].url, stack.admin_token)
    mine = AccountChannels(api, await api.api_key(scopes=SCOPES))
    kitchen = (await mine.create(name="kitchen", bindings=["orders.#"]))["id"]
    await publish(mine, *range(6))
    async with native_socket(stack.edges[0].url, bearer=mine.key.secret) as socket:
        await socket.ask(open={"channel": kitchen})
        await socket.until_data([0, 1, 2, 3, 4, 5])
        await ack(socket, kitchen, 2)
        stack.edges[0].kill()
        assert (await socket.closed())[0] == 1006

    async with native_socket(stack.edges[1].url, bearer=mine.key.secret) as socket:
        await socket.ask(open={"channel": kitchen})
        await socket.until_data([3, 4, 5])
        await ack(socket, kitchen, 5)
        await publish(mine, 6)
        await socket.until_data([3, 4, 5, 6])
        assert (await mine.get(kitchen))["pending"] == 1


@pytest.mark.parametrize("edge", [0, 1], ids=["on the same edge", "on another edge"])
async def test_the_newest_of_two_sockets_has_the_channel(
    stack: Stack, mine: AccountChannels, back_end: Issuer, kitchen: str, edge: int
) -> None:
    await publish(mine, 0, 1, 2)
    token = back_end.token(channels=[kitchen])
    async with (
        native_socket(stack.edges[0].url, token=token) as older,
        native_socket(stack.edges[edge].url, token=token) as newer,
    ):
        await older.ask(open={"channel": kitchen})
        await older.until_data([0, 1, 2])
        await ack(older, kitchen, 0)

        await newer.ask(open={"channel": kitchen})

        told = await older.next("closed")
        assert told["closed"] == {"channel": kitchen, "reason": "taken_over", "reconnect": False}
        await newer.until_data([1, 2])
        entry = entry_of(older, 2)
        assert (await older.refused(ack={"channel": kitchen, "entry": entry}))["code"] == "not_found"
        await publish(mine, 3)
        await newer.until_data([1, 2, 3])
        await ack(newer, kitchen, 3)
        assert older.data == [0, 1, 2]
        assert await older.ask(ping={}) == {}


async def test_pelion_sockets_and_native_ones_take_a_channel_from_each_other(
    stack: Stack, mine: AccountChannels, kitchen: str
) -> None:
    await publish(mine, 0)
    opening = Sockets(stack.edges[0].url)
    async with native_socket(stack.edges[1].url, bearer=mine.key.secret) as socket:
        await socket.ask(open={"channel": "kitchen"})
        await socket.until_data([0])

        receiver = await opening.open(mine.key, "kitchen")

        assert (await socket.next("closed"))["closed"]["reason"] == "taken_over"
        [(_, item)] = await receiver.received(1)
        assert item["data"] == 0
        await mine.until(kitchen, pending=0)
        await socket.ask(open={"channel": "kitchen"})
        assert await receiver.closed() == 1001
        await publish(mine, 1)
        await socket.until_data([0, 1])


async def test_an_api_key_owns_its_own_channel_by_either_socket(
    stack: Stack, api: Api, listen: Listen
) -> None:
    key = await api.api_key()
    await api.register(key)
    await api.publish(key, reading(0, to=key.id))
    async with native_socket(stack.edges[0].url, bearer=key.secret) as socket:
        await socket.ask(open={"channel": f"ch_{key.id}"})
        frame = await socket.next("entry")
        assert frame["event"]["type"] == "device.notifications"
        await api.publish(key, reading(1, to=key.id))
        await socket.next("entry")
        await socket.ask(ack={"channel": f"ch_{key.id}", "entry": frame["entry"]})

        receiver = await listen(key)

        await receiver.received_numbers([1])
        assert (await socket.next("closed"))["closed"]["reason"] == "taken_over"


async def test_a_nack_keeps_the_order(
    stack: Stack, mine: AccountChannels, back_end: Issuer, kitchen: str
) -> None:
    await publish(mine, *range(5))
    async with native_socket(stack.edges[0].url, token=back_end.token(channels=["kitchen"])) as socket:
        await socket.ask(open={"channel": "kitchen"})
        await socket.until_data([0, 1, 2, 3, 4])

        said = await socket.ask(nack={"channel": kitchen, "entry": entry_of(socket, 2), "delay_s": 0.2})
        await publish(mine, 5)

        assert said == {"channel": kitchen, "entry": entry_of(socket, 2)}
        await socket.until_data([0, 1, 2, 3, 4, 2, 3, 4, 5])
        assert again(socket) == [2, 3, 4]
        await ack(socket, kitchen, 1)
        assert (await mine.get(kitchen))["pending"] == 4
        await ack(socket, kitchen, 5)
        assert (await mine.get(kitchen))["pending"] == 0


async def test_what_is_not_acked_in_time_comes_again(
    stack: Stack, mine: AccountChannels, back_end: Issuer, kitchen: str
) -> None:
    await publish(mine, 0, 1)
    async with native_socket(stack.edges[0].url, token=back_end.token(channels=["kitchen"])) as socket:
        await socket.ask(open={"channel": "kitchen", "ack_timeout_s": 1})
        await socket.until_data([0, 1])
        await ack(socket, kitchen, 0)

        await wait_until(lambda: len(socket.data) >= 3)
        await publish(mine, 2)
        await wait_until(lambda: 2 in socket.data)
        await ack(socket, kitchen, 2)

        assert (await mine.get(kitchen))["pending"] == 0
        assert 1 in again(socket)
        assert list(dict.fromkeys(socket.data)) == [0, 1, 2]


async def test_a_slow_client_gets_no_more_than_it_may_have_in_flight(
    stack: Stack, mine: AccountChannels, back_end: Issuer, kitchen: str
) -> None:
    padding = "x" * 1000
    events = [{"topic": "orders.paid", "data": [number, padding]} for number in range(2000)]
    for start in range(0, len(events), 500):
        response = await mine.api.post_events(mine.key, events[start : start + 500])
        assert response.status == 202
    async with native_socket(stack.edges[0].url, token=back_end.token(channels=["kitchen"])) as socket:
        socket.pause()
        await socket.send({"ref": 900, "open": {"channel": "kitchen", "ack_timeout_s": 1, "in_flight": 50}})
        await mine.until(kitchen, connected=True)
        socket.go_on()

        for until in range(49, 2000, 50):
            await wait_until(lambda: [until, padding] in socket.data)  # noqa: B023
            entry = next(f["entry"] for f in socket.of("entry") if f["event"]["data"][0] == until)
            assert max(data[0] for data in socket.data) == until
            await socket.ask(ack={"channel": kitchen, "entry": entry})

        await mine.until(kitchen, pending=0)
        firsts = list(dict.fromkeys(data[0] for data in socket.data))
        assert firsts == list(range(2000))


async def test_a_shutdown_waits_for_acks_and_the_next_edge_goes_on(
    start: Start, http: aiohttp.ClientSession
) -> None:
    stack = start(edges=2)
    api = Api(http, stack.gateways[0].url, stack.admin_token)
    mine = AccountChannels(api, await api.api_key(scopes=SCOPES))
    kitchen = (await mine.create(bindings=["orders.#"]))["id"]
    await publish(mine, 0, 1)
    async with native_socket(stack.edges[0].url, bearer=mine.key.secret) as socket:
        await socket.ask(open={"channel": kitchen})
        await socket.until_data([0, 1])
        await ack(socket, kitchen, 0)
        stack.edges[0].terminate()
        code, _ = await socket.closed()
        assert code in (1001, 1012)

    async with native_socket(stack.edges[1].url, bearer=mine.key.secret) as socket:
        await socket.ask(open={"channel": kitchen})
        await socket.until_data([1])
        await ack(socket, kitchen, 1)
        assert (await mine.get(kitchen))["pending"] == 0


async def test_a_refreshed_token_and_a_deleted_channel_end_only_the_channel(
    stack: Stack, mine: AccountChannels, back_end: Issuer, kitchen: str
) -> None:
    cellar = (await mine.create(name="cellar"))["id"]
    token = back_end.token(channels=["kitchen", "cellar"])
    async with native_socket(stack.edges[0].url, token=token) as socket:
        for name in ("kitchen", "cellar"):
            await socket.ask(open={"channel": name})
        await socket.ask(refresh={"token": back_end.token(channels=[cellar])})
        told = await socket.next("closed")
        assert told["closed"] == {"channel": kitchen, "reason": "forbidden", "reconnect": False}
        assert (await socket.refused(open={"channel": "kitchen"}))["code"] == "forbidden"

        assert (await mine.call("DELETE", f"/{cellar}")).status == 204
        told = await socket.next("closed")
        assert told["closed"] == {"channel": cellar, "reason": "channel_deleted", "reconnect": False}
        assert (await socket.refused(open={"channel": cellar}))["code"] == "not_found"
        assert await socket.ask(ping={}) == {}


async def test_redis_is_killed_while_a_channel_is_open(start: Start, http: aiohttp.ClientSession) -> None:
    stack = start(edges=1, appendfsync="always")
    api = Api(http, stack.gateways[0].url, stack.admin_token)
    mine = AccountChannels(api, await api.api_key(scopes=SCOPES))
    kitchen = (await mine.create(bindings=["orders.#"]))["id"]
    await publish(mine, 0, 1, 2)
    async with native_socket(stack.edges[0].url, bearer=mine.key.secret) as socket:
        await socket.ask(open={"channel": kitchen})
        await socket.until_data([0, 1, 2])
        stack.valkey.kill()
        acking = asyncio.create_task(ack(socket, kitchen, 1))
        stack.valkey.start()
        stack.valkey.wait_ready()
        await acking

        await wait_until(lambda: _published(mine, 3), what="a publish")
        await socket.until_data([0, 1, 2, 3])
        await mine.until(kitchen, pending=2)


async def _published(mine: AccountChannels, number: int) -> bool:
    event = {"topic": "orders.paid", "id": "once", "data": number}
    headers = {"Idempotency-Key": "once"}
    response = await mine.api.call("POST", "/v1/events", key=mine.key, json=[event], headers=headers)
    return response.status == 202
