"""Accounts and API keys."""

import pytest

from shared.model.api_keys import Account, new_id, new_secret
from shared.model.errors import KeyRevoked, NoLongerOwner
from shared.store.queues import Appended
from tests.store.routing import table_of
from tests.store.stores import NOW_MS, Backend, Stores, events


def everything_in(backend: Backend) -> bytes:
    """Every name and every hash."""
    names = list(backend.direct.scan_iter())
    hashes = [backend.direct.hgetall(name) for name in names if backend.direct.type(name) == b"hash"]
    return repr((names, hashes)).encode()


async def test_account_round_trip(stores: Stores) -> None:
    parent = Account(id=new_id(), name="Größe & Söhne")
    child = Account(id=new_id(), name="child", parent=parent.id)

    await stores.api_keys.create_account(parent)
    await stores.api_keys.create_account(child)

    assert await stores.api_keys.account(parent.id) == parent
    assert await stores.api_keys.account(child.id) == child
    assert await stores.api_keys.account(new_id()) is None


async def test_api_key_round_trip(stores: Stores) -> None:
    key, secret = await stores.api_key()

    assert await stores.api_keys.find(key.id) == key
    assert await stores.api_keys.authenticate(secret, now_ms=NOW_MS) == key
    assert key.id in (await table_of(stores.routing, stores.account_id)).api_keys


async def test_wrong_secrets_do_not_authenticate(stores: Stores) -> None:
    key, _ = await stores.api_key()

    for wrong in (None, "", "ak_", new_secret(key.id), new_secret(new_id()), key.id, key.secret_hash):
        assert await stores.api_keys.authenticate(wrong, now_ms=NOW_MS) is None


async def test_only_the_hash_of_a_secret_is_stored(stores: Stores, backend: Backend) -> None:
    key, secret = await stores.api_key()
    await stores.make_channel(key.id)

    stored = everything_in(backend)

    assert key.secret_hash.encode() in stored
    assert secret[-48:].encode() not in stored


async def test_revocation_deletes_channel_queue_lease_and_bindings(stores: Stores) -> None:
    key, secret = await stores.api_key()
    await stores.make_channel(key.id)
    await stores.routing.put_bindings(stores.account_id, key.id, b"[]")
    lease = await stores.claim(key.id)
    await stores.queued(key.id, 2)

    assert await stores.api_keys.revoke(key) is True

    assert await stores.api_keys.find(key.id) is None
    assert await stores.api_keys.authenticate(secret, now_ms=NOW_MS) is None
    assert await stores.channels.state(key.id) is None
    assert stores.direct.keys(f"{{{key.id}}}*") == []
    routes = await table_of(stores.routing, stores.account_id)
    assert (routes.api_keys, routes.channels, routes.bindings) == (frozenset(), frozenset(), {})
    assert await stores.queues.ack_until(lease, until="1-0") is None


async def test_revoked_key_refuses_channels_claims_and_appends(stores: Stores) -> None:
    key, _ = await stores.api_key()
    await stores.make_channel(key.id)
    await stores.api_keys.revoke(key)

    with pytest.raises(KeyRevoked):
        await stores.make_channel(key.id)
    with pytest.raises(NoLongerOwner):
        await stores.claim(key.id)
    assert await stores.queues.append(key.id, events(1)) is Appended.ABSENT
    assert stores.direct.keys(f"{{{key.id}}}*") == []


async def test_revoking_twice_returns_false(stores: Stores) -> None:
    key, _ = await stores.api_key()

    assert await stores.api_keys.revoke(key) is True
    assert await stores.api_keys.revoke(key) is False


async def test_revocation_leaves_other_keys(stores: Stores) -> None:
    key, _ = await stores.api_key()
    other, secret = await stores.api_key()
    await stores.make_channel(other.id)

    await stores.api_keys.revoke(key)

    assert await stores.api_keys.authenticate(secret, now_ms=NOW_MS) == other
    assert list((await table_of(stores.routing, stores.account_id)).channels) == [other.id]
