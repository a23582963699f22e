"""The policy of a native webhook, in Redis: made with its channel, and taken with each batch."""

import json

import pytest

from shared.model.channels import Kind
from shared.model.webhooks import Disabled, DisabledFor, Format, Method, WebhookPolicy
from shared.store import keyspace
from shared.store.batches import Batches, TakenBatch
from shared.store.queues import QueueLimits
from shared.store.webhook_policies import policy_of, stored
from tests.store.native import HOOK, create
from tests.store.stores import EDGE, Stores

POLICY = WebhookPolicy(method=Method.PUT, format=Format.PELION, timeout_s=3, max_batch=2)
OTHER = WebhookPolicy(backoff_s=(1, 2), rate_per_s=7, secret_headers=("x-token",))


@pytest.mark.parametrize(
    "policy",
    [WebhookPolicy(), POLICY, OTHER],
)
def test_a_policy_is_read_as_it_was_stored(policy: WebhookPolicy) -> None:
    assert policy_of(stored(policy)) == policy


@pytest.mark.parametrize("text", [None, b""])
def test_a_webhook_of_an_api_key_has_no_policy(text: bytes | None) -> None:
    assert policy_of(text) is None


def test_other_releases_may_have_written_fewer_fields_or_more() -> None:
    text = json.dumps({"timeout_s": 4, "of_a_later_release": [1]}).encode()

    assert policy_of(text) == WebhookPolicy(timeout_s=4)


LATER_RELEASE = [
    ({"method": "PATCH", "format": "avro", "timeout_s": 4}, WebhookPolicy(timeout_s=4)),
    ({"format": "pelion", "max_batch": None, "max_body_bytes": None, "rate_per_s": 0}, None),
    ({"format": "pelion"}, WebhookPolicy(format=Format.PELION)),
    ({}, WebhookPolicy()),
]


@pytest.mark.parametrize(("written", "read"), LATER_RELEASE)
async def test_what_a_later_release_has_written_breaks_nothing(
    stores: Stores, written: dict[str, object], read: WebhookPolicy | None
) -> None:
    """Neither an attempt nor a list that the webhook is in."""
    channel = await create(stores, kind=Kind.WEBHOOK)
    await stores.queued(channel, 2)
    of_later = {"policy": json.dumps(written), "disabled": "of-later", "disabled_since_ms": 7}
    stores.direct.hset(keyspace.channel(channel), mapping=of_later)

    shown = await stores.account_channels.read(channel)
    assert shown is not None
    assert shown.disabled == Disabled(7, DisabledFor.FAILED)
    assert await stores.account_channels.resume(channel)
    batch = await taken(stores, channel)

    assert 1 <= len(batch.notifications) <= 2
    if read is not None:
        assert shown.policy == batch.policy == read


async def taken(stores: Stores, channel: str) -> TakenBatch:
    lease = await stores.leases.claim_unheld(channel, owner=f"{EDGE}/1")
    batch = await Batches(stores.calls, limits=QueueLimits()).take(lease, count=100, size_bytes=10_000)
    assert isinstance(batch, TakenBatch)
    return batch


async def test_a_native_webhook_is_made_with_its_policy(stores: Stores) -> None:
    channel = await create(stores, kind=Kind.WEBHOOK, policy=POLICY)
    await stores.queued(channel, 1)

    made = await stores.account_channels.read(channel)
    assert made is not None
    assert made.policy == POLICY
    assert (await taken(stores, channel)).policy == POLICY


async def test_a_change_takes_effect_with_the_next_batch(stores: Stores) -> None:
    channel = await create(stores, kind=Kind.WEBHOOK)
    await stores.queued(channel, 1)
    before = await stores.account_channels.read(channel)
    assert before is not None
    assert before.policy == WebhookPolicy()

    await stores.account_channels.change_webhook(before, lambda _: (HOOK, POLICY))

    assert (await taken(stores, channel)).policy == POLICY


async def test_a_native_webhook_of_an_older_release_has_the_defaults(stores: Stores) -> None:
    """It is no webhook of an API key, which would be deleted when it fails for a day."""
    channel = await create(stores, kind=Kind.WEBHOOK)
    stores.direct.hdel(keyspace.channel(channel), "policy")
    await stores.queued(channel, 2)

    batch = await taken(stores, channel)

    assert batch.policy == WebhookPolicy()
    assert len(batch.notifications) == 1


async def test_a_webhook_of_an_api_key_has_none(stores: Stores) -> None:
    key, _ = await stores.api_key()
    await stores.channels.put_webhook(stores.account_id, key.id, HOOK, serialization=b"")
    await stores.queued(key.id, 1)

    assert (await taken(stores, key.id)).policy is None
