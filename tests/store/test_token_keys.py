"""Token keys and cut-offs: bounded, each with its end, and noted for edges."""

import asyncio

import pytest

from shared.clock import now_ms
from shared.model.api_keys import Account, new_id
from shared.model.errors import NoSuchAccount, TooManyCutOffs, TooManyTokenKeys
from shared.model.token_keys import MOST_KEYS, Algorithm, Origin, TokenKey, new_kid
from shared.store import keyspace, token_keys, token_names
from shared.store.token_keys import CUT_OFF_KEPT_MS, TokenKeys
from tests.store.stores import NOW_MS, RedisClock, Stores

SECRET = "s" * 32


@pytest.fixture
async def keys(stores: Stores) -> TokenKeys:
    await stores.api_keys.create_account(Account(id=stores.account_id, name="a"))
    return stores.token_keys


async def add(keys: TokenKeys, account_id: str, secret: str = SECRET) -> TokenKey:
    return await keys.add(account_id, Algorithm.HS256, secret, now_ms=NOW_MS)


async def test_what_was_added_is_found_until_it_is_dropped(stores: Stores, keys: TokenKeys) -> None:
    made = await add(keys, stores.account_id)
    assert (made.account_id, made.material, made.origin) == (stores.account_id, SECRET, Origin.ACCOUNT)
    assert SECRET not in repr(made)
    assert await keys.find(made.kid) == made
    assert await keys.of_account(stores.account_id) == [made]

    assert await keys.drop(made.kid)

    assert not await keys.drop(made.kid)
    assert await keys.find(made.kid) is None
    assert await keys.of_account(stores.account_id) == []
    assert await keys.find("server") is None


async def test_an_account_has_ten_keys_and_that_of_the_server(stores: Stores, keys: TokenKeys) -> None:
    adding = (add(keys, stores.account_id) for _ in range(MOST_KEYS + 5))
    made = await asyncio.gather(*adding, return_exceptions=True)
    assert sum(isinstance(each, TooManyTokenKeys) for each in made) == 5
    servers = await keys.server_key(stores.account_id, now_ms=NOW_MS)
    assert len(await keys.of_account(stores.account_id)) == MOST_KEYS + 1
    with pytest.raises(TooManyTokenKeys):
        await add(keys, stores.account_id)

    await keys.drop(servers.kid)
    with pytest.raises(TooManyTokenKeys):
        await add(keys, stores.account_id)
    first, *_ = await keys.of_account(stores.account_id)
    await keys.drop(first.kid)
    await add(keys, stores.account_id)


async def test_all_gateways_have_one_key_of_the_server(stores: Stores, keys: TokenKeys) -> None:
    making = (keys.server_key(stores.account_id, now_ms=NOW_MS) for _ in range(8))
    [made] = set(await asyncio.gather(*making))
    assert made.origin is Origin.SERVER

    await keys.drop(made.kid)
    another = await keys.server_key(stores.account_id, now_ms=NOW_MS)
    assert another.kid != made.kid
    assert another.material != made.material


async def test_without_its_account_nothing_is_written(stores: Stores) -> None:
    for write in (
        add(stores.token_keys, new_id()),
        stores.token_keys.server_key(new_id(), now_ms=NOW_MS),
        stores.token_keys.cut_off(new_id(), "a"),
    ):
        with pytest.raises(NoSuchAccount):
            await write
    assert stores.direct.dbsize() == 0


async def test_cut_offs_are_bounded_and_end(
    stores: Stores, clock: RedisClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_keys, "MOST_CUT_OFFS", 3)
    keys, account = TokenKeys(clock.calls_of(stores)), stores.account_id
    await stores.api_keys.create_account(Account(id=account, name="a"))
    for number in range(3):
        await keys.cut_off(account, f"user-{number}")
        clock.ahead_ms += 1000
    with pytest.raises(TooManyCutOffs) as full:
        await keys.cut_off(account, "user-3")
    assert full.value.until_ms == NOW_MS + CUT_OFF_KEPT_MS
    await keys.cut_off(account, "user-0")
    assert await keys.cut_off_ms(account, "user-0", now_ms=clock()) == NOW_MS + 3000

    clock.ahead_ms = 1000 + CUT_OFF_KEPT_MS
    assert await keys.cut_off_ms(account, "user-1", now_ms=clock()) is None, "it has ended"
    assert await keys.cut_off_ms(account, "user-2", now_ms=clock()) == NOW_MS + 2000
    await keys.cut_off(account, "user-3")
    assert stores.direct.zcard(keyspace.token_cut_offs(account)) == 3
    assert stores.direct.pttl(keyspace.token_cut_offs(account)) > CUT_OFF_KEPT_MS - 60_000


async def test_a_cut_off_never_goes_back(stores: Stores, clock: RedisClock) -> None:
    keys = TokenKeys(clock.calls_of(stores))
    await stores.api_keys.create_account(Account(id=stores.account_id, name="a"))
    await keys.cut_off(stores.account_id, "user")
    clock.ahead_ms = -5000
    await keys.cut_off(stores.account_id, "user")
    assert await keys.cut_off_ms(stores.account_id, "user", now_ms=NOW_MS) == NOW_MS


async def test_standings_of_many_tokens(stores: Stores, keys: TokenKeys) -> None:
    made, gone = await add(keys, stores.account_id), await add(keys, stores.account_id)
    await keys.drop(gone.kid)
    await keys.cut_off(stores.account_id, "out")
    tokens = [(kid, token_names.subject_hash(sub)) for kid in (made.kid, gone.kid) for sub in ("in", "out")]

    found = await keys.standings(stores.account_id, tokens, now_ms=now_ms())

    assert [each.has_key for each in found] == [True, True, False, False]
    assert [each.cut_off_ms is not None for each in found] == [False, True, False, True]


async def test_each_change_is_noted_once_more_and_forgotten(stores: Stores, clock: RedisClock) -> None:
    keys = TokenKeys(clock.calls_of(stores))
    await stores.api_keys.create_account(Account(id=stores.account_id, name="a"))
    made = await add(keys, stores.account_id)
    assert await keys.changes(NOW_MS, now_ms=NOW_MS) == {}, "a new key changes nothing for open connections"

    await keys.drop(made.kid)
    first = await keys.changes(NOW_MS, now_ms=NOW_MS)
    await keys.cut_off(stores.account_id, "user")
    second = await keys.changes(NOW_MS, now_ms=NOW_MS)
    await keys.drop(made.kid)
    third = await keys.changes(NOW_MS, now_ms=NOW_MS)

    assert first is not None
    assert second is not None
    assert third is not None
    times = [each[stores.account_id] for each in (first, second, third)]
    assert times == sorted(set(times)), "also within one ms"
    clock.ahead_ms = 121_000
    await keys.drop(new_kid(new_id()))
    assert stores.account_id not in (await keys.changes(NOW_MS, now_ms=NOW_MS) or {})


async def test_very_many_changes_mean_that_any_account_has_changed(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_keys, "_MOST_NOTES", 3)
    for _ in range(2):
        await stores.token_keys.drop(new_kid(new_id()))
    assert len(await stores.token_keys.changes(now_ms(), now_ms=now_ms()) or ()) == 2
    await stores.token_keys.drop(new_kid(new_id()))
    assert await stores.token_keys.changes(now_ms(), now_ms=now_ms()) is None
