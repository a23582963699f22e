"""The native WebSocket from outside: its handshake, who it is for, and how it ends.

docs/protocols/native.md
"""

import time

import pytest
from websockets.exceptions import InvalidStatus

from tests.harness.api import Api, ApiKey
from tests.harness.native import NATIVE, NATIVE_PATH, native_socket, open_native
from tests.harness.stack import Stack
from tests.harness.tokens import Issuer, issuer
from tests.harness.waiting import wait_until


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


async def test_a_page_of_another_origin_is_refused(
    stack: Stack, shared_stack: Stack, back_end: Issuer
) -> None:
    with shared_stack.more_edges("edge-listed", ALLOWED_ORIGINS="https://app.example") as [edge]:
        host = edge.url.removeprefix("http://")
        for origin in ("", "https://app.example", f"http://{host}"):
            async with native_socket(edge.url, token=back_end.token(), origin=origin) as socket:
                assert await socket.ask(ping={}) == {}
        for origin in ("https://other.example", "null", "https://app.example.other.example"):
            with pytest.raises(InvalidStatus) as refused:
                await open_native(edge.url, bearer=back_end.token(), origin=origin)
            assert refused.value.response.status_code == 403
    async with native_socket(
        stack.edges[0].url, token=back_end.token(), origin="https://a.example"
    ) as socket:
        assert await socket.ask(ping={}) == {}


async def test_a_token_that_is_refused_closes_nothing(
    stack: Stack, api: Api, admin: ApiKey, back_end: Issuer
) -> None:
    now_s = int(time.time())
    tokens = {
        "expired": back_end.token(iat=now_s - 9, exp=now_s - 5),
        "of another audience": back_end.token(aud="other"),
        "with another signature": back_end.token()[:-8] + "AAAAAAAA",
        "an API key": admin.secret,
    }
    async with native_socket(stack.edges[0].url) as socket:
        for why, token in tokens.items():
            error = await socket.refused(auth={"token": token})
            assert error["code"] == "unauthenticated", why
            assert token not in error["message"]
        await socket.ask(auth={"token": back_end.token()})
        for why, token in tokens.items():
            assert (await socket.refused(refresh={"token": token}))["code"] == "unauthenticated", why
        for changed in (back_end.token(sub="user-2"), (await issuer(api, await of_another(api))).token()):
            assert (await socket.refused(refresh={"token": changed}))["code"] == "forbidden"
        said = await socket.ask(refresh={"token": back_end.token(exp=now_s + 3000)})
        assert said["expires_at"] > "2026"
    async with native_socket(stack.edges[0].url, bearer=admin.secret) as socket:
        assert (await socket.refused(refresh={"token": back_end.token()}))["code"] == "conflict"


async def of_another(api: Api) -> ApiKey:
    return await api.api_key(scopes=("admin",))


@pytest.mark.parametrize(
    "frame", ["{", "[]", '{"ref":1}', '{"ping":{}}', b"{}", '{"ref":1,"ref":1,"ping":{}}']
)
async def test_a_malformed_frame_closes(stack: Stack, back_end: Issuer, frame: str | bytes) -> None:
    async with native_socket(stack.edges[0].url, token=back_end.token()) as socket:
        await socket.send(frame)
        code, text = await socket.closed()
        assert code == 4000
        assert text.startswith("the frame ")


async def test_a_frame_that_is_too_long_closes(stack: Stack, back_end: Issuer) -> None:
    async with native_socket(stack.edges[0].url) as stranger:
        await stranger.send('{"ref":1,"ping":{}}' + " " * 64 * 1024)
        assert (await stranger.closed())[0] == 1009
    async with native_socket(stack.edges[0].url, token=back_end.token()) as socket:
        await socket.send('{"ref":100,"ping":{}}' + " " * 64 * 1024)
        assert await socket.answer(100) == {"ref": 100, "pong": {}}
        await socket.send('{"ref":101,"ping":{}}' + " " * 1024 * 1024)
        assert (await socket.closed())[0] == 1009


