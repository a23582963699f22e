"""When a native webhook's time is over, and what is given up then: also late, and after a crash of Redis."""

import pytest

from shared.model.webhooks import Format, WebhookPolicy
from shared.store import keyspace
from shared.store.batches import AfterFailure, Batches
from tests.store import test_native_failures
from tests.store.stores import RedisClock, Stores
from tests.store.test_native_failures import DAY_MS, claim, fail, taken, webhook

batches = test_native_failures.batches


@pytest.mark.parametrize(
    ("late_ms", "took_ms", "most"),
    [(0, 40_000, 3), (40_000, 5, 61), (40_000, 40_000, 3), (DAY_MS, 20_000, 4)],
    ids=["slow", "always late", "slow and late", "no dispatcher for days"],
)
@pytest.mark.parametrize("ends", [AfterFailure.EXHAUSTED, AfterFailure.DISABLED])
async def test_a_webhook_that_is_slow_or_always_late_has_an_end_too(
    stores: Stores,
    batches: Batches,
    clock: RedisClock,
    ends: AfterFailure,
    late_ms: int,
    took_ms: int,
    most: int,
) -> None:
    """Its attempts last longer than half of the time that it has, or no dispatcher has a place in time.

    What it was late does not count.
    """
    give_up_s, disable_s = (60, 10**6) if ends is AfterFailure.EXHAUSTED else (10**6, 60)
    channel = await webhook(stores, WebhookPolicy(give_up_after_s=give_up_s, disable_after_s=disable_s))
    await stores.queued(channel, 1)
    made = 0
    while made < most:
        lease = await claim(stores, channel)
        batch = await taken(batches, lease)
        clock.ahead_ms += took_ms
        after = await fail(stores, batches, channel, batch=batch, took_ms=took_ms)
        made += 1
        if after.result is ends:
            break
        assert after.result is AfterFailure.RETRY
        clock.ahead_ms += 1000 + late_ms

    assert after.result is ends
    assert made > 1


@pytest.mark.parametrize("comes_back", ["another in its place", "one that was acked, before it"])
async def test_only_what_was_sent_is_given_up(
    stores: Stores, batches: Batches, clock: RedisClock, comes_back: str
) -> None:
    """Redis has lost its last writes during the attempt, or has brought back what was acked."""
    channel = await webhook(stores, WebhookPolicy(give_up_after_s=1, format=Format.CLOUDEVENTS_BATCH))
    await stores.queued(channel, 3)
    await fail(stores, batches, channel)
    clock.ahead_ms = 1500
    batch = await taken(batches, await claim(stores, channel))
    queue = keyspace.queue(channel)
    (first, fields), (second, _), (last, _) = stores.direct.xrange(queue)
    stores.direct.delete(queue)
    kept = [first, second] if comes_back == "another in its place" else [b"1-1", first, second, last]
    for entry in kept:
        stores.direct.xadd(queue, fields, id=entry)

    after = await fail(stores, batches, channel, batch=batch)

    assert after.result is AfterFailure.RETRY
    assert [entry.encode() for entry in stores.entries(channel)] == kept
