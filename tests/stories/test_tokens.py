"""Tokens: an account's clients get no API key, and no more than a token says. docs/protocols/tokens.md"""

import json
import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.harness.api import Api, ApiKey, Response
from tests.harness.tokens import Issuer, claims, issuer, pair, public_pem, signed

KEYS, TOKENS, SOCKETS = "/v1/token-keys", "/v1/tokens", "/v1/sockets"


@pytest.fixture
async def admin(api: Api) -> ApiKey:
    return await api.api_key(scopes=("admin", "publish", "receive"))


@pytest.fixture
async def back_end(api: Api, admin: ApiKey) -> Issuer:
    """The account's own."""
    return await issuer(api, admin)


async def publish(api: Api, token: str, *topics: str, **more: Any) -> Response:
    events = [{"topic": topic, "data": 1, **more} for topic in topics]
    return await api.call("POST", "/v1/events", token=token, json=events)


async def mint(api: Api, key: ApiKey, **body: Any) -> Response:
    return await api.call("POST", TOKENS, key=key, json={"sub": "user-1", **body})


async def kids(api: Api, admin: ApiKey) -> list[str]:
    return [each["kid"] for each in (await api.call("GET", KEYS, key=admin)).json["token_keys"]]


def field_of(response: Response) -> str:
    return str(response.json["fields"][0]["name"])


@pytest.mark.parametrize("algorithm", ["HS256", "RS256", "ES256", "EdDSA"])
async def test_an_account_signs_tokens_with_a_key_of_its_own(
    api: Api, other_api: Api, admin: ApiKey, algorithm: str
) -> None:
    body = {"algorithm": algorithm}
    if algorithm != "HS256":
        body["public_key"] = pair(algorithm).public
    made = await api.call("POST", KEYS, key=admin, json=body)
    assert made.status == 201, made.text
    assert made.headers["Cache-Control"] == "no-store"
    kid, secret = made.json["kid"], made.json["secret"]
    assert (secret is not None) == (algorithm == "HS256")

    private = secret or pair(algorithm).private
    token = signed(claims(publish=["chat.*"]), private, kid=kid, algorithm=algorithm)
    assert (await publish(other_api, token, "chat.a")).status == 202

    listed = await other_api.call("GET", KEYS, key=admin)
    assert secret is None or secret not in listed.text
    [shown] = listed.json["token_keys"]
    assert shown == {name: value for name, value in made.json.items() if name != "secret"}
    assert (shown["origin"], shown["algorithm"]) == ("account", algorithm)


async def test_an_own_secret_is_taken_as_it_is(api: Api, admin: ApiKey) -> None:
    secret = "correct-horse-battery-staple-0123456789"
    made = await api.call("POST", KEYS, key=admin, json={"algorithm": "HS256", "secret": secret})
    assert made.status == 201

    token = signed(claims(publish=["a"]), secret, kid=made.json["kid"])

    assert (await publish(api, token, "a")).status == 202


def private_pem() -> str:
    form = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    pem: bytes = pair("ES256").private.private_bytes(*form)
    return pem.decode()


def rsa_pem(bits: int) -> str:
    return public_pem(rsa.generate_private_key(public_exponent=65537, key_size=bits))


