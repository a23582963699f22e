"""POST /api/v1/websocket/session sends data to one socket, and responds when its edge has taken it."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import pytest
from websockets.asyncio.client import ClientConnection, connect

from tests.harness.api import Api, ApiKey, Response
from tests.harness.stack import Stack
from tests.harness.waiting import wait_until
from tests.stories.test_errors import assert_error

PATH = "/api/v1/websocket/session"
BODY = b'{ "deal" : 1.0,\n "org":"IBM" }'


@dataclass
class Trigger:
    """An open socket and its session id."""

    socket: ClientConnection
    session: str

    async def frame(self) -> str:
        frame = await asyncio.wait_for(self.socket.recv(), 20)
        assert isinstance(frame, str)
        return frame


Join = Callable[[int, ApiKey], Awaitable[Trigger]]


@pytest.fixture
async def join(stack: Stack) -> AsyncIterator[Join]:
    """Opens a socket on one of the edges, for all events of the key's account."""
    async with AsyncExitStack() as opened:

        async def open_socket(edge: int, key: ApiKey) -> Trigger:
            url = stack.edges[edge].url.replace("http", "ws", 1) + "/api/v1/websocket"
            socket = await opened.enter_async_context(
                connect(url, additional_headers=headers_of(key), proxy=None, open_timeout=30)
            )
            first = json.loads(await asyncio.wait_for(socket.recv(), 20))
            return Trigger(socket, first["session"])

        yield open_socket


def headers_of(key: ApiKey) -> dict[str, str]:
    return {"X-API-AccessToken": key.id, "X-API-SecretKey": key.secret}


async def push(api: Api, session: str | None, body: bytes = BODY, **more: Any) -> Response:
    query = more.pop("query", {}) | ({} if session is None else {"session": session})
    return await api.call("POST", f"{PATH}?{urlencode(query)}", data=body, **more)


async def test_a_push_reaches_only_its_session_unchanged(
    api: Api, other_api: Api, key: ApiKey, join: Join
) -> None:
    first, second = await join(0, key), await join(1, key)

    responses = [await push(api, second.session), await push(other_api, first.session, b"[1]")]

    assert [response.status for response in responses] == [200, 200]
    assert responses[0].json == {"session": second.session, "delivered": True}
    assert (await second.frame(), await first.frame()) == (BODY.decode(), "[1]")
    # The next frame of each is an event: no push arrived elsewhere.
    assert await api.publish(key, {"topic": "trigger.job-join", "data": {"type": "job-join"}}) == [2]
    assert [json.loads(await one.frame()) for one in (first, second)] == [{"type": "job-join"}] * 2


async def test_pushes_arrive_in_order(api: Api, key: ApiKey, join: Join) -> None:
    trigger = await join(0, key)

    for number in range(20):
        assert (await push(api, trigger.session, str(number).encode())).status == 200

    assert [await trigger.frame() for _ in range(20)] == [str(number) for number in range(20)]


async def test_credentials_are_optional_but_must_be_valid(api: Api, key: ApiKey, join: Join) -> None:
    trigger = await join(0, key)
    of_account = await api.api_key(account=key.account, scopes=("publish",))
    other = await api.api_key()
    session = trigger.session

    assert (await push(api, session, headers=headers_of(of_account))).status == 200
    query = {"accessToken": key.id, "secretKey": key.secret}
    assert (await push(api, session, query=query)).status == 200
    mixed = {"X-API-AccessToken": key.id, "X-API-SecretKey": other.secret}
    for wrong in (mixed, {"X-API-AccessToken": key.id}, {"X-API-SecretKey": key.secret}):
        assert_error(await push(api, session, headers=wrong), 401, "invalid_auth")
    # Another account must not learn that the session exists.
    assert_error(await push(api, session, headers=headers_of(other)), 404, "not_found")


async def test_a_closed_or_unknown_session_is_a_404(api: Api, key: ApiKey, join: Join) -> None:
    trigger = await join(0, key)
    await trigger.socket.close()

    async def gone() -> bool:
        return (await push(api, trigger.session)).status == 404

    await wait_until(gone, what="the session to end")
    for unknown in ("0f" * 16, "x", "../secrets", key.id):
        assert_error(await push(api, unknown), 404, "not_found")


async def test_an_invalid_push_is_refused(api: Api, key: ApiKey, join: Join) -> None:
    trigger = await join(0, key)

    assert_error(await push(api, None), 400, "validation_error", field="session")
    assert_error(await push(api, ""), 400, "validation_error", field="session")
    for body in (b"", b"{", b'"\xff"', b"a=b", b"{}{}"):
        assert_error(await push(api, trigger.session, body), 406, "not_acceptable")
    longest = b'"' + b"x" * (64 * 1024 - 2) + b'"'
    assert_error(await push(api, trigger.session, longest + b" "), 413, "payload_too_large")
    assert (await push(api, trigger.session, longest)).status == 200
    # The refused bodies were not sent.
    assert await trigger.frame() == longest.decode()


async def test_other_methods_are_refused(api: Api) -> None:
    response = await api.call("GET", f"{PATH}?session={'0f' * 16}")

    assert_error(response, 405, "method_not_allowed")
    assert response.headers["Allow"] == "POST"
