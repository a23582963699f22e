"""Who may do what with tokens and their keys, and that a token opens no other door."""

import re
from typing import Any

import pytest

from services.gateway.app import DOCUMENT
from tests.harness.api import Api, ApiKey
from tests.harness.native import native_socket
from tests.harness.sse import TOPIC, bind, keep
from tests.harness.stack import Stack
from tests.harness.tokens import Issuer, issuer
from tests.stories.test_tokens import KEYS, SOCKETS, TOKENS, admin, back_end, kids, mint, publish

__all__ = ["admin", "back_end"]

ON_THE_EDGE = ("/v2/notification/pull", "/v1/stream")

MAY, SCOPE, HIDDEN, WHO = "may", 403, 404, 401
VERBS: dict[str, tuple[str, str, Any, int]] = {
    "make a key": ("POST", KEYS, {"algorithm": "HS256"}, 201),
    "list keys": ("GET", KEYS, None, 200),
    "delete a key": ("DELETE", KEYS + "/{kid}", None, 204),
    "mint": ("POST", TOKENS, {"sub": "a"}, 201),
    "sign out": ("DELETE", f"{SOCKETS}?sub=a", None, 204),
}
# What each caller gets for each verb, in this order.
CALLERS: dict[str, tuple[object, ...]] = {
    "an admin of the account": (MAY, MAY, MAY, MAY, MAY),
    "a key with tokens": (SCOPE, SCOPE, SCOPE, MAY, MAY),
    "a key with publish, receive and channels": (SCOPE, SCOPE, SCOPE, SCOPE, SCOPE),
    "an admin of another account": (HIDDEN, HIDDEN, HIDDEN, HIDDEN, HIDDEN),
    "an admin of the parent": (HIDDEN, HIDDEN, HIDDEN, HIDDEN, HIDDEN),
    "a revoked key": (WHO, WHO, WHO, WHO, WHO),
    "a token that reads and publishes all": (WHO, WHO, WHO, WHO, WHO),
    "a stranger": (WHO, WHO, WHO, WHO, WHO),
    "the operator": (MAY, MAY, MAY, MAY, MAY),
}


@pytest.mark.parametrize("caller", CALLERS)
async def test_who_may_do_what_with_tokens(api: Api, caller: str) -> None:
    parent = await api.account()
    account = await api.account(parent=parent)
    admin = await api.api_key(account=account, scopes=("admin",))
    back_end = await issuer(api, admin)
    revoked = await api.api_key(account=account, scopes=("admin", "tokens"))
    await api.revoke(revoked)
    secrets: dict[str, str | None] = {
        "an admin of the account": admin.secret,
        "a key with tokens": (await api.api_key(account=account, scopes=("tokens",))).secret,
        "a key with publish, receive and channels": (
            await api.api_key(account=account, scopes=("publish", "receive", "channels"))
        ).secret,
        "an admin of another account": (await api.api_key(scopes=("admin", "tokens"))).secret,
        "an admin of the parent": (await api.api_key(account=parent, scopes=("admin",))).secret,
        "a revoked key": revoked.secret,
        "a token that reads and publishes all": back_end.token(read=["#"], publish=["#"]),
        "a stranger": None,
    }
    got = {}
    for verb, (method, path, body, _) in VERBS.items():
        given = path.replace("{kid}", back_end.kid)
        given += f"{'&' if '?' in given else '?'}account={account}"
        content = {} if body is None else {"json": body}
        if caller == "the operator":
            response = await api.admin(method, given, **content)
        else:
            response = await api.call(method, given, token=secrets[caller], **content)
        got[verb] = response.status

    wanted = zip(VERBS.items(), CALLERS[caller], strict=True)
    assert got == {verb: success if may == MAY else may for (verb, (*_, success)), may in wanted}


async def test_keys_of_another_account_are_out_of_reach(api: Api, admin: ApiKey, back_end: Issuer) -> None:
    other = await api.api_key(scopes=("admin",))
    for kid in (back_end.kid, "server", "tk_1", "%00"):
        assert (await api.call("DELETE", f"{KEYS}/{kid}", key=other)).status == 404
    assert (await api.call("GET", KEYS, key=other)).json == {"token_keys": []}
    assert await kids(api, admin) == [back_end.kid]


def doors() -> list[tuple[str, str]]:
    """Every documented operation that an API key may call, but the one that takes tokens."""
    return [
        (method.upper(), path)
        for path, item in DOCUMENT["paths"].items()
        for method, described in item.items()
        if {"apiKey": []} in described["security"] and {"token": []} not in described["security"]
    ]


async def test_no_other_door_takes_a_token(api: Api, stack: Stack, back_end: Issuer) -> None:
    token = back_end.token(read=["#"], publish=["#"], channels=["a"])
    assert len(doors()) > 40
    for method, path in doors():
        client = api.at(stack.edges[0].url) if path in ON_THE_EDGE else api
        filled = re.sub(r"{.*?}", "0" * 32, path.replace("{delivery}", "1-0")) + "?topic=a"
        # Without an upgrade the path of a WebSocket says so, whoever asks.
        if path == "/v2/notification/websocket-connect":
            continue
        for given in ({"token": token}, {"headers": {"X-Auth-Token": token}}):
            response = await client.call(method, filled, json={}, **given)
            assert response.status == 401, (method, path, response.status, response.text)


