"""Secrets of API keys: rotation with at most two valid secrets, and expiry."""

import asyncio
import time
from dataclasses import replace

import pytest

from shared.model.api_keys import ApiKey, hash_of, new_id, new_secret
from shared.model.errors import KeyExpired, KeyRevoked, SecretsInUse
from shared.store import keyspace
from tests.store.routing import table_of
from tests.store.stores import Stores

# Redis' time: a test cannot set it.
NOW_MS = time.time_ns() // 1_000_000
DAY_MS = 86_400_000
LATER_MS = NOW_MS + DAY_MS


async def rotated(stores: Stores, key: ApiKey, *, until_ms: int) -> str:
    """The new secret."""
    secret = new_secret(key.id)
    await stores.api_keys.rotate(key, secret_hash=hash_of(secret), old_valid_until_ms=until_ms)
    return secret


def move_deadlines(stores: Stores, key: ApiKey, *, by_ms: int) -> None:
    """As if that much of Redis' time had passed."""
    name = keyspace.api_key(key.id)
    for field in ("expires_at_ms", "old_valid_until_ms"):
        if stores.direct.hexists(name, field):
            stores.direct.hincrby(name, field, -by_ms)


async def accepts(stores: Stores, secret: str, *, now_ms: int) -> bool:
    return await stores.api_keys.authenticate(secret, now_ms=now_ms) is not None


async def expiring(stores: Stores, expires_at_ms: int) -> tuple[ApiKey, str]:
    plain, _ = await stores.api_key()
    await stores.api_keys.revoke(plain)
    api_key_id = new_id()
    secret = new_secret(api_key_id)
    key = replace(plain, id=api_key_id, secret_hash=hash_of(secret), expires_at_ms=expires_at_ms)
    await stores.api_keys.create(key)
    return key, secret


async def test_both_secrets_are_valid_until_the_old_one_ends(stores: Stores) -> None:
    key, old = await stores.api_key()

    new = await rotated(stores, key, until_ms=LATER_MS)

    assert await accepts(stores, old, now_ms=LATER_MS - 1)
    assert not await accepts(stores, old, now_ms=LATER_MS)
    assert await accepts(stores, new, now_ms=NOW_MS)
    assert await accepts(stores, new, now_ms=LATER_MS)


async def test_old_secret_can_end_at_once(stores: Stores) -> None:
    key, old = await stores.api_key()

    new = await rotated(stores, key, until_ms=0)

    assert not await accepts(stores, old, now_ms=NOW_MS)
    assert not await accepts(stores, old, now_ms=NOW_MS - 1000), "its hash is deleted"
    assert await accepts(stores, new, now_ms=NOW_MS)
    assert await accepts(stores, await rotated(stores, key, until_ms=NOW_MS - 1), now_ms=NOW_MS)


async def test_third_valid_secret_is_refused(stores: Stores) -> None:
    key, old = await stores.api_key()
    new = await rotated(stores, key, until_ms=LATER_MS)

    for until_ms in (0, LATER_MS, LATER_MS + DAY_MS):
        with pytest.raises(SecretsInUse) as refused:
            await rotated(stores, key, until_ms=until_ms)
        assert refused.value.until_ms == LATER_MS
    assert await accepts(stores, old, now_ms=NOW_MS)
    assert await accepts(stores, new, now_ms=NOW_MS)

    move_deadlines(stores, key, by_ms=DAY_MS)
    third = await rotated(stores, key, until_ms=LATER_MS + DAY_MS)
    assert [await accepts(stores, each, now_ms=LATER_MS) for each in (old, new, third)] == [False, True, True]


async def test_one_of_concurrent_rotations_succeeds(stores: Stores) -> None:
    key, _ = await stores.api_key()

    outcomes = await asyncio.gather(
        *(rotated(stores, key, until_ms=LATER_MS) for _ in range(5)), return_exceptions=True
    )

    assert sum(isinstance(outcome, str) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, SecretsInUse) for outcome in outcomes) == 4


async def test_revoked_or_expired_key_gets_no_new_secret(stores: Stores) -> None:
    key, _ = await stores.api_key()
    await stores.api_keys.revoke(key)
    with pytest.raises(KeyRevoked):
        await rotated(stores, key, until_ms=LATER_MS)
    assert stores.direct.keys(f"{{{key.id}}}*") == []

    over, _ = await expiring(stores, LATER_MS)
    move_deadlines(stores, over, by_ms=DAY_MS)
    with pytest.raises(KeyExpired):
        await rotated(stores, over, until_ms=LATER_MS + DAY_MS)


async def test_expiring_key_round_trip(stores: Stores) -> None:
    key, secret = await expiring(stores, LATER_MS)

    assert await stores.api_keys.find(key.id) == key
    assert await stores.api_keys.authenticate(secret, now_ms=LATER_MS - 1) == key
    assert await stores.api_keys.authenticate(secret, now_ms=LATER_MS) is None
    assert await stores.api_keys.find(key.id) == key, "an expired key stays until it is revoked"


async def test_routing_table_knows_when_a_key_expires(stores: Stores) -> None:
    for_ever, _ = await stores.api_key()
    key, _ = await expiring(stores, LATER_MS)
    # The reaper adds the key of every channel again.
    await stores.routing.add_key(stores.account_id, key.id)

    routes = await table_of(stores.routing, stores.account_id)

    assert routes.api_keys == {key.id, for_ever.id}
    assert not routes.is_expired(key.id, now_ms=LATER_MS - 1)
    assert routes.is_expired(key.id, now_ms=LATER_MS)
    assert not routes.is_expired(for_ever.id, now_ms=2 * LATER_MS)


async def test_revocation_removes_the_expiry_from_the_routing_table(stores: Stores) -> None:
    key, _ = await expiring(stores, LATER_MS)

    await stores.api_keys.revoke(key)

    routes = await table_of(stores.routing, stores.account_id)
    assert not routes.is_expired(key.id, now_ms=2 * LATER_MS)
    assert stores.direct.hkeys(keyspace.routing(stores.account_id)) == [b"version"]


async def test_keys_of_an_account_are_listed_in_pages(stores: Stores) -> None:
    keys = [(await stores.api_key())[0] for _ in range(5)]
    stranger = replace(keys[0], id=new_id(), account_id=new_id())
    await stores.api_keys.create(stranger)

    seen: list[str] = []
    after: str | None = ""
    while after is not None:
        part, after = await stores.api_keys.of_account(stores.account_id, after=after, count=2)
        assert len(part) <= 2
        seen += [key.id for key in part]

    assert seen == sorted(key.id for key in keys)


async def test_key_without_a_record_is_not_listed(stores: Stores) -> None:
    key, _ = await stores.api_key()
    await stores.routing.add_key(stores.account_id, new_id())

    keys, after = await stores.api_keys.of_account(stores.account_id, after="", count=10)

    assert keys == [key]
    assert after is None
