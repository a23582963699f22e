"""Leases: the newest claim wins, and only the owner releases."""

import asyncio

import pytest

from shared.model.api_keys import new_id
from shared.model.channels import CloseReason, instance_of
from shared.model.errors import NoLongerOwner
from tests.store.stores import EDGE, OTHER_EDGE, Stores


async def test_first_claim_has_no_previous_owner(stores: Stores) -> None:
    channel = await stores.channel()

    claimed = await stores.leases.claim(channel, owner=f"{EDGE}/1")

    lease = claimed.lease
    assert (lease.channel, lease.owner, lease.previous) == (channel, f"{EDGE}/1", "")
    assert lease.generation
    assert (claimed.frame_limit_bytes, claimed.careful_until) == (None, "")
    assert stores.owner(channel) == f"{EDGE}/1"


async def test_newest_claim_wins_and_names_the_previous_owner(stores: Stores) -> None:
    channel = await stores.channel()
    await stores.claim(channel, f"{EDGE}/1")

    second = await stores.claim(channel, f"{OTHER_EDGE}/1")
    third = await stores.claim(channel, f"{EDGE}/2")

    assert second.previous == f"{EDGE}/1"
    assert third.previous == f"{OTHER_EDGE}/1"
    assert stores.owner(channel) == f"{EDGE}/2"


async def test_each_of_concurrent_claims_replaces_one_other(stores: Stores) -> None:
    channel = await stores.channel()

    leases = await asyncio.gather(*(stores.claim(channel, f"{EDGE}/{n}") for n in range(10)))

    followers = {lease.previous: lease.owner for lease in leases}
    assert len(followers) == 10, "each claim but the first has replaced exactly one other"
    assert (set(followers.values()) - set(followers)) == {stores.owner(channel)}


async def test_release(stores: Stores) -> None:
    channel = await stores.channel()
    lease = await stores.claim(channel)

    assert await stores.leases.release(lease) is True
    assert stores.owner(channel) is None
    assert await stores.leases.release(lease) is False


async def test_only_the_owner_releases(stores: Stores) -> None:
    channel = await stores.channel()
    old = await stores.claim(channel, f"{EDGE}/1")
    await stores.claim(channel, f"{EDGE}/2")

    assert await stores.leases.release(old) is False
    assert stores.owner(channel) == f"{EDGE}/2"


async def test_claim_without_a_channel_is_refused(stores: Stores) -> None:
    key, _ = await stores.api_key()

    with pytest.raises(NoLongerOwner) as raised:
        await stores.claim(key.id)

    assert raised.value.close_reason is CloseReason.NO_CHANNEL
    assert stores.owner(key.id) is None


async def test_claim_of_another_kind_is_refused(stores: Stores) -> None:
    channel = await stores.channel()
    stores.direct.hset(f"{{{channel}}}:channel", "kind", "webhook")

    with pytest.raises(NoLongerOwner) as raised:
        await stores.claim(channel)

    assert raised.value.close_reason is CloseReason.NO_CHANNEL


async def test_claim_without_a_key_is_refused(stores: Stores) -> None:
    with pytest.raises(NoLongerOwner) as raised:
        await stores.claim(new_id())

    assert raised.value.close_reason is CloseReason.KEY_REVOKED


async def test_leases_of_two_channels_are_independent(stores: Stores) -> None:
    first, second = await stores.channel(), await stores.channel()

    await stores.claim(first, f"{EDGE}/1")
    lease = await stores.claim(second, f"{EDGE}/2")

    assert lease.previous == ""
    assert stores.owner(first) == f"{EDGE}/1"


async def test_claim_returns_the_clients_frame_limit(stores: Stores) -> None:
    channel = await stores.channel()
    lease = await stores.claim(channel, f"{EDGE}/1")
    await stores.queues.refuse(lease, frame_limit_bytes=24_576, until="17-3", single_entry="")

    claimed = await stores.leases.claim(channel, owner=f"{EDGE}/2")

    assert (claimed.frame_limit_bytes, claimed.careful_until) == (24_576, "17-3")


def test_instance_of_an_owner() -> None:
    assert instance_of("edge-1/b00t/17") == "edge-1/b00t"
    assert instance_of("a/b/c/17") == "a/b/c"
