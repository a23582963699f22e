"""A connection ends when its key expires or its secret does, also when that was decided later."""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from services.socket_edge import credential_watcher
from services.socket_edge.credential_watcher import Credential, CredentialWatcher
from services.socket_edge.liveness import Liveness
from shared.clock import now_ms
from shared.model.api_keys import ApiKey, hash_of, new_secret
from shared.model.channels import CloseReason
from shared.model.errors import StoreUnavailable
from shared.runtime.loops import in_background
from tests.conftest import Measured
from tests.harness.waiting import wait_until
from tests.socket_edge.test_liveness import Connection
from tests.store.stores import EDGE, Stores

LATER_MS = now_ms() + 3_600_000


def watcher_of(api_keys: Any, *held: Connection) -> CredentialWatcher:
    return CredentialWatcher(api_keys, Liveness(ping_interval_s=20, ping_timeout_s=20), lambda: held)


@pytest.fixture
async def watcher(stores: Stores) -> AsyncIterator[CredentialWatcher]:
    made = watcher_of(stores.api_keys)
    task = asyncio.create_task(made.run())
    yield made
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def opened_with(key: ApiKey, secret: str) -> Connection:
    connection = Connection()
    secret_hash = hash_of(secret)
    connection.credential = Credential(key.id, key.account_id, secret_hash, key.valid_until_ms(secret_hash))
    connection.expires_at_ms = connection.credential.until_ms
    return connection


async def test_a_secret_that_gets_an_end_while_its_socket_is_open(
    stores: Stores, watcher: CredentialWatcher
) -> None:
    key, old = await stores.api_key()
    new = new_secret(key.id)
    old_one = opened_with(key, old)
    await stores.api_keys.rotate(key, secret_hash=hash_of(new), old_valid_until_ms=LATER_MS)
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
    connection.credential = Credential(key.id, key.account_id, key.secret_hash)

    watcher.check([connection])

    await wait_until(lambda: connection.expires_at_ms == LATER_MS)


async def test_a_key_that_is_revoked_ends_its_connections(stores: Stores, watcher: CredentialWatcher) -> None:
    key, secret = await stores.api_key()
    connection = opened_with(key, secret)
    await stores.api_keys.revoke(key)

    watcher.check([connection])

    await wait_until(lambda: connection.closed == [CloseReason.KEY_EXPIRED])


async def test_a_connection_that_ended_while_its_key_was_read_is_not_watched_again(
    stores: Stores, watcher: CredentialWatcher
) -> None:
    key, old = await stores.api_key()
    gone, there = opened_with(key, old), opened_with(key, old)
    new_hash = hash_of(new_secret(key.id))
    await stores.api_keys.rotate(key, secret_hash=new_hash, old_valid_until_ms=0)

    watcher.check([gone, there])
    gone.is_held = False

    await wait_until(lambda: there.closed == [CloseReason.KEY_EXPIRED])
    assert gone.closed == []
    assert gone.check_tick == math.inf


async def test_while_redis_is_unavailable_only_live_connections_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credential_watcher, "_RETRY_S", 0)
    read = list[str]()

    class Unavailable:
        async def find(self, api_key_id: str) -> None:
            read.append(api_key_id)
            raise StoreUnavailable(why="ConnectionError")

    watcher = watcher_of(Unavailable())
    gone, there = Connection(), Connection()
    gone.credential, there.credential = Credential("gone", "", ""), Credential("there", "", "")
    watcher.check([gone, there])
    gone.is_held = False
    task = asyncio.create_task(watcher.run())

    await wait_until(lambda: read.count("there") > 5)
    task.cancel()

    assert read.count("gone") == 1


