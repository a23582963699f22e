"""What a webhook's notification costs Redis, and how attempts are numbered without a read."""

import pytest

from shared.model.callbacks import Callback
from shared.model.channels import Lease
from shared.model.deliveries import Delivery
from shared.store import keyspace
from shared.store.batches import Acked, Batches, TakenBatch
from shared.store.queues import QueueLimits
from tests.store.stores import EDGE, NOW_MS, Stores

NOT_COUNTED = ("cmdstat_evalsha", "cmdstat_eval", "cmdstat_info", "cmdstat_script")


@pytest.fixture
def batches(stores: Stores) -> Batches:
    return Batches(stores.calls, limits=QueueLimits())


@pytest.fixture
async def lease(stores: Stores) -> Lease:
    """Of a webhook channel."""
    key, _ = await stores.api_key()
    await stores.channels.put_webhook(
        stores.account_id, key.id, Callback("https://example.com/"), serialization=b""
    )
    return await stores.leases.claim_unheld(key.id, owner=f"{EDGE}/1")


async def deliver(stores: Stores, batches: Batches, lease: Lease, entry: str) -> None:
    taken = await batches.take(lease, count=10_000, size_bytes=10_000_000)
    assert isinstance(taken, TakenBatch)
    delivery = Delivery(at_ms=NOW_MS, webhook_id="msg_1", count=1, status=200, error="", took_ms=5)
    acked = await batches.ack(lease, until=entry, delivery=delivery)
    assert acked == Acked(1, is_empty=True)


def executed(stores: Stores) -> int:
    """The commands that Redis has executed, those of scripts too."""
    stats = stores.direct.info("commandstats")
    calls = {name.partition("|")[0]: int(values["calls"]) for name, values in stats.items()}
    return sum(count for name, count in calls.items() if name not in NOT_COUNTED)


async def test_an_accepted_notification_takes_nine_commands(
    stores: Stores, batches: Batches, lease: Lease
) -> None:
    """Now and then more, when old attempts go."""
    found = []
    for _ in range(4):
        [entry] = await stores.queued(lease.channel, 1)
        before = executed(stores)
        await deliver(stores, batches, lease, entry)
        found.append(executed(stores) - before)

    assert min(found) <= 9


async def test_attempts_are_counted_on_when_an_older_release_has_written_the_last(
    stores: Stores, batches: Batches, lease: Lease
) -> None:
    """It leaves no number in the channel, or there is none yet."""
    heads = []
    for lacks in (False, True, False):
        if lacks:
            stores.direct.hdel(keyspace.channel(lease.channel), "attempts")
        [entry] = await stores.queued(lease.channel, 1)
        await deliver(stores, batches, lease, entry)
        [(_, values)] = stores.direct.xrevrange(keyspace.attempts(lease.channel), count=1)
        heads.append([int(word) for word in values[b"head"].split()[:3]])

    assert [number for number, _, _ in heads] == [1, 2, 3]
    sizes = [size for _, _, size in heads]
    assert [before for _, before, _ in heads] == [0, sizes[0], sizes[0] + sizes[1]]
