"""A connection ends when its key expires or its secret does, also when that was decided later."""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, cast

import pytest

from services.socket_edge import credential_watcher
from services.socket_edge.credential_watcher import Credential, CredentialWatcher
from services.socket_edge.liveness import Liveness
from shared.model.api_keys import ApiKey, hash_of, new_secret
from shared.model.errors import StoreUnavailable
from tests.harness.waiting import wait_until
from tests.socket_edge.test_liveness import Connection
from tests.store.stores import EDGE, NOW_MS, Stores

LATER_MS = NOW_MS + 60_000


@pytest.fixture
async def watcher(stores: Stores) -> AsyncIterator[CredentialWatcher]:
    made = CredentialWatcher(stores.api_keys, Liveness(ping_interval_s=20, ping_timeout_s=20))
    task = asyncio.create_task(made.run())
    yield made
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def opened_with(key: ApiKey, secret: str) -> Connection:
    connection = Connection()
    secret_hash = hash_of(secret)
    connection.credential = Credential(key.id, secret_hash, key.valid_until_ms(secret_hash))
    connection.expires_at_ms = connection.credential.until_ms
    return connection


async def test_a_secret_that_gets_an_end_while_its_socket_is_open(
    stores: Stores, watcher: CredentialWatcher
) -> None:
    key, old = await stores.api_key()
    new = new_secret(key.id)
    old_one = opened_with(key, old)
    await stores.api_keys.rotate(key, secret_hash=hash_of(new), old_valid_until_ms=LATER_MS, now_ms=NOW_MS)
    rotated = await stores.api_keys.find(key.id)
    assert rotated is not None
    new_one = opened_with(rotated, new)

    watcher.check([old_one, new_one])

    await wait_until(lambda: old_one.expires_at_ms == LATER_MS)
    assert new_one.expires_at_ms == math.inf


async def test_a_key_that_gets_an_end_while_its_socket_is_open(
    stores: Stores, watcher: CredentialWatcher
) -> None:
    key, _ = await stores.api_key()
    await stores.api_keys.create(replace(key, expires_at_ms=LATER_MS))
    connection = Connection()
    connection.credential = Credential(key.id, key.secret_hash)

    watcher.check([connection])

    await wait_until(lambda: connection.expires_at_ms == LATER_MS)


async def test_a_key_that_is_revoked_ends_its_connections(stores: Stores, watcher: CredentialWatcher) -> None:
    key, secret = await stores.api_key()
    connection = opened_with(key, secret)
    await stores.api_keys.revoke(key)

    watcher.check([connection])

    await wait_until(lambda: connection.expires_at_ms == 0)


async def test_a_connection_that_ended_while_its_key_was_read_is_not_watched_again(
    stores: Stores, watcher: CredentialWatcher
) -> None:
    key, old = await stores.api_key()
    gone, there = opened_with(key, old), opened_with(key, old)
    new_hash = hash_of(new_secret(key.id))
    await stores.api_keys.rotate(key, secret_hash=new_hash, old_valid_until_ms=NOW_MS, now_ms=NOW_MS)

    watcher.check([gone, there])
    gone.is_held = False

    await wait_until(lambda: there.expires_at_ms <= NOW_MS)
    assert there.check_tick < math.inf
    assert gone.check_tick == math.inf


async def test_while_redis_is_unavailable_only_live_connections_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credential_watcher, "_RETRY_S", 0)
    read = list[str]()

    class Unavailable:
        async def find(self, api_key_id: str) -> None:
            read.append(api_key_id)
            raise StoreUnavailable(why="ConnectionError")

    watcher = CredentialWatcher(cast(Any, Unavailable()), Liveness(ping_interval_s=20, ping_timeout_s=20))
    gone, there = Connection(), Connection()
    gone.credential, there.credential = Credential("gone", ""), Credential("there", "")
    watcher.check([gone, there])
    gone.is_held = False
    task = asyncio.create_task(watcher.run())

    await wait_until(lambda: read.count("there") > 5)
    task.cancel()

    assert read.count("gone") == 1


async def test_a_rotation_sends_a_wakeup_to_the_owner_of_the_socket(stores: Stores) -> None:
    key, _ = await stores.api_key()
    await stores.make_channel(key.id)
    await stores.claim(key.id)
    pubsub = stores.direct.pubsub(ignore_subscribe_messages=True)
    pubsub.subscribe(f"wakeup:{EDGE}")
    pubsub.get_message(timeout=1)
    new_hash = hash_of(new_secret(key.id))

    await stores.api_keys.rotate(key, secret_hash=new_hash, old_valid_until_ms=LATER_MS, now_ms=NOW_MS)
    await stores.wakeups.flush()

    assert pubsub.get_message(timeout=1)["data"] == f"key:{key.id}".encode()