BAD_KEYS: dict[str, tuple[dict[str, Any], str]] = {
    "no algorithm": ({"secret": "s" * 32}, "algorithm"),
    "none": ({"algorithm": "none"}, "algorithm"),
    "another algorithm": ({"algorithm": "HS512"}, "algorithm"),
    "a short secret": ({"algorithm": "HS256", "secret": "s" * 31}, "secret"),
    "a long secret": ({"algorithm": "HS256", "secret": "s" * 513}, "secret"),
    "a secret with blanks": ({"algorithm": "HS256", "secret": "s " * 20}, "secret"),
    "a public key as a secret": ({"algorithm": "HS256", "secret": pair("RS256").public}, "secret"),
    "a public key for HS256": ({"algorithm": "HS256", "public_key": pair("RS256").public}, "public_key"),
    "a secret for RS256": ({"algorithm": "RS256", "secret": "s" * 40}, "secret"),
    "no public key": ({"algorithm": "ES256"}, "public_key"),
    "no PEM": ({"algorithm": "ES256", "public_key": "a key"}, "public_key"),
    "an EC key for RS256": ({"algorithm": "RS256", "public_key": pair("ES256").public}, "public_key"),
    "an RSA key for EdDSA": ({"algorithm": "EdDSA", "public_key": pair("RS256").public}, "public_key"),
    "an Ed25519 key for ES256": ({"algorithm": "ES256", "public_key": pair("EdDSA").public}, "public_key"),
    "a short RSA key": ({"algorithm": "RS256", "public_key": rsa_pem(1024)}, "public_key"),
    "another curve": (
        {"algorithm": "ES256", "public_key": public_pem(ec.generate_private_key(ec.SECP384R1()))},
        "public_key",
    ),
    "another Edwards curve": (
        {"algorithm": "EdDSA", "public_key": public_pem(ed448.Ed448PrivateKey.generate())},
        "public_key",
    ),
    "a private key": ({"algorithm": "ES256", "public_key": private_pem()}, "public_key"),
    "an own kid": ({"algorithm": "HS256", "kid": "mine"}, "kid"),
}


@pytest.mark.parametrize("what", BAD_KEYS)
async def test_a_key_that_fits_no_algorithm_is_refused(api: Api, admin: ApiKey, what: str) -> None:
    body, field = BAD_KEYS[what]

    refused = await api.call("POST", KEYS, key=admin, json=body)

    assert (refused.status, field_of(refused)) == (400, field), refused.text
    assert "ssssssss" not in refused.text
    assert "PRIVATE" not in refused.text
    assert await kids(api, admin) == []


async def test_an_account_has_ten_keys(api: Api, admin: ApiKey) -> None:
    for _ in range(10):
        await issuer(api, admin)
    assert (await mint(api, admin)).status == 201, "the key of the server comes on top"

    full = await api.call("POST", KEYS, key=admin, json={"algorithm": "HS256"})

    assert (full.status, "10 token keys" in full.text) == (409, True)
    assert len(await kids(api, admin)) == 11


async def test_a_deleted_key_ends_its_tokens_at_once(
    api: Api, other_api: Api, admin: ApiKey, back_end: Issuer
) -> None:
    another = await issuer(api, admin)
    token, other = back_end.token(publish=["a"]), another.token(publish=["a"])
    assert (await publish(other_api, token, "a")).status == 202
    for _ in range(2):
        assert (await api.call("DELETE", f"{KEYS}/{back_end.kid}", key=admin)).status == 204

    refused = await publish(other_api, token, "a")

    assert refused.status == 401
    assert "its key is unknown, or was deleted" in refused.text
    assert refused.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'
    assert (await publish(other_api, other, "a")).status == 202
    assert await kids(api, admin) == [another.kid]


async def test_keys_are_in_the_audit_log(api: Api, admin: ApiKey, back_end: Issuer) -> None:
    imported = {"algorithm": "ES256", "public_key": pair("ES256").public}
    kid = (await api.call("POST", KEYS, key=admin, json=imported)).json["kid"]
    for _ in range(2):
        await api.call("DELETE", f"{KEYS}/{kid}", key=admin)

    entries = (await api.call("GET", "/v1/audit", key=admin)).json["entries"]

    told = [(each["action"], each["target"], each["by"]) for each in entries if "token-key" in each["action"]]
    assert told == [
        ("token-key.deleted", kid, admin.id),
        ("token-key.imported", kid, admin.id),
        ("token-key.created", back_end.kid, admin.id),
    ]


