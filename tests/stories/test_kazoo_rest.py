"""Kazoo's REST API (Crossbar): the bindings there are, open sockets, and tokens."""

import base64
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from websockets.asyncio.client import ClientConnection, connect

from tests.harness.api import SECRETS, Api, ApiKey, Response
from tests.harness.stack import Stack
from tests.harness.waiting import wait_until

CREATED = "object.doc_created.user"
UNKNOWN = "0" * 32
SOCKETS = "/v2/account/websockets"


class Sockets:
    """Opens Blackhole sockets."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self.open: list[ClientConnection] = []

    async def subscribed(
        self, token: str, *bindings: str, edge: int = 0, account: str | None = None, **more: Any
    ) -> ClientConnection:
        """A socket with these bindings; one that has only pinged without any."""
        url = self._stack.edges[edge].url.replace("http://", "ws://", 1) + "/socket"
        socket = await connect(url, proxy=None)
        self.open.append(socket)
        message: dict[str, Any] = {"action": "ping", "auth_token": token, **more}
        if bindings:
            message |= {"action": "subscribe", "data": {"bindings": bindings, "account_id": account}}
        await socket.send(orjson.dumps(message).decode())
        reply = orjson.loads(await socket.recv())
        assert reply["status"] == "success", reply
        return socket


@pytest.fixture
async def sockets(stack: Stack, api: Api) -> AsyncIterator[Sockets]:
    opened = Sockets(stack)
    yield opened
    for socket in opened.open:
        await socket.close()


async def token_for(api: Api, key: ApiKey) -> str:
    response = await api.call("PUT", "/v2/api_auth", json={"data": {"api_key": key.secret}})
    assert response.status == 201, response.text
    return str(response.json["auth_token"])


async def ask(api: Api, path: str, token: str | None = None, **more: Any) -> Response:
    headers = {} if token is None else {"X-Auth-Token": token}
    return await api.call("GET", path, headers=headers, **more)


async def listed(api: Api, path: str, token: str) -> list[Any]:
    response = await ask(api, path, token)
    assert response.status == 200, response.text
    found: list[Any] = response.json["data"]
    return found


def error_of(response: Response) -> tuple[int, str, Any]:
    """Status, name and data of an error; checks its envelope."""
    body = response.json
    assert body["status"] == "error"
    assert body["error"] == str(response.status)
    assert {"timestamp", "version", "node", "request_id"} <= body.keys()
    assert response.headers["Content-Type"] == "application/json"
    return response.status, body["message"], body["data"]


INVALID = (401, "invalid_credentials", {"message": "invalid credentials"})
FORBIDDEN = (403, "forbidden", {"message": "forbidden"})


async def test_the_list_of_bindings_is_public(api: Api) -> None:
    response = await ask(api, "/v2/websockets")

    assert response.status == 200
    assert response.headers["Content-Type"] == "application/json"
    assert set(response.json) == {"data", "node", "request_id", "status", "timestamp", "version"}
    assert {module: len(bindings) for module, bindings in response.json["data"].items()} == {
        "call": 9,
        "conference": 2,
        "fax": 2,
        "object": 30,
    }
    assert response.json["node"] == "gateway-0"
    assert response.json["status"] == "success"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", response.json["timestamp"])
    assert response.json["request_id"] == response.headers["X-Request-Id"]


async def test_the_callers_request_id_is_used(api: Api) -> None:
    response = await api.call("GET", "/v2/websockets", headers={"X-Request-ID": "mine-1"})

    assert response.json["request_id"] == response.headers["X-Request-Id"] == "mine-1"


async def test_pretty_printing(api: Api) -> None:
    plain = await ask(api, "/v2/websockets")
    responses = [
        await api.call("GET", "/v2/websockets", headers={"X-Pretty-Print": "true"}),
        await ask(api, "/v2/websockets?pretty_print=true"),
        await api.call("GET", "/v2/nothing", headers={"X-Pretty-Print": "true"}),
    ]

    assert "\n" not in plain.text
    assert ["\n  " in response.text for response in responses] == [True, True, False]


async def test_api_auth_exchanges_a_secret_for_a_token(api: Api, other_api: Api, key: ApiKey) -> None:
    response = await api.call("PUT", "/v2/api_auth", json={"data": {"api_key": key.secret}})

    assert response.status == 201
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["Cache-Control"] == "no-store"
    assert response.json["data"] == {
        "account_id": key.account,
        "account_name": "acme",
        "apps": [],
        "is_reseller": False,
        "language": "en-US",
        "reseller_id": key.account,
    }
    assert key.secret not in response.text
    token = response.json["auth_token"]
    assert await listed(api, SOCKETS, token) == await listed(other_api, SOCKETS, token) == []
    claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    assert (claims["account_id"], claims["api_key_id"]) == (key.account, key.id)


async def test_tokens_and_secrets_in_headers_or_the_query(api: Api, key: ApiKey) -> None:
    token = await token_for(api, key)
    responses = [
        await ask(api, SOCKETS, token),
        await ask(api, f"{SOCKETS}?auth_token={token}"),
        await api.call("GET", SOCKETS, token=token),
        await ask(api, SOCKETS, key.secret),
        await ask(api, f"{SOCKETS}?auth_token={key.secret}"),
        await api.call("GET", SOCKETS, key=key),
    ]

    assert [response.status for response in responses] == [200] * 6
    assert [response.json.get("auth_token") for response in responses] == [token] * 3 + [None] * 3


@pytest.mark.parametrize("wrong", [None, "", "nonsense", "a.b.c", "x" * 5000, "ak_" + "0" * 80])
async def test_a_missing_or_malformed_token_is_a_401(api: Api, key: ApiKey, wrong: str | None) -> None:
    assert error_of(await ask(api, SOCKETS, wrong)) == INVALID
    # Without authentication the response must not show whether an account exists.
    for account in (key.account, UNKNOWN, "unknown"):
        assert error_of(await ask(api, f"/v2/accounts/{account}/websockets", wrong)) == INVALID


async def test_a_tampered_token_is_a_401(api: Api, key: ApiKey) -> None:
    other = await api.api_key()
    head, claims, signature = (await token_for(api, key)).split(".")
    other_claims = (await token_for(api, other)).split(".")[1]
    nothing = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').decode().rstrip("=")
    deep = base64.urlsafe_b64encode(b"[" * 700).decode().rstrip("=")

    for token in (
        f"{head}.{other_claims}.{signature}",
        f"{nothing}.{claims}.",
        f"{head}.{claims}.",
        f"{deep}.{claims}.{signature}",
    ):
        assert error_of(await ask(api, SOCKETS, token)) == INVALID


async def test_revoking_the_api_key_invalidates_its_tokens(api: Api, other_api: Api, key: ApiKey) -> None:
    token = await token_for(api, key)
    await api.revoke(key)

    assert error_of(await ask(other_api, SOCKETS, token)) == INVALID


WRONG_API_KEYS: list[tuple[Any, Any]] = [
    ({}, {"required": {"message": "Field is required but missing", "value": "api_key"}}),
    ({"data": 5}, {"required": {"message": "Field is required but missing", "value": "api_key"}}),
    (
        {"data": {"api_key": "short"}},
        {"minLength": {"message": "String must be at least 64 characters", "target": 64}},
    ),
    (
        {"data": {"api_key": 5}},
        {"type": {"message": "Value did not match type(s): string", "target": "string"}},
    ),
]


@pytest.mark.parametrize(("body", "verdict"), WRONG_API_KEYS)
async def test_an_invalid_secret_gets_kazoos_validation_error(api: Api, body: Any, verdict: Any) -> None:
    response = await api.call("PUT", "/v2/api_auth", json=body)

    assert error_of(response) == (400, "validation failed", {"api_key": verdict})


async def test_an_unknown_secret_is_not_repeated_in_the_response(api: Api, key: ApiKey) -> None:
    last = "0" if key.secret[-1] != "0" else "1"
    for secret in (key.secret[:-1] + last, "x" * 64, "ak_" + "0" * 80, await token_for(api, key)):
        response = await api.call("PUT", "/v2/api_auth", json={"data": {"api_key": secret}})
        assert error_of(response) == INVALID
        assert secret not in response.text


async def test_a_secret_without_the_receive_scope_is_a_403(api: Api) -> None:
    publisher = await api.api_key(scopes=("publish",))

    for response in (
        await api.call("PUT", "/v2/api_auth", json={"data": {"api_key": publisher.secret}}),
        await ask(api, SOCKETS, publisher.secret),
    ):
        assert error_of(response)[:2] == (403, "forbidden")


async def test_a_body_that_is_not_json_is_a_400(api: Api) -> None:
    status, name, data = error_of(await api.call("PUT", "/v2/api_auth", data=b"{"))

    assert (status, name) == (400, "bad_request")
    assert "JSON" in data["message"]


async def test_unknown_paths_get_kazoos_404(api: Api, key: ApiKey) -> None:
    for path in (
        f"/v2/accounts/{key.account}/nothing",
        "/v2/accounts",
        "/v2/websockets/a/b",
        "/v2/api_auth/x",
    ):
        assert error_of(await ask(api, path)) == (404, "not_found", {"message": "not found"})
    others = await ask(api, "/v2/accountsandmore")
    assert others.json["object"] == "error"


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE", "PATCH"])
async def test_other_methods_get_kazoos_405(api: Api, key: ApiKey, method: str) -> None:
    for path in ("/v2/websockets", SOCKETS, f"/v2/accounts/{key.account}/websockets/{UNKNOWN}"):
        response = await api.call(method, path)
        assert error_of(response) == (405, "invalid_method", {"message": "method not allowed"})
        assert response.headers["Allow"] == "GET, HEAD"


async def test_an_unknown_account_gets_kazoos_404(api: Api, key: ApiKey) -> None:
    for rest in ("", f"/{UNKNOWN}"):
        unknown = await ask(api, f"/v2/accounts/{UNKNOWN}/websockets{rest}", key.secret)
        malformed = await ask(api, f"/v2/accounts/xyz/websockets{rest}", key.secret)

        assert error_of(unknown) == (404, "bad_identifier", {"message": "bad identifier", "cause": UNKNOWN})
        assert error_of(malformed) == (404, "bad identifier", {"message": "invalid account_id 'xyz'"})


async def test_another_account_is_a_403(api: Api, key: ApiKey) -> None:
    other = await api.account()
    child = await api.account(parent=key.account)
    below = await api.api_key(account=child)

    for account, secret in ((other, key.secret), (key.account, below.secret)):
        assert error_of(await ask(api, f"/v2/accounts/{account}/websockets", secret)) == FORBIDDEN


async def test_a_socket_path_without_an_account_is_refused(api: Api, key: ApiKey) -> None:
    assert error_of(await ask(api, f"/v2/websockets/{UNKNOWN}")) == INVALID
    assert error_of(await ask(api, f"/v2/websockets/{UNKNOWN}", key.secret)) == FORBIDDEN


async def test_an_unknown_socket_gets_kazoos_404(api: Api, key: ApiKey) -> None:
    for socket_id in (UNKNOWN, "nothing"):
        response = await ask(api, f"{SOCKETS}/{socket_id}", key.secret)
        assert error_of(response) == (
            404,
            "bad_identifier",
            {"message": "bad identifier", "cause": socket_id},
        )


async def test_cors(api: Api) -> None:
    response = await api.call("GET", SOCKETS, headers={"Origin": "https://app.example"})

    assert error_of(response) == INVALID
    assert response.headers["Access-Control-Allow-Origin"] == "*"
    asked = {"Origin": "https://app.example", "Access-Control-Request-Method": "GET"}
    preflight = await api.call(
        "OPTIONS", SOCKETS, headers=asked | {"Access-Control-Request-Headers": "x-auth-token"}
    )
    assert preflight.status == 200
    assert "x-auth-token" in preflight.headers["Access-Control-Allow-Headers"].lower()


async def test_the_fields_of_a_listed_socket(api: Api, key: ApiKey, sockets: Sockets) -> None:
    token = await token_for(api, key)
    await sockets.subscribed(token, CREATED, "call.*.*", name="desk", metadata={"floor": 3})

    [shown] = await listed(api, SOCKETS, token)
    assert re.fullmatch("[0-9a-f]{32}", shown["websocket_session_id"])
    assert shown == {
        "bindings": [CREATED, "call.*.*"],
        "websocket_session_id": shown["websocket_session_id"],
        "timestamp": shown["timestamp"],
        "destination": "edge-0",
        "source": "127.0.0.1",
        "name": "desk",
        "metadata": {"floor": 3},
    }
    # 2020 to 2100.
    assert 63_745_056_000 < shown["timestamp"] < 66_269_664_000
    one = await ask(api, f"{SOCKETS}/{shown['websocket_session_id']}", token)
    assert one.json["data"] == shown


async def test_a_socket_is_listed_from_its_first_ping_until_it_closes(
    api: Api, other_api: Api, key: ApiKey, sockets: Sockets
) -> None:
    first = await sockets.subscribed(key.secret, edge=0)
    await sockets.subscribed(key.secret, CREATED, edge=1)

    path = f"/v2/accounts/{key.account}/websockets"
    shown = await listed(other_api, path, key.secret)
    assert sorted((each["destination"], each["bindings"]) for each in shown) == [
        ("edge-0", []),
        ("edge-1", [CREATED]),
    ]
    await first.close()

    async def gone() -> bool:
        return len(await listed(api, path, key.secret)) == 1

    await wait_until(gone, what="the closed socket to leave the list")


async def test_the_sockets_of_an_account_and_of_its_child(api: Api, key: ApiKey, sockets: Sockets) -> None:
    """A parent sees its own and its child's sockets, the child only its own, others none."""
    child = await api.api_key(account=await api.account(parent=key.account))
    other = await api.api_key()
    await sockets.subscribed(key.secret, CREATED, account=child.account)
    await sockets.subscribed(child.secret, "call.*.*")
    await sockets.subscribed(other.secret)

    async def seen(secret: str, account: str) -> list[list[str]]:
        found = await listed(api, f"/v2/accounts/{account}/websockets", secret)
        return sorted(each["bindings"] for each in found)

    assert await seen(key.secret, child.account) == [["call.*.*"], [CREATED]]
    assert await seen(key.secret, key.account) == [[CREATED]]
    assert await seen(child.secret, child.account) == [["call.*.*"]]
    assert await seen(other.secret, other.account) == [[]]
    [mine] = await listed(api, SOCKETS, key.secret)
    i = mine["websocket_session_id"]
    assert (await ask(api, f"/v2/accounts/{child.account}/websockets/{i}", key.secret)).status == 200
    assert (await ask(api, f"{SOCKETS}/{i}", child.secret)).status == 404
    assert (await ask(api, f"{SOCKETS}/{i}", other.secret)).status == 404


