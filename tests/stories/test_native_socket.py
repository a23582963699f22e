"""The native WebSocket from outside: its handshake, who it is for, and how it ends.

docs/protocols/native.md
"""

import pytest
from websockets.exceptions import InvalidStatus

from tests.harness.api import Api, ApiKey
from tests.harness.native import NATIVE, NATIVE_PATH, native_socket, open_native
from tests.harness.stack import Stack
from tests.harness.tokens import Issuer, issuer


@pytest.fixture
async def admin(api: Api) -> ApiKey:
    return await api.api_key(scopes=("publish", "receive", "channels", "admin"))


@pytest.fixture
async def back_end(api: Api, admin: ApiKey) -> Issuer:
    return await issuer(api, admin)


async def test_a_client_authenticates_by_its_first_request(stack: Stack, back_end: Issuer) -> None:
    async with native_socket(stack.edges[0].url) as socket:
        assert socket.connection.subprotocol == NATIVE
        [hello] = socket.of("hello")
        assert hello["hello"]["limits"]["authenticate_within_s"] == 10
        assert (await socket.refused(subscribe={"topic": "a"}))["code"] == "unauthenticated"
        said = await socket.ask(auth={"token": back_end.token()})
        assert said["sub"] == "user-1"
        assert said["expires_at"].endswith("Z")
        assert await socket.ask(ping={}) == {}
        assert (await socket.refused(auth={"token": back_end.token()}))["code"] == "conflict"


async def test_a_client_authenticates_by_its_handshake(stack: Stack, back_end: Issuer, admin: ApiKey) -> None:
    for bearer, subject in ((back_end.token(), "user-1"), (admin.secret, None)):
        async with native_socket(stack.edges[0].url, bearer=bearer) as socket:
            [hello] = socket.of("hello")
            assert hello["hello"].get("sub") == subject
            assert "authenticate_within_s" not in hello["hello"]["limits"]
            assert await socket.ask(ping={}) == {}


async def test_a_handshake_is_refused(stack: Stack, api: Api) -> None:
    url = stack.edges[0].url
    with pytest.raises(InvalidStatus) as refused:
        await open_native(url, subprotocols=None)
    assert refused.value.response.status_code == 400
    for bearer in ("nothing", "a.b.c"):
        with pytest.raises(InvalidStatus) as refused:
            await open_native(url, bearer=bearer)
        assert refused.value.response.status_code == 401
    assert (await api.at(url).call("GET", NATIVE_PATH)).status == 426


@pytest.mark.parametrize(
    "frame", ["{", "[]", '{"ref":1}', '{"ping":{}}', b"{}", '{"ref":1,"ref":1,"ping":{}}']
)
async def test_a_malformed_frame_closes(stack: Stack, back_end: Issuer, frame: str | bytes) -> None:
    async with native_socket(stack.edges[0].url, token=back_end.token()) as socket:
        await socket.send(frame)
        code, text = await socket.closed()
        assert code == 4000
        assert text.startswith("the frame ")
