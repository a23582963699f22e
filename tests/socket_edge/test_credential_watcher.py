"""A socket's credential ends when its key expires or its secret does, also when that was decided later."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace

import fakeredis
import pytest

from services.socket_edge.credential_watcher import Credential, CredentialWatcher
from shared.model.api_keys import ApiKey, hash_of, new_secret
from tests.harness.waiting import wait_until
from tests.store.stores import EDGE, NOW_MS, Stores, fake_backend

LATER_MS = NOW_MS + 60_000


@pytest.fixture
async def stores() -> AsyncIterator[Stores]:
    backend = fake_backend(fakeredis.FakeServer())
    async with backend.connect() as redis:
        yield Stores(redis, backend)


@pytest.fixture
async def credentials(stores: Stores) -> AsyncIterator[CredentialWatcher[str]]:
    made: CredentialWatcher[str] = CredentialWatcher(stores.api_keys)
    task = asyncio.create_task(made.look_again())
    yield made
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def credential_of(key: ApiKey, secret: str) -> Credential:
    return Credential(key.id, hash_of(secret), key.valid_until_ms(hash_of(secret)))


async def test_a_key_that_expires(stores: Stores, credentials: CredentialWatcher[str]) -> None:
    key, secret = await stores.api_key()
    expiring = replace(key, expires_at_ms=LATER_MS)
    credentials.keep("for ever", credential_of(key, secret))
    credentials.keep("socket", credential_of(expiring, secret))

    assert credentials.over(now_ms=LATER_MS - 1) == []
    assert credentials.over(now_ms=LATER_MS) == ["socket"]
    assert credentials.over(now_ms=LATER_MS + 1) == []


async def test_a_secret_that_gets_an_end_while_its_socket_is_open(
    stores: Stores, credentials: CredentialWatcher[str]
) -> None:
    key, old = await stores.api_key()
    new = new_secret(key.id)
    credentials.keep("old", credential_of(key, old))
    await stores.api_keys.rotate(key, secret_hash=hash_of(new), old_valid_until_ms=LATER_MS, now_ms=NOW_MS)
    rotated = await stores.api_keys.find(key.id)
    assert rotated is not None
    credentials.keep("new", credential_of(rotated, new))

    assert credentials.over(now_ms=LATER_MS) == [], "nobody has told it yet"
    credentials.doubt(["old", "new"])

    await wait_until(lambda: credentials.over(now_ms=LATER_MS) == ["old"])
    assert credentials.over(now_ms=2 * LATER_MS) == []


async def test_a_secret_that_is_ended_at_once(stores: Stores, credentials: CredentialWatcher[str]) -> None:
    key, old = await stores.api_key()
    credentials.keep("old", credential_of(key, old))
    new_hash = hash_of(new_secret(key.id))
    await stores.api_keys.rotate(key, secret_hash=new_hash, old_valid_until_ms=NOW_MS, now_ms=NOW_MS)

    credentials.doubt(["old"])

    await wait_until(lambda: credentials.over(now_ms=NOW_MS) == ["old"])


async def test_a_socket_that_went_while_its_key_was_looked_up_is_not_kept(
    stores: Stores, credentials: CredentialWatcher[str]
) -> None:
    key, old = await stores.api_key()
    credentials.keep("gone", credential_of(key, old))
    credentials.keep("there", credential_of(key, old))
    new_hash = hash_of(new_secret(key.id))
    await stores.api_keys.rotate(key, secret_hash=new_hash, old_valid_until_ms=NOW_MS, now_ms=NOW_MS)

    credentials.doubt(["gone", "there"])
    credentials.forget("gone")

    await wait_until(lambda: credentials.over(now_ms=NOW_MS) == ["there"])


async def test_the_owner_of_a_rotated_keys_socket_is_told(stores: Stores) -> None:
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
