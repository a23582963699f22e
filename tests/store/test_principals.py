"""Principals: secrets, tokens, and accounts below accounts."""

import dataclasses

import jwt
import pytest

from shared.clock import now_ms
from shared.model.api_keys import Account, Principal, Scope, hash_of, new_id, new_secret
from shared.store import keyspace
from shared.tokens import LIFETIME_S, Principals, is_token_like, mark_of, read, sign
from tests.store.stores import NOW_MS, Stores

KEY = "k" * 64
PRINCIPAL = Principal("1" * 32, "2" * 32, frozenset({Scope.RECEIVE}), secret_hash="3" * 64)


@pytest.fixture
def principals(stores: Stores) -> Principals:
    return Principals(stores.api_keys)


async def test_token_authenticates_the_same_principal(stores: Stores, principals: Principals) -> None:
    key, secret = await stores.api_key()
    principal = await principals.authenticate(secret, now_ms=NOW_MS)
    assert principal == Principal(key.id, key.account_id, key.scopes, secret_hash=key.secret_hash)

    token = await principals.token_for(principal, now_ms=NOW_MS)

    assert await principals.authenticate(token, now_ms=NOW_MS) == principal
    last_ms = NOW_MS + LIFETIME_S * 1000 - 1
    assert await principals.authenticate(token, now_ms=last_ms) == principal
    assert await principals.authenticate(token, now_ms=last_ms + 1) is None


async def test_token_ends_with_its_key(stores: Stores, principals: Principals) -> None:
    key, secret = await stores.api_key()
    principal = await principals.authenticate(secret, now_ms=NOW_MS)
    assert principal is not None
    token = await principals.token_for(principal, now_ms=NOW_MS)
    await stores.api_keys.revoke(key)
    assert await principals.authenticate(token, now_ms=NOW_MS) is None

    passing = dataclasses.replace(key, id=new_id(), expires_at_ms=NOW_MS + 10)
    await stores.api_keys.create(passing)
    token = await principals.token_for(dataclasses.replace(principal, api_key_id=passing.id), now_ms=NOW_MS)
    assert await principals.authenticate(token, now_ms=NOW_MS + 9) is not None
    assert await principals.authenticate(token, now_ms=NOW_MS + 10) is None


@pytest.mark.parametrize("old_valid_for_ms", [0, 60_000])
async def test_token_ends_with_the_secret_that_minted_it(
    stores: Stores, principals: Principals, old_valid_for_ms: int
) -> None:
    now = now_ms()
    key, old = await stores.api_key()
    by_old = await principals.authenticate(old, now_ms=now)
    assert by_old is not None
    old_token = await principals.token_for(by_old, now_ms=now)
    new = new_secret(key.id)
    until_ms = now + old_valid_for_ms if old_valid_for_ms else 0
    await stores.api_keys.rotate(key, secret_hash=hash_of(new), old_valid_until_ms=until_ms)
    by_new = await principals.authenticate(new, now_ms=now)
    assert by_new is not None
    new_token = await principals.token_for(by_new, now_ms=now)

    before = await principals.authenticate(old_token, now_ms=until_ms - 1)
    if old_valid_for_ms:
        assert before == dataclasses.replace(by_old, until_ms=until_ms)
    else:
        assert before is None
    assert await principals.authenticate(old_token, now_ms=until_ms) is None
    assert await principals.authenticate(new_token, now_ms=until_ms) == by_new


async def test_all_replicas_share_one_signing_key(stores: Stores) -> None:
    first = await stores.api_keys.token_key(offered="a")

    assert await stores.api_keys.token_key(offered="b") == first == "a"
    assert keyspace.PERMANENT.fullmatch(keyspace.SIGNING_KEY.encode())


@pytest.mark.parametrize("given", ["", "x", "a.b.c", "ä.b.c", "." * 2, "a.b.c.d", "x" * 2000])
async def test_other_texts_do_not_authenticate(principals: Principals, given: str) -> None:
    assert await principals.authenticate(given, now_ms=NOW_MS) is None


def test_read_checks_the_signature() -> None:
    token = sign(PRINCIPAL, key=KEY, expires_at_s=5)

    assert is_token_like(token)
    mark = mark_of("3" * 64)
    assert read(token, key=KEY) == {
        "account_id": "2" * 32,
        "api_key_id": "1" * 32,
        "secret": mark,
        "exp": 5,
    }
    assert "3" * 16 not in mark, "the stored hash is not in the token"
    assert read(token, key="j" * 64) is None
    assert read(token[:-3], key=KEY) is None


def test_token_with_incomplete_claims_is_refused() -> None:
    for broken in (Principal("short", "a", frozenset()), Principal("", "", frozenset())):
        assert read(sign(broken, key=KEY, expires_at_s=5), key=KEY) is None
    of_an_earlier_release = jwt.encode({"api_key_id": "1" * 32, "exp": 5}, KEY, algorithm="HS256")
    assert read(of_an_earlier_release, key=KEY) is None


async def test_account_is_within_its_ancestors(stores: Stores, principals: Principals) -> None:
    ids = [new_id() for _ in range(40)]
    for i, parent in zip(ids, [None, *ids], strict=False):
        await stores.api_keys.create_account(Account(id=i, name="a", parent=parent))
    within = stores.api_keys.is_within

    assert await within(ids[0], of=ids[0])
    assert await within(ids[5], of=ids[0])
    assert not await within(ids[0], of=ids[5])
    assert await within(ids[31], of=ids[0])
    assert not await within(ids[39], of=ids[0]), "at most 32 levels"
    assert not await within(new_id(), of=ids[0])
    top = dataclasses.replace(PRINCIPAL, account_id=ids[0])
    assert await principals.may_listen(top, ids[3])
    assert not await principals.may_listen(dataclasses.replace(top, account_id=ids[3]), ids[0])


async def test_cycle_of_accounts_ends(stores: Stores) -> None:
    one, other = new_id(), new_id()
    for account, parent in ((one, other), (other, one)):
        stores.direct.hset(keyspace.account(account), mapping={"name": "a", "parent": parent})

    assert not await stores.api_keys.is_within(one, of=new_id())


async def test_master_may_listen_to_every_account(stores: Stores, principals: Principals) -> None:
    account = Account(id=new_id(), name="a")
    await stores.api_keys.create_account(account)
    await stores.api_keys.create_account(Account(id=stores.account_id, name="top", master=True))
    _, secret = await stores.api_key()
    principal = await principals.authenticate(secret, now_ms=NOW_MS)

    assert principal is not None
    assert principal.master
    assert await principals.may_listen(principal, account.id)
    assert not await principals.may_listen(principal, new_id())
