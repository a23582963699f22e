"""Signing secrets in Redis: the first one, rotations, ends by Redis' clock, and the release before."""

import asyncio
import random
from collections.abc import Coroutine
from typing import Any

import pytest

from shared.model.callbacks import Callback
from shared.model.channels import Kind
from shared.model.errors import KeyRevoked, NewestSecret, TooManySecrets
from shared.model.signing_secrets import MOST_SECRETS, new_secret_id
from shared.store import keyspace
from shared.store.batches import Batches, TakenBatch
from shared.store.queues import QueueLimits
from shared.store.signing_secrets import SigningSecrets
from tests.store.native import create
from tests.store.stores import EDGE, HOUR_MS, NOW_MS, RedisClock, Stores

HOOK = Callback("https://example.com/hook", {})


@pytest.fixture
def secrets(stores: Stores, clock: RedisClock) -> SigningSecrets:
    return SigningSecrets(clock.calls_of(stores))


@pytest.fixture
async def webhook(stores: Stores) -> str:
    """A native webhook with something to deliver."""
    channel = await create(stores, kind=Kind.WEBHOOK, callback=HOOK)
    await stores.queued(channel, 1)
    return channel


async def texts(secrets: SigningSecrets, channel: str) -> list[str]:
    return [each.text for each in await secrets.read(channel)]


async def taken(stores: Stores, clock: RedisClock, channel: str, *, claim: int = 1) -> tuple[str, ...]:
    """What signs the request of a dispatcher that takes over now."""
    lease = await stores.leases.claim_unheld(channel, owner=f"{EDGE}/{claim}")
    batch = await Batches(clock.calls_of(stores), limits=QueueLimits()).take(lease, count=10, size_bytes=1000)
    assert isinstance(batch, TakenBatch)
    assert not any(each in repr(batch) for each in batch.signing_secrets)
    return batch.signing_secrets


async def test_the_first_secret_stays_until_the_key_is_revoked(stores: Stores) -> None:
    key, _ = await stores.api_key()
    assert await stores.signing_secrets.read(key.id) == []

    [first] = await stores.signing_secrets.made(key.id, offered="whsec_a")
    assert (first.id, first.text, first.ends_at_ms) == (f"sec_{key.id}", "whsec_a", None)
    assert first.created_at_ms == key.created_at_ms
    assert await stores.signing_secrets.made(key.id, offered="whsec_b") == [first]
    await stores.signing_secrets.add(key.id, "whsec_c", overlap_ms=0)
    await stores.api_keys.revoke(key)
    assert not stores.direct.exists(keyspace.api_key(key.id))
    for call in (
        stores.signing_secrets.made(key.id, offered="whsec_d"),
        stores.signing_secrets.read(key.id),
        stores.signing_secrets.add(key.id, "whsec_d", overlap_ms=0),
    ):
        with pytest.raises(KeyRevoked):
            await call
    assert not await stores.signing_secrets.end(key.id, first.id)


async def test_both_sign_during_the_overlap_and_the_new_one_after_it(
    stores: Stores, clock: RedisClock, secrets: SigningSecrets, webhook: str
) -> None:
    [first] = await secrets.read(webhook)

    new, old = await secrets.add(webhook, "whsec_new", overlap_ms=HOUR_MS)

    assert (new.text, new.created_at_ms, new.ends_at_ms) == ("whsec_new", NOW_MS, None)
    assert (old.id, old.text, old.ends_at_ms) == (first.id, first.text, NOW_MS + HOUR_MS)
    assert await secrets.made(webhook, offered="whsec_x") == [new, old]
    clock.ahead_ms = HOUR_MS - 1
    assert await taken(stores, clock, webhook) == ("whsec_new", first.text)
    clock.ahead_ms = HOUR_MS
    assert await taken(stores, clock, webhook, claim=2) == ("whsec_new",)
    assert await secrets.read(webhook) == [new]
    assert await secrets.made(webhook, offered="whsec_x") == [new]


async def test_overlaps_never_grow(clock: RedisClock, secrets: SigningSecrets, webhook: str) -> None:
    [first] = await texts(secrets, webhook)
    await secrets.add(webhook, "whsec_b", overlap_ms=HOUR_MS)
    clock.ahead_ms = 1000

    await secrets.add(webhook, "whsec_c", overlap_ms=2 * HOUR_MS)

    ends = {each.text: each.ends_at_ms for each in await secrets.read(webhook)}
    assert ends == {"whsec_c": None, "whsec_b": NOW_MS + 1000 + 2 * HOUR_MS, first: NOW_MS + HOUR_MS}
    await secrets.add(webhook, "whsec_d", overlap_ms=0)
    assert await texts(secrets, webhook) == ["whsec_d"]