async def test_a_master_account_sees_every_account(api: Api, key: ApiKey, sockets: Sockets) -> None:
    made = await api.admin("POST", "/v1/accounts", json={"name": "top", "master": True})
    assert made.json == {"id": made.json["id"], "name": "top", "parent": None, "master": True}
    master = await api.api_key(account=made.json["id"])
    await sockets.subscribed(key.secret, CREATED)

    [shown] = await listed(api, f"/v2/accounts/{key.account}/websockets", master.secret)
    assert shown["bindings"] == [CREATED]
    unknown = await ask(api, f"/v2/accounts/{UNKNOWN}/websockets", master.secret)
    assert error_of(unknown)[1] == "bad_identifier"


@pytest.mark.parametrize("master", ["yes", 1, []])
async def test_master_must_be_a_boolean(api: Api, master: Any) -> None:
    response = await api.admin("POST", "/v1/accounts", json={"name": "top", "master": master})

    assert (response.status, [each["name"] for each in response.json["fields"]]) == (400, ["master"])


async def test_tokens_appear_in_no_output(api: Api, stack: Stack, key: ApiKey) -> None:
    token = await token_for(api, key)
    # The shared stack's teardown searches all outputs and Redis for SECRETS.
    SECRETS.append(token)
    assert (await ask(api, SOCKETS, token)).status == 200
