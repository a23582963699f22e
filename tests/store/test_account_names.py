"""The index of accounts by name: crashes between its two slots are repaired by the reaper's walk."""

import asyncio

import pytest

from shared.model.api_keys import Account, new_id
from shared.model.errors import NoSuchAccount
from shared.store import keyspace
from tests.store.stores import Stores


def entries(stores: Stores) -> set[bytes]:
    return set(stores.direct.zrange(keyspace.ACCOUNT_NAMES, 0, -1))


async def account(stores: Stores, name: str) -> str:
    made = Account(id=new_id(), name=name)
    await stores.api_keys.create_account(made)
    return made.id


async def drop_stale(stores: Stores) -> None:
    cursor = await stores.api_keys.names.drop_stale("", count=10)
    while cursor:
        cursor = await stores.api_keys.names.drop_stale(cursor, count=10)


async def test_an_entry_without_its_account_is_not_listed_and_dropped(stores: Stores) -> None:
    lost, kept = await account(stores, "lost"), await account(stores, "kept")
    stores.direct.delete(keyspace.account(lost))

    listed, _ = await stores.api_keys.accounts("", after="", count=10)
    assert [each.id for each in listed] == [kept]

    await drop_stale(stores)
    assert entries(stores) == {b"kept\0" + kept.encode()}


async def test_an_entry_of_an_older_name_is_dropped(stores: Stores) -> None:
    made = await account(stores, "new")
    await stores.api_keys.names.add("old", made)
    await drop_stale(stores)
    assert entries(stores) == {b"new\0" + made.encode()}


async def test_a_missing_entry_is_added(stores: Stores) -> None:
    made = await account(stores, "unlisted")
    stores.direct.delete(keyspace.ACCOUNT_NAMES)
    await stores.api_keys.names.add_missing([made, new_id()])
    assert entries(stores) == {b"unlisted\0" + made.encode()}


async def test_many_accounts_are_checked_in_pages(stores: Stores) -> None:
    made = await asyncio.gather(*(account(stores, f"account {number}") for number in range(600)))
    for gone in made[::2]:
        stores.direct.delete(keyspace.account(gone))
    await drop_stale(stores)
    assert len(entries(stores)) == 300


async def test_a_rename_of_a_deleted_account_leaves_no_entry(stores: Stores) -> None:
    made = Account(id=new_id(), name="before")
    await stores.api_keys.create_account(made)
    stores.direct.hset(keyspace.account(made.id), "deleting", 1)
    with pytest.raises(NoSuchAccount):
        await stores.api_keys.rename_account(made, "after")
    assert entries(stores) == {b"before\0" + made.id.encode()}