async def test_a_socket_ends_with_its_token_unless_it_has_another_one(
    stack: Stack, api: Api, admin: ApiKey, back_end: Issuer
) -> None:
    minted = await api.call("POST", "/v1/tokens", key=admin, json={"sub": "user-1", "ttl_s": 6})
    token = minted.json["token"]
    async with (
        native_socket(stack.edges[0].url, token=token) as ends,
        native_socket(stack.edges[0].url, bearer=token) as stays,
    ):
        await stays.ask(refresh={"token": back_end.token()})
        code, text = await ends.closed()
        assert (code, "come back with a new one" in text) == (4001, True)
        assert await stays.ask(ping={}) == {}


async def test_a_socket_ends_with_the_key_and_the_subject_of_its_token(
    stack: Stack, api: Api, admin: ApiKey, back_end: Issuer
) -> None:
    other, at = await issuer(api, admin), int(time.time()) - 1
    async with (
        native_socket(stack.edges[0].url, token=back_end.token(iat=at, sub="user-2")) as one,
        native_socket(stack.edges[1].url, bearer=back_end.token(sub="user-2")) as two,
        native_socket(stack.edges[0].url, token=other.token(iat=at)) as three,
        native_socket(stack.edges[1].url, token=other.token(sub="user-3")) as stays,
    ):
        # It ends with the key of the token that it has now.
        await three.ask(refresh={"token": back_end.token(iat=at)})
        assert (await api.call("DELETE", "/v1/sockets?sub=user-1", key=admin)).status == 204
        assert (await three.closed())[0] == 4003
        assert (await api.call("DELETE", f"/v1/token-keys/{back_end.kid}", key=admin)).status == 204
        for socket in (one, two):
            assert (await socket.closed())[0] == 4002
        assert await stays.ask(ping={}) == {}


async def test_a_socket_ends_with_its_api_key(stack: Stack, api: Api, admin: ApiKey) -> None:
    key = await api.api_key(account=admin.account, scopes=("receive",))
    async with native_socket(stack.edges[0].url, bearer=key.secret) as socket:
        await api.revoke(key)
        assert (await socket.closed())[0] == 4004


async def test_a_replica_that_stops_tells_its_clients_to_come_back(
    shared_stack: Stack, stack: Stack, back_end: Issuer
) -> None:
    with shared_stack.more_edges("edge-stops") as [edge]:
        async with native_socket(edge.url, token=back_end.token()) as socket:
            edge.terminate()
            code, text = await socket.closed()
            assert (code, "connect again" in text) == (1012, True)


async def test_requests_are_answered_in_order(stack: Stack, back_end: Issuer) -> None:
    async with native_socket(stack.edges[0].url) as socket:
        # All at once, also the one that authenticates.
        refs = [await socket.begin(auth={"token": back_end.token()})]
        refs += [await socket.begin(subscribe={"topic": f"news.{number}"}) for number in range(20)]
        refs += [await socket.begin(ping={}), await socket.begin(open={})]
        for ref in refs:
            await socket.answer(ref)
        assert [frame["ref"] for frame in socket.frames if "ref" in frame] == refs


async def test_tokens_are_in_no_log(stack: Stack, back_end: Issuer) -> None:
    token, refused = back_end.token(), back_end.token(aud="other")
    async with native_socket(stack.edges[0].url, token=token) as socket:
        await socket.ask(refresh={"token": token})
        await socket.refused(refresh={"token": refused})
        [hello] = socket.of("hello")
    edge, session = stack.edges[0], hello["hello"]["session"]
    await wait_until(lambda: f"session={session}" in edge.stdout + edge.stderr, what="native.closed")
    for service in stack.services:
        for secret in (token, refused, token.rpartition(".")[2]):
            assert secret not in service.stdout + service.stderr