# Scopes of an API key, what it wants to mint, and the response.
MINTING: list[tuple[tuple[str, ...], dict[str, Any], int]] = [
    (("tokens",), {}, 201),
    (("tokens",), {"read": [], "publish": None}, 201),
    (("tokens",), {"read": ["a"]}, 403),
    (("tokens", "receive"), {"read": ["a"]}, 201),
    (("tokens", "receive"), {"publish": ["a"]}, 403),
    (("tokens", "publish"), {"publish": ["#"]}, 201),
    (("tokens", "publish"), {"read": ["a"], "publish": ["a"]}, 403),
    (("tokens", "publish", "receive"), {"channels": ["a"]}, 403),
    (("tokens", "channels"), {"channels": ["a"]}, 201),
    (("admin",), {"read": ["#"], "publish": ["#"], "channels": ["a"]}, 201),
    (("publish", "receive", "channels"), {"read": ["a"]}, 403),
]


@pytest.mark.parametrize(("scopes", "wanted", "status"), MINTING)
async def test_a_minted_token_allows_no_more_than_its_maker(
    api: Api, scopes: tuple[str, ...], wanted: dict[str, Any], status: int
) -> None:
    key = await api.api_key(scopes=scopes)
    assert (await mint(api, key, **wanted)).status == status


async def test_a_minted_token_is_as_it_was_wanted(api: Api, other_api: Api, admin: ApiKey) -> None:
    before_s = time.time()
    minted = await mint(api, admin, publish=["chat.*"], ttl_s=60)
    assert minted.headers["Cache-Control"] == "no-store"
    token = minted.json["token"]

    said = jwt.decode(token, options={"verify_signature": False})
    assert (said["aud"], said["sub"], said["publish"]) == ("notify", "user-1", ["chat.*"])
    assert "read" not in said
    assert before_s + 55 < said["exp"] < time.time() + 65
    assert minted.json["expires_at"] == time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(said["exp"]))
    assert (await publish(other_api, token, "chat.a")).status == 202
    again = (await mint(other_api, admin)).json["token"]
    heads = [jwt.get_unverified_header(each) for each in (token, again)]
    assert heads[0] == heads[1], "one key for all gateways"

    listed = (await api.call("GET", KEYS, key=admin)).json["token_keys"]
    assert [(each["kid"], each["origin"]) for each in listed] == [(heads[0]["kid"], "server")]
    assert (await api.call("DELETE", f"{KEYS}/{heads[0]['kid']}", key=admin)).status == 204
    assert (await publish(other_api, token, "chat.a")).status == 401
    assert (
        await publish(other_api, (await mint(api, admin, publish=["#"])).json["token"], "a")
    ).status == 202


BAD_TOKENS: list[tuple[dict[str, Any], str]] = [
    ({"sub": ""}, "sub"),
    ({"sub": "é" * 65}, "sub"),
    ({"sub": 1}, "sub"),
    ({"ttl_s": 0}, "ttl_s"),
    ({"ttl_s": 86_401}, "ttl_s"),
    ({"read": ["a*"]}, "read[0]"),
    ({"publish": ["a", "b c"]}, "publish[1]"),
    ({"read": ["a"] * 101}, "read"),
    ({"channels": ["a\n"]}, "channels[0]"),
    ({"exp": 1}, "exp"),
]


@pytest.mark.parametrize(("body", "field"), BAD_TOKENS)
async def test_what_no_token_may_say_is_not_minted(
    api: Api, admin: ApiKey, body: dict[str, Any], field: str
) -> None:
    refused = await mint(api, admin, **body)
    assert (refused.status, field_of(refused)) == (400, field), refused.text