async def test_there_are_five_at_most(clock: RedisClock, secrets: SigningSecrets, webhook: str) -> None:
    for number in range(MOST_SECRETS - 1):
        await secrets.add(webhook, f"whsec_{number}", overlap_ms=HOUR_MS + number)
    before = await secrets.read(webhook)

    with pytest.raises(TooManySecrets) as raised:
        await secrets.add(webhook, "whsec_more", overlap_ms=2 * HOUR_MS)

    assert raised.value.until_ms == NOW_MS + HOUR_MS
    assert await secrets.read(webhook) == before
    clock.ahead_ms = HOUR_MS
    assert len(await secrets.add(webhook, "whsec_more", overlap_ms=2 * HOUR_MS)) == MOST_SECRETS
    # One that ends all others needs no room.
    assert len(await secrets.add(webhook, "whsec_leaked", overlap_ms=0)) == 1


async def test_one_that_is_there_becomes_the_newest(secrets: SigningSecrets, webhook: str) -> None:
    """As after a rotation that the receiver could not follow."""
    [first] = await secrets.read(webhook)
    await secrets.add(webhook, "whsec_b", overlap_ms=HOUR_MS)

    back, other = await secrets.add(webhook, first.text, overlap_ms=HOUR_MS)

    assert (back.text, back.ends_at_ms, other.text) == (first.text, None, "whsec_b")


async def test_an_older_one_may_be_ended_and_the_newest_not(secrets: SigningSecrets, webhook: str) -> None:
    [first] = await secrets.read(webhook)
    with pytest.raises(NewestSecret):
        await secrets.end(webhook, first.id)
    new, _ = await secrets.add(webhook, "whsec_b", overlap_ms=HOUR_MS)

    with pytest.raises(NewestSecret):
        await secrets.end(webhook, new.id)
    assert not await secrets.end(webhook, new_secret_id())
    assert await secrets.end(webhook, first.id)
    assert not await secrets.end(webhook, first.id)

    assert await secrets.read(webhook) == [new]


async def test_concurrent_rotations_and_ends_leave_one_without_an_end(
    stores: Stores, clock: RedisClock, secrets: SigningSecrets, webhook: str
) -> None:
    """Each is one step. In whatever order, the newest has no end, five are the most, and all of them sign."""
    for wave in range(6):
        known = await secrets.read(webhook)
        clock.ahead_ms += HOUR_MS // 3
        calls: list[Coroutine[Any, Any, object]] = [
            secrets.add(webhook, f"whsec_{wave}{number}", overlap_ms=overlap_ms)
            for number, overlap_ms in enumerate((HOUR_MS, 0, HOUR_MS, 2 * HOUR_MS, HOUR_MS, HOUR_MS, HOUR_MS))
        ]
        calls += [secrets.end(webhook, each.id) for each in known]
        random.shuffle(calls)
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(each, list | bool | TooManySecrets | NewestSecret) for each in results)

        found = await secrets.read(webhook)
        assert [each.ends_at_ms is None for each in found] == [True] + [False] * (len(found) - 1)
        assert 1 <= len(found) <= MOST_SECRETS
        assert len({each.id for each in found}) == len({each.text for each in found}) == len(found)
        assert await taken(stores, clock, webhook, claim=wave) == tuple(each.text for each in found)


async def test_a_process_of_the_release_before_signs_with_the_newest_hmac_secret(
    stores: Stores, secrets: SigningSecrets, webhook: str
) -> None:
    def its_secret() -> bytes | None:
        found: bytes | None = stores.direct.hget(keyspace.api_key(webhook), "signing_secret")
        return found

    [first] = await texts(secrets, webhook)
    assert its_secret() == first.encode()
    newest, _ = await secrets.add(webhook, "whsec_b", overlap_ms=HOUR_MS)
    assert its_secret() == b"whsec_b"
    await secrets.add(webhook, "whsk_c", overlap_ms=HOUR_MS)
    assert its_secret() == b"whsec_b"
    await secrets.end(webhook, newest.id)
    assert its_secret() == first.encode()
    await secrets.add(webhook, "whsk_d", overlap_ms=0)
    assert its_secret() is None
    # And if it then stores one, as it did for API keys, that is none of ours.
    stores.direct.hset(keyspace.api_key(webhook), "signing_secret", "whsec_theirs")
    assert await texts(secrets, webhook) == ["whsk_d"]


async def test_secrets_end_with_a_native_channel(stores: Stores, webhook: str) -> None:
    await stores.signing_secrets.add(webhook, "whsec_b", overlap_ms=HOUR_MS)
    found = await stores.account_channels.read(webhook)
    assert found is not None

    await stores.account_channels.delete(found)

    assert not stores.direct.exists(keyspace.api_key(webhook))
    with pytest.raises(KeyRevoked):
        await stores.signing_secrets.add(webhook, "whsec_c", overlap_ms=0)
