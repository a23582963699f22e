"""A change of bindings is complete when the channel has the version of its bindings in the routing table."""

import pytest

from shared.model.bindings import Source
from shared.store import keyspace
from shared.store.queues import Appended
from shared.store.routing import Routing
from tests.store.routing import TOPICS
from tests.store.stores import Stores, events


def in_table(stores: Stores, key: str) -> str:
    return str(stores.direct.hget(keyspace.routing(stores.account_id), f"key:{key}").decode())


async def appended(stores: Stores, key: str, version: str) -> Appended:
    """The result of an append by a gateway that knows this version."""
    return await stores.queues.append(key, events(1), bindings_version=version)


async def put(stores: Stores, key: str, topics: bytes = TOPICS) -> None:
    await stores.routing.put_bindings(stores.account_id, key, topics, source=Source.TOPICS)


async def put_in_the_table(stores: Stores, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change whose writer dies before it reaches the channel."""

    async def dies(*_: object, **__: object) -> None:
        raise ConnectionError

    with monkeypatch.context() as patch:
        patch.setattr(Routing, "confirm_bindings", dies)
        with pytest.raises(ConnectionError):
            await put(stores, key)


async def test_channel_takes_only_the_present_version(stores: Stores) -> None:
    key = await stores.channel()
    before = in_table(stores, key)
    assert await appended(stores, key, before) is Appended.QUEUED

    await put(stores, key)

    assert await appended(stores, key, before) is Appended.STALE
    assert await appended(stores, key, in_table(stores, key)) is Appended.QUEUED


async def test_repeated_change_completes_one_whose_writer_died(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = await stores.channel()
    await put_in_the_table(stores, key, monkeypatch)
    assert await appended(stores, key, in_table(stores, key)) is Appended.STALE

    await put(stores, key)

    assert await appended(stores, key, in_table(stores, key)) is Appended.QUEUED


async def test_late_writer_changes_nothing(stores: Stores) -> None:
    key = await stores.channel()
    first = in_table(stores, key)
    await put(stores, key)
    second = in_table(stores, key)
    await put(stores, key, b"[]")

    assert await stores.routing.confirm_bindings(stores.account_id, key, seen=first, version=second)

    assert await appended(stores, key, second) is Appended.STALE
    assert await appended(stores, key, in_table(stores, key)) is Appended.QUEUED


async def test_new_channel_takes_no_version_of_an_older_one(stores: Stores) -> None:
    key = await stores.channel()
    before = in_table(stores, key)
    await stores.delete_channel(key)
    await stores.make_channel(key)

    assert await appended(stores, key, before) is Appended.STALE
    assert await appended(stores, key, in_table(stores, key)) is Appended.QUEUED


async def test_new_channel_has_no_version_before_the_table_names_it(stores: Stores) -> None:
    key = await stores.channel()
    before = in_table(stores, key)
    # An older channel is still in the table, and the new one not yet.
    stores.direct.hset(keyspace.channel(key), "generation", "new")
    stores.direct.hdel(keyspace.channel(key), "bindings_version")

    assert not await stores.routing.confirm_bindings(stores.account_id, key, seen="new")
    assert await appended(stores, key, before) is Appended.STALE

    await stores.routing.add_channel(stores.account_id, key, generation="new")
    assert await appended(stores, key, before) is Appended.STALE
    assert await appended(stores, key, in_table(stores, key)) is Appended.QUEUED
