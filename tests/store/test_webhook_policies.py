"""The policy of a native webhook, in Redis: made with its channel, and taken with each batch."""

import json

import pytest

from shared.model.channels import Kind
from shared.model.webhooks import Format, Method, WebhookPolicy
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


async def test_a_webhook_of_an_api_key_has_none(stores: Stores) -> None:
    key, _ = await stores.api_key()
    await stores.channels.put_webhook(stores.account_id, key.id, HOOK, serialization=b"")
    await stores.queued(key.id, 1)

    assert (await taken(stores, key.id)).policy is None
