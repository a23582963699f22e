"""A Cognism trigger: opened with two credentials and a pattern; the first frame names its session."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
import pytest

from tests.harness.api import Api, ApiKey
from tests.harness.events import reading
from tests.harness.stack import Stack
from tests.harness.waiting import wait_until

JOIN = "/api/v1/websocket"
Join = Callable[..., Any]


def headers_of(key: ApiKey) -> dict[str, str]:
    return {"X-API-AccessToken": key.id, "X-API-SecretKey": key.secret}


def query_of(key: ApiKey, **more: str) -> str:
    return urlencode({"accessToken": key.id, "secretKey": key.secret, **more})


@pytest.fixture
async def join(stack: Stack, http: aiohttp.ClientSession) -> AsyncIterator[Join]:
    """Opens triggers and closes them at the end of the test."""
    opened: list[aiohttp.ClientWebSocketResponse] = []

    async def open_socket(
        key: ApiKey, pattern: str | None = None, *, edge: int = 0
    ) -> aiohttp.ClientWebSocketResponse:
        query = "" if pattern is None else f"?pattern={quote(pattern)}"
        url = stack.edges[edge].url + JOIN + query
        socket = await http.ws_connect(url, headers=headers_of(key))
        opened.append(socket)
        return socket

    yield open_socket
    for socket in opened:
        await socket.close()


async def text(socket: aiohttp.ClientWebSocketResponse) -> str:
    async with asyncio.timeout(20):
        return str(await socket.receive_str())


async def session_of(socket: aiohttp.ClientWebSocketResponse) -> str:
    """The session id in the first frame."""
    first = json.loads(await text(socket))
    assert list(first) == ["session"]
    return str(first["session"])


def move(**data: Any) -> dict[str, Any]:
    return {"topic": "trigger", "data": data}


async def test_the_first_frame_names_the_session(join: Join, key: ApiKey) -> None:
    socket = await join(key)

    session = await session_of(socket)

    assert len(session) == 32
    assert socket._response.headers["X-Websocket-Session"] == session


async def test_matching_events_arrive_as_published(api: Api, join: Join, key: ApiKey) -> None:
    socket = await join(key, json.dumps({"type": ["job-join", "job-leave"], "org": "IBM"}))
    await session_of(socket)
    wanted = {"type": "job-leave", "org": "IBM", "employee": {"name": "Ada"}, "at": 1}

    counts = await api.publish(
        key, move(type="job-join", org="HP"), move(type="quote", org="IBM"), move(**wanted)
    )

    assert counts == [0, 0, 1]
    assert json.loads(await text(socket)) == wanted


async def test_a_pattern_may_be_a_rule_string(api: Api, join: Join, key: ApiKey) -> None:
    socket = await join(key, "type=job-join|310;employee.title=CTO;")
    await session_of(socket)

    await api.publish(
        key, move(type=310, employee={"title": "CEO"}), move(type=310, employee={"title": "CTO"})
    )

    assert json.loads(await text(socket))["employee"]["title"] == "CTO"


async def test_without_a_pattern_all_events_of_the_account_arrive(api: Api, join: Join, key: ApiKey) -> None:
    socket, other = await join(key), await join(await api.api_key())
    await session_of(socket)
    await session_of(other)

    await api.publish(key, move(type="a"), reading(7), move(type="b"))

    assert json.loads(await text(socket)) == {"type": "a"}
    assert json.loads(await text(socket))["ep"] == "sensor-1"
    assert json.loads(await text(socket)) == {"type": "b"}
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await other.receive_str()


async def test_sockets_of_one_key_are_independent(api: Api, join: Join, key: ApiKey) -> None:
    first, second = await join(key, "type=a"), await join(key, "type=a|b", edge=1)
    await session_of(first)
    await session_of(second)

    assert await api.publish(key, move(type="a"), move(type="b")) == [2, 1]

    assert json.loads(await text(first)) == {"type": "a"}
    assert [json.loads(await text(second)) for _ in range(2)] == [{"type": "a"}, {"type": "b"}]


async def test_credentials_in_headers_take_precedence_over_the_query(
    stack: Stack, api: Api, http: aiohttp.ClientSession, key: ApiKey
) -> None:
    other = await api.api_key()
    url = f"{stack.edges[0].url}{JOIN}?{query_of(key)}"
    async with http.ws_connect(url) as socket:
        await session_of(socket)
    async with http.ws_connect(
        f"{stack.edges[0].url}{JOIN}?{query_of(other)}", headers=headers_of(key)
    ) as socket:
        await session_of(socket)
        await api.publish(key, move(type="mine"))
        assert json.loads(await text(socket)) == {"type": "mine"}


async def refusal(http: aiohttp.ClientSession, url: str, **options: Any) -> int:
    with pytest.raises(aiohttp.WSServerHandshakeError) as error:
        await http.ws_connect(url, **options)
    return int(error.value.status)


async def test_wrong_credentials_are_refused_before_the_upgrade(
    stack: Stack, api: Api, http: aiohttp.ClientSession, key: ApiKey
) -> None:
    url = stack.edges[0].url + JOIN
    other = await api.api_key()
    publisher = await api.api_key(scopes=("publish",))

    assert await refusal(http, url) == 401
    assert await refusal(http, url, headers={"X-API-AccessToken": key.id}) == 401
    assert await refusal(http, url, headers={**headers_of(key), "X-API-AccessToken": other.id}) == 401
    assert await refusal(http, url, headers={**headers_of(key), "X-API-SecretKey": "ak_wrong"}) == 401
    assert await refusal(http, url, headers=headers_of(publisher)) == 403


@pytest.mark.parametrize("pattern", ['{"type":', "type", "=a", '{"a":{"b":1}}', "org=valuelist(x)", "[1]"])
async def test_an_invalid_pattern_is_a_400(
    stack: Stack, http: aiohttp.ClientSession, key: ApiKey, pattern: str
) -> None:
    url = f"{stack.edges[0].url}{JOIN}?pattern={quote(pattern)}"

    assert await refusal(http, url, headers=headers_of(key)) == 400


async def test_a_plain_get_must_authenticate_and_then_upgrade(stack: Stack, api: Api, key: ApiKey) -> None:
    edge = api.at(stack.edges[0].url)

    assert (await edge.call("GET", JOIN)).status == 401
    response = await edge.call("GET", JOIN, headers=headers_of(key))
    assert (response.status, response.headers["Upgrade"]) == (426, "websocket")


async def test_frames_of_the_client_are_ignored(api: Api, join: Join, key: ApiKey) -> None:
    socket = await join(key)
    await session_of(socket)

    await socket.send_str("hello")
    await socket.send_bytes(b"\x00")
    await api.publish(key, move(type="a"))

    assert json.loads(await text(socket)) == {"type": "a"}


async def test_a_closed_socket_leaves_the_routing_table(api: Api, join: Join, key: ApiKey) -> None:
    socket = await join(key)
    await session_of(socket)

    await socket.close()

    async def is_gone() -> bool:
        return await api.publish(key, move(type="a")) == [0]

    await wait_until(is_gone)


async def test_revoking_a_key_closes_its_sockets(api: Api, join: Join, key: ApiKey) -> None:
    socket = await join(key)
    await session_of(socket)

    await api.revoke(key)

    async with asyncio.timeout(30):
        message = await socket.receive()
    assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 1008)