async def test_a_token_publishes_what_it_names_and_nothing_else(
    api: Api, admin: ApiKey, back_end: Issuer
) -> None:
    reader = await api.api_key(account=admin.account, scopes=("receive", "channels"))
    made = await api.call(
        "POST", "/v1/channels", key=reader, json={"kind": "pull", "name": "all", "bindings": ["#"]}
    )
    assert made.status == 201, made.text
    token = back_end.token(publish=["chat.*", "status"])

    assert (await publish(api, token, "chat.a", "status")).status == 202
    for topics in (("chat.a", "chat.a.b"), ("orders.new",), ("system.a",)):
        refused = await publish(api, token, *topics)
        assert refused.status in (400, 403), refused.text
    refused = await publish(api, token, "chat.a", "orders.new")
    assert (refused.status, field_of(refused)) == (403, "publish")
    assert "the topic orders.new" in refused.text
    event = {"specversion": "1.0", "id": "1", "source": "a", "type": "orders.new", "data": 1}
    headers = {"Content-Type": "application/cloudevents+json"}
    posted = await api.call("POST", "/v1/events", token=token, data=json.dumps(event), headers=headers)
    assert posted.status == 403

    fetched = await api.call("POST", "/v1/channels/all/fetch", key=reader, json={})
    assert [each["topic"] for each in fetched.json["events"]] == ["chat.a", "status"]


@pytest.mark.parametrize("more", [{"to": "all"}, {"customer": "acme"}])
async def test_a_token_addresses_no_channel(
    api: Api, admin: ApiKey, back_end: Issuer, more: dict[str, str]
) -> None:
    """It would reach what has bound nothing of the kind."""
    made = await api.call(
        "POST", "/v1/channels?account=" + admin.account, key=admin, json={"kind": "pull", "name": "all"}
    )
    assert made.status == 201, made.text
    refused = await publish(api, back_end.token(publish=["#"]), "a", **more)
    assert (refused.status, field_of(refused)) == (403, next(iter(more)))


async def test_repetitions_by_token_publish_once_and_subjects_are_apart(
    api: Api, other_api: Api, admin: ApiKey, back_end: Issuer
) -> None:
    async def post(client: Api, sub: str) -> Response:
        token, headers = back_end.token(sub=sub, publish=["a"]), {"Idempotency-Key": "one"}
        event = {"topic": "a", "data": 1}
        return await client.call("POST", "/v1/events", token=token, json=event, headers=headers)

    first, again, other = [
        await post(*each) for each in ((api, "user-1"), (other_api, "user-1"), (api, "user-2"))
    ]

    assert again.json == first.json
    assert again.headers["Idempotent-Replayed"] == "true"
    assert other.json != first.json
    assert "Idempotent-Replayed" not in other.headers


async def test_publishers_by_token_use_the_quotas_of_their_account(
    api: Api, admin: ApiKey, back_end: Issuer
) -> None:
    small = {"quotas": {"events_per_s": 1, "burst_s": 1}}
    changed = await api.admin("PATCH", f"/v1/accounts/{admin.account}", json=small)
    assert changed.status == 200, changed.text

    statuses = [(await publish(api, back_end.token(publish=["a"]), *["a"] * 20)).status for _ in range(5)]

    assert 429 in statuses


async def test_signing_out_refuses_what_was_issued_before(
    api: Api, other_api: Api, admin: ApiKey, back_end: Issuer
) -> None:
    minter = await api.api_key(account=admin.account, scopes=("tokens", "publish"))
    early, without = (back_end.token(publish=["a"], iat=at) for at in (int(time.time()), None))
    another = back_end.token(publish=["a"], sub="user-2", iat=None)

    assert (await api.call("DELETE", f"{SOCKETS}?sub=user-1", key=minter)).status == 204

    for token in (early, without):
        refused = await publish(other_api, token, "a")
        assert (refused.status, "signed out" in refused.text) == (401, True), refused.text
    assert (await publish(other_api, another, "a")).status == 202
    minted = (await mint(other_api, minter, publish=["a"])).json["token"]
    assert (await publish(api, minted, "a")).status == 202
    assert (await api.call("DELETE", f"{SOCKETS}?sub=user-1", key=minter)).status == 204
    assert (await publish(api, minted, "a")).status == 401


@pytest.mark.parametrize("query", ["", "?sub=", "?sub=" + "a" * 129, "?user=1"])
async def test_signing_out_needs_a_subject(api: Api, admin: ApiKey, query: str) -> None:
    refused = await api.call("DELETE", f"{SOCKETS}{query}", key=admin)
    assert (refused.status, field_of(refused)) == (400, "sub")