async def test_a_token_opens_no_socket_of_another_dialect(api: Api, stack: Stack, back_end: Issuer) -> None:
    edge = api.at(stack.edges[0].url)
    token = back_end.token(read=["#"], channels=["a"])
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    }
    for path, status in (("/api/v1/websocket?pattern=", 401), ("/socket", 403)):
        response = await edge.call("GET", path, token=token, headers=upgrade)
        assert response.status == status, (path, response.status)


async def test_an_account_takes_its_keys_and_cut_offs_along(api: Api, stack: Stack) -> None:
    account = await api.account()
    admin = await api.api_key(account=account, scopes=("admin", "publish"))
    back_end = await issuer(api, admin)
    token = back_end.token(publish=["a"])
    headers = {"Idempotency-Key": "k"}
    event = {"topic": "a", "data": 1}
    posted = await api.call("POST", "/v1/events", token=token, json=event, headers=headers)
    assert posted.status == 202
    assert (await mint(api, admin)).status == 201
    assert (await api.call("DELETE", f"{SOCKETS}?sub=a", key=admin)).status == 204

    assert (await api.admin("DELETE", f"/v1/accounts/{account}?cascade=true")).status == 204

    assert (await publish(api, token, "a")).status == 401
    assert (await api.admin("GET", f"{KEYS}?account={account}")).status == 404
    for service in stack.services:
        output = service.stdout + service.stderr
        assert back_end.secret not in output
        assert token not in output
        assert token.rpartition(".")[2] not in output


# On a native socket: subscribe to a topic, open a channel, publish to the topic, and take another token.
MAY_NOT, ABSENT, AS_A_KEY = "forbidden", "not_found", "conflict"
ON_A_SOCKET: dict[str, tuple[str, ...]] = {
    "a token that names nothing": (MAY_NOT, MAY_NOT, MAY_NOT, MAY),
    "a token that reads": (MAY, MAY_NOT, MAY_NOT, MAY),
    "a token that opens by name": (MAY_NOT, MAY, MAY_NOT, MAY),
    "a token that publishes": (MAY_NOT, MAY_NOT, MAY, MAY),
    "a token of another account that names all": (ABSENT, ABSENT, MAY, MAY_NOT),
    "a key with receive that is bound": (MAY, MAY_NOT, MAY_NOT, AS_A_KEY),
    "a key with receive": (MAY_NOT, MAY_NOT, MAY_NOT, AS_A_KEY),
    "a key with channels": (MAY_NOT, MAY, MAY_NOT, AS_A_KEY),
    "a key with publish": (MAY_NOT, MAY_NOT, MAY, AS_A_KEY),
    "an admin of the account": (MAY_NOT, MAY, MAY_NOT, AS_A_KEY),
    "a key of another account with all": (MAY_NOT, ABSENT, MAY, AS_A_KEY),
}


async def test_who_may_do_what_on_a_native_socket(
    api: Api, stack: Stack, admin: ApiKey, back_end: Issuer
) -> None:
    await keep(api, admin, "orders.#")
    made = await api.call("POST", "/v1/channels", key=admin, json={"kind": "websocket", "name": "kitchen"})
    assert made.status == 201, made.text
    other = await api.api_key(scopes=("publish", "receive", "channels", "admin"))
    theirs = await issuer(api, other)
    every = {"read": ["#"], "publish": ["#"], "channels": ["kitchen"]}
    bound = await api.api_key(account=admin.account, scopes=("receive",))
    await bind(api, bound, TOPIC)

    async def key(scope: str) -> str:
        return (await api.api_key(account=admin.account, scopes=(scope,))).secret

    bearers = {
        "a token that names nothing": back_end.token(read=None),
        "a token that reads": back_end.token(read=["orders.*"]),
        "a token that opens by name": back_end.token(read=None, channels=["kitchen"]),
        "a token that publishes": back_end.token(read=None, publish=["orders.#"]),
        "a token of another account that names all": theirs.token(**every),
        "a key with receive that is bound": bound.secret,
        "a key with receive": await key("receive"),
        "a key with channels": await key("channels"),
        "a key with publish": await key("publish"),
        "an admin of the account": await key("admin"),
        "a key of another account with all": other.secret,
    }
    requests: list[dict[str, Any]] = [
        {"subscribe": {"topic": TOPIC}},
        {"open": {"channel": "kitchen"}},
        {"publish": {"events": [{"topic": TOPIC, "data": 1}]}},
        {"refresh": {"token": back_end.token()}},
    ]
    got = {}
    for caller, bearer in bearers.items():
        async with native_socket(stack.edges[0].url, bearer=bearer) as socket:
            answers = [await socket.answer(await socket.begin(**each)) for each in requests]
        got[caller] = tuple(each.get("error", {}).get("code", MAY) for each in answers)
    assert got == ON_A_SOCKET
