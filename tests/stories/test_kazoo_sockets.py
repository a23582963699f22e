"""Kazoo's sockets (Blackhole): frames authenticate and bind; each matching binding sends an event frame."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, Protocol

import aiohttp
import pytest

from tests.harness.api import Api, ApiKey
from tests.harness.blackhole import Blackhole
from tests.harness.stack import Stack
from tests.harness.waiting import wait_until

CREATED = "call.CHANNEL_CREATE.*"


class Connect(Protocol):
    """Opens a socket, authenticated if a key is given."""

    async def __call__(self, key: ApiKey | None = None, *, edge: int = 0, path: str = "/") -> Blackhole: ...


@pytest.fixture
async def connect(stack: Stack, http: aiohttp.ClientSession) -> AsyncIterator[Connect]:
    opened: list[Blackhole] = []

    async def open_socket(key: ApiKey | None = None, *, edge: int = 0, path: str = "/") -> Blackhole:
        opened.append(await Blackhole.open(http, stack.edges[edge].url + path))
        if key is not None:
            assert (await opened[-1].ask("ping", token=key.secret))["data"] == {"response": "pong"}
        return opened[-1]

    yield open_socket
    for one in opened:
        await one.close()


def call(event: str = "CHANNEL_CREATE", *, call_id: str = "abc", more: Any = None) -> dict[str, Any]:
    given = {"Call-ID": call_id, "Event-Name": event, "Event-Category": "call_event", **(more or {})}
    return {"topic": f"call.{event}.{call_id}", "name": event, "data": given}


async def sockets(api: Api, key: ApiKey, account: str | None = None) -> list[dict[str, Any]]:
    response = await api.call("GET", f"/v2/accounts/{account or key.account}/websockets", key=key)
    assert response.status == 200, response.text
    found: list[dict[str, Any]] = response.json["data"]
    return found


async def test_the_server_sends_nothing_unasked(connect: Connect) -> None:
    client = await connect()

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await client.socket.receive()


@pytest.mark.parametrize("path", ["/", "/socket", "/whatever/path", "/socket?x=1"])
async def test_a_socket_opens_on_any_path_of_its_own(connect: Connect, key: ApiKey, path: str) -> None:
    await connect(key, path=path)


@pytest.mark.parametrize("path", ["/v1/socket/", "/v1/sockets", "/v2/nothing", "/v2", "/api/v2/websocket"])
async def test_paths_of_other_apis_are_not_found(
    stack: Stack, http: aiohttp.ClientSession, path: str
) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as error:
        await http.ws_connect(stack.edges[0].url + path)
    assert error.value.status == 404


async def test_a_subprotocol_is_refused_and_a_plain_get_must_upgrade(
    stack: Stack, api: Api, http: aiohttp.ClientSession
) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as error:
        await http.ws_connect(stack.edges[0].url + "/socket", protocols=["wss"])
    assert error.value.status == 400
    assert (await api.at(stack.edges[0].url).call("GET", "/socket")).status == 426


async def test_an_event_frame_has_routing_keys_and_normalized_data(
    api: Api, connect: Connect, key: ApiKey
) -> None:
    client = await connect(key)
    subscribed = await client.subscribe(CREATED)
    assert subscribed == {"subscribed": [CREATED], "subscriptions": [CREATED]}

    nested = {"Account-ID": key.account, "Owner-ID": None}
    assert await api.publish(key, call(more={"Custom-Channel-Vars": nested})) == [1]

    assert await client.event() == {
        "action": "event",
        "subscribed_key": CREATED,
        "subscription_key": f"call.{key.account}.CHANNEL_CREATE.*",
        "name": "CHANNEL_CREATE",
        "routing_key": f"call.{key.account}.CHANNEL_CREATE.abc",
        "data": {
            "call_id": "abc",
            "event_name": "CHANNEL_CREATE",
            "event_category": "call_event",
            "custom_channel_vars": {"account_id": key.account},
        },
    }


async def test_an_event_is_sent_once_for_each_matching_binding(
    api: Api, connect: Connect, key: ApiKey
) -> None:
    client = await connect(key)
    await client.subscribe(CREATED, "call.*.abc", "call.CHANNEL_DESTROY.*")

    await api.publish(key, call())

    assert {(await client.event())["subscribed_key"] for _ in range(2)} == {CREATED, "call.*.abc"}
    assert (await client.ask("ping"))["status"] == "success"
    assert client.events == []


async def test_unsubscribe_stops_events(api: Api, connect: Connect, key: ApiKey) -> None:
    client = await connect(key)
    await client.subscribe(CREATED, "object.doc_created.user")
    reply = await client.ask("unsubscribe", binding=CREATED)
    left = ["object.doc_created.user"]
    assert reply["data"] == {"unsubscribed": [CREATED], "subscribed": left, "subscriptions": left}

    user = {"topic": "object.doc_created.user.u1", "data": {"id": "u1"}}
    assert await api.publish(key, call(), user) == [0, 1]
    assert (await client.event())["subscribed_key"] == "object.doc_created.user"

    assert (await client.ask("unsubscribe"))["data"]["subscriptions"] == []
    assert await api.publish(key, user) == [0]


async def test_a_socket_may_subscribe_to_descendant_accounts_only(
    api: Api, connect: Connect, key: ApiKey
) -> None:
    child = await api.account(parent=key.account)
    publisher = await api.api_key(account=child)
    outsider = await api.api_key()
    client = await connect(key)

    await client.subscribe(CREATED, account_id=child)
    assert await api.publish(publisher, call()) == [1]
    assert (await client.event())["subscription_key"] == f"call.{child}.CHANNEL_CREATE.*"

    reply = await client.ask("subscribe", binding=CREATED, account_id=outsider.account)
    assert reply["data"] == {"errors": ["unauthorized account id"]}
    reply = await client.ask("subscribe", binding=CREATED, account_id="*")
    assert reply["data"] == {"errors": ["unauthorized wildcard account id"]}
    assert await api.publish(outsider, call()) == [0]


async def test_a_master_account_may_subscribe_to_all_accounts(
    api: Api, connect: Connect, key: ApiKey
) -> None:
    response = await api.admin("POST", "/v1/accounts", json={"name": "master", "master": True})
    master = await api.api_key(account=response.json["id"])
    client = await connect(master, edge=1)
    await client.subscribe(CREATED, account_id="*")

    assert await api.publish(key, call(call_id="mine")) == [1]

    assert (await client.event())["routing_key"] == f"call.{key.account}.CHANNEL_CREATE.mine"
    await client.ask("unsubscribe")


async def test_a_socket_is_listed_from_authentication_to_close(
    api: Api, other_api: Api, connect: Connect, key: ApiKey
) -> None:
    anonymous = await connect()
    assert (await anonymous.ask("ping"))["data"] == {"errors": ["authentication token required"]}
    assert await sockets(api, key) == []

    client = await connect(key, edge=1)
    [shown] = await sockets(other_api, key)
    assert (shown["bindings"], shown["source"], shown["destination"]) == ([], "127.0.0.1", "edge-1")
    assert shown["timestamp"] > 63_750_000_000

    await client.subscribe(CREATED)
    socket_id = shown["websocket_session_id"]
    one = await api.call("GET", f"/v2/accounts/{key.account}/websockets/{socket_id}", key=key)
    assert one.json["data"] == {**shown, "bindings": [CREATED]}

    await client.close()

    async def is_gone() -> bool:
        return await sockets(api, key) == []

    await wait_until(is_gone)


async def test_a_bad_token_gets_kazoos_error(connect: Connect) -> None:
    client = await connect()

    reply = await client.ask("subscribe", token="nonsense", binding=CREATED)

    assert (reply["status"], reply["data"]) == (
        "error",
        {"errors": ["failed to authenticate token nonsense"]},
    )


async def test_a_token_authenticates_a_socket(api: Api, connect: Connect, key: ApiKey) -> None:
    made = await api.call("PUT", "/v2/api_auth", json={"data": {"api_key": key.secret}})
    assert made.status == 201

    client = await connect()
    reply = await client.ask("subscribe", token=made.json["auth_token"], binding=CREATED)

    assert reply["status"] == "success"


async def test_malformed_frames_get_replies_and_do_not_affect_other_sockets(
    api: Api, connect: Connect, key: ApiKey
) -> None:
    client, other = await connect(key), await connect(key)
    await other.subscribe(CREATED)
    for text in ("{", "[]", "null", '"x"', "\u0000", '{"action": 7, "data": []}'):
        await client.socket.send_str(text)
    await client.socket.send_bytes(b"\x00\x01")

    replies = [json.loads(await client.socket.receive_str()) for _ in range(6)]

    assert {reply["action"] for reply in replies} == {"reply"}
    assert (await client.ask("ping"))["status"] == "success"
    await api.publish(key, call())
    assert (await other.event())["name"] == "CHANNEL_CREATE"


async def test_too_many_frames_are_rate_limited_without_a_close(connect: Connect, key: ApiKey) -> None:
    client = await connect(key)

    replies = [await client.ask("ping") for _ in range(120)]

    refused = [reply for reply in replies if reply["status"] == "error"]
    assert refused
    assert refused[0]["data"]["errors"][0].startswith("rate limiting threshold hit for ")


async def test_the_handshake_may_authenticate(stack: Stack, http: aiohttp.ClientSession, key: ApiKey) -> None:
    url = stack.edges[0].url + "/socket"
    client = await Blackhole.open(http, url, headers={"Authorization": f"Bearer {key.secret}"})
    assert (await client.ask("ping"))["status"] == "success"
    await client.close()

    with pytest.raises(aiohttp.WSServerHandshakeError) as error:
        await http.ws_connect(url, headers={"Authorization": "Bearer nonsense"})
    assert error.value.status == 403


async def test_revoking_a_key_closes_its_sockets(api: Api, connect: Connect, key: ApiKey) -> None:
    client = await connect(key)

    await api.revoke(key)

    assert await client.closed() == 1008
