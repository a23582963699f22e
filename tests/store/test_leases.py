"""The newest claim wins; who was replaced is told; an old owner gives nothing back."""

import asyncio

import pytest

from shared.model.api_keys import new_id
from shared.model.channels import CloseReason, instance_of
from shared.model.errors import NoLongerOwner
from tests.store.stores import EDGE, NOW_MS, OTHER_EDGE, Stores


async def test_the_first_claim_replaces_nobody(stores: Stores) -> None:
    channel = await stores.channel()

    claimed = await stores.leases.claim(channel, owner=f"{EDGE}/1")

    lease = claimed.lease
    assert (lease.channel, lease.owner, lease.previous) == (channel, f"{EDGE}/1", "")
    assert lease.generation
    assert (claimed.frame_limit_bytes, claimed.careful_until) == (None, "")
    assert stores.owner(channel) == f"{EDGE}/1"


async def test_the_newest_claim_wins_and_tells_the_previous(stores: Stores) -> None:
    channel = await stores.channel()
    await stores.claim(channel, f"{EDGE}/1")

    second = await stores.claim(channel, f"{OTHER_EDGE}/1")
    third = await stores.claim(channel, f"{EDGE}/2")

    assert second.previous == f"{EDGE}/1"
    assert third.previous == f"{OTHER_EDGE}/1"
    assert stores.owner(channel) == f"{EDGE}/2"


async def test_claims_at_once_form_one_line(stores: Stores) -> None:
    channel = await stores.channel()

    leases = await asyncio.gather(*(stores.claim(channel, f"{EDGE}/{n}") for n in range(10)))

    followers = {lease.previous: lease.owner for lease in leases}
    assert len(followers) == 10, "each claim but the first has replaced exactly one other"
    assert (set(followers.values()) - set(followers)) == {stores.owner(channel)}


async def test_a_lease_is_given_back(stores: Stores) -> None:
    channel = await stores.channel()
    lease = await stores.claim(channel)

    assert await stores.leases.release(lease, now_ms=NOW_MS) is True
    assert stores.owner(channel) is None
    assert await stores.leases.release(lease, now_ms=NOW_MS) is False


async def test_an_old_owner_does_not_give_the_new_ones_lease_back(stores: Stores) -> None:
    channel = await stores.channel()
    old = await stores.claim(channel, f"{EDGE}/1")
    await stores.claim(channel, f"{EDGE}/2")

    assert await stores.leases.release(old, now_ms=NOW_MS) is False
    assert stores.owner(channel) == f"{EDGE}/2"


async def test_there_is_nothing_to_claim_without_a_channel(stores: Stores) -> None:
    key, _ = await stores.api_key()

    with pytest.raises(NoLongerOwner) as raised:
        await stores.claim(key.id)

    assert raised.value.close_reason is CloseReason.NO_CHANNEL
    assert stores.owner(key.id) is None


async def test_a_channel_of_another_kind_is_no_sockets(stores: Stores) -> None:
    channel = await stores.channel()
    stores.direct.hset(f"{{{channel}}}:channel", "kind", "webhook")

    with pytest.raises(NoLongerOwner) as raised:
        await stores.claim(channel)

    assert raised.value.close_reason is CloseReason.NO_CHANNEL


async def test_there_is_nothing_to_claim_without_a_key(stores: Stores) -> None:
    with pytest.raises(NoLongerOwner) as raised:
        await stores.claim(new_id())

    assert raised.value.close_reason is CloseReason.KEY_REVOKED


async def test_leases_of_two_channels_have_nothing_to_do_with_each_other(stores: Stores) -> None:
    first, second = await stores.channel(), await stores.channel()

    await stores.claim(first, f"{EDGE}/1")
    lease = await stores.claim(second, f"{EDGE}/2")

    assert lease.previous == ""
    assert stores.owner(first) == f"{EDGE}/1"


async def test_a_claim_tells_what_earlier_sockets_learnt_of_the_client(stores: Stores) -> None:
    channel = await stores.channel()
    lease = await stores.claim(channel, f"{EDGE}/1")
    await stores.queues.refuse(lease, frame_limit_bytes=24_576, until="17-3", single_entry="")

    claimed = await stores.leases.claim(channel, owner=f"{EDGE}/2")

    assert (claimed.frame_limit_bytes, claimed.careful_until) == (24_576, "17-3")


def test_an_owner_names_the_instance_that_hears_its_wakeups() -> None:
    assert instance_of("edge-1/b00t/17") == "edge-1/b00t"
    assert instance_of("a/b/c/17") == "a/b/c"