class Keys:
    """API keys of which some cannot be read; notes which were read, and how many at once."""

    def __init__(self, *unreadable: str) -> None:
        self.version = b"1"
        self.is_away = False
        self.versions_read = 0
        self.read = list[str]()
        self.most_at_once = 0
        self._unreadable = unreadable
        self._at_once = 0

    async def credentials_version(self) -> bytes:
        self.versions_read += 1
        if self.is_away:
            raise StoreUnavailable(why="ConnectionError")
        return self.version

    async def find(self, api_key_id: str) -> None:
        self.read.append(api_key_id)
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        await asyncio.sleep(0)
        self._at_once -= 1
        if api_key_id in self._unreadable:
            raise StoreUnavailable(why="ConnectionError")


def opened_by(api_key_id: str) -> Connection:
    connection = Connection()
    connection.credential = Credential(api_key_id, "", "")
    return connection


async def test_many_keys_are_read_in_steps_and_each_once(record_property: Measured) -> None:
    keys = Keys()
    connections = [opened_by(str(number % 1000)) for number in range(2000)]
    watcher = watcher_of(keys)
    watcher.check(connections)
    task = asyncio.create_task(watcher.run())

    await wait_until(lambda: all(each.closed for each in connections))
    task.cancel()

    record_property("most API keys read at once of 1,000", str(keys.most_at_once))
    assert keys.most_at_once <= 100
    assert sorted(keys.read) == sorted({str(number) for number in range(1000)})


async def test_the_key_of_a_wakeup_is_read_before_those_that_wait() -> None:
    keys = Keys()
    watcher = watcher_of(keys)
    watcher.check(opened_by(str(number)) for number in range(1000))
    watcher.check([opened_by("woken")])
    task = asyncio.create_task(watcher.run())

    await wait_until(lambda: len(keys.read) == 1001)
    task.cancel()

    assert keys.read[0] == "woken"


async def test_a_check_of_nothing_delays_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most wakeups and versions are about keys of which an edge has no connection."""
    monkeypatch.setattr(credential_watcher, "_RETRY_S", 3600)
    keys, connection = Keys(), opened_by("1")
    watcher = watcher_of(keys)
    watcher.check([])
    task = asyncio.create_task(watcher.run())
    await asyncio.sleep(0)

    watcher.check([connection])

    await wait_until(lambda: bool(connection.closed))
    task.cancel()


async def test_keys_of_a_dead_primary_do_not_hold_up_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credential_watcher, "_RETRY_S", 3600)
    dead = [f"dead-{number}" for number in range(150)]
    others = [opened_by(str(number)) for number in range(500)]
    watcher = watcher_of(Keys(*dead))
    watcher.check(others)
    watcher.check([*map(opened_by, dead[1:]), opened_by("first"), opened_by(dead[0])])
    task = asyncio.create_task(watcher.run())

    await wait_until(lambda: all(each.closed for each in others))
    task.cancel()


async def test_a_new_version_of_all_credentials_has_every_key_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credential_watcher, "_VERSION_S", 0)
    keys, held = Keys(), opened_by("held")
    watcher = watcher_of(keys, held)
    async with in_background(watcher.run, watcher.watch_version):
        await wait_until(lambda: keys.versions_read > 5)
        assert keys.read == ["held"], "what was there at the first look"

        keys.is_away = True
        keys.version = b"2"
        read = keys.versions_read
        await wait_until(lambda: keys.versions_read > read + 5)
        assert keys.read == ["held"]

        keys.is_away = False
        await wait_until(lambda: keys.read == ["held", "held"], what="the change to be made up for")


async def test_a_rotation_sends_a_wakeup_to_the_owner_of_the_socket(stores: Stores) -> None:
    key, _ = await stores.api_key()
    await stores.make_channel(key.id)
    await stores.claim(key.id)
    pubsub = stores.direct.pubsub(ignore_subscribe_messages=True)
    pubsub.subscribe(f"wakeup:{EDGE}")
    pubsub.get_message(timeout=10)
    new_hash = hash_of(new_secret(key.id))

    await stores.api_keys.rotate(key, secret_hash=new_hash, old_valid_until_ms=LATER_MS)
    await stores.wakeups.flush()

    assert pubsub.get_message(timeout=10)["data"] == f"key:{key.id}".encode()
