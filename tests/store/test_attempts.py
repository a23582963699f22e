"""Attempts of a webhook: bounded in number, bytes and age; by outcome and event; an older release's too."""

from collections.abc import Awaitable, Callable
from functools import partial

import orjson
import pytest

from shared.model.callbacks import Callback
from shared.model.channels import Kind
from shared.model.deliveries import EXCERPT_BYTES, AttemptOutcome, Delivery, exchange
from shared.model.quotas import Quotas
from shared.store import keyspace, stored_bytes
from shared.store.attempt_bytes import AttemptBytes
from shared.store.attempts import Attempts
from shared.store.batches import AfterFailure, Batches, TakenBatch
from shared.store.queues import QueueLimits
from shared.store.quotas import AccountQuotas
from shared.store.recount import Recount
from tests.harness.waiting import wait_until
from tests.store.native import create
from tests.store.stores import EDGE, NOW_MS, RedisClock, Stores

DAY_MS = 24 * 3600 * 1000
HOUR_MS = 3600 * 1000
MOST_BYTES = 512 * 1024
LARGE = exchange({"x-a": "b" * 1000}, b"\xff" * 5000, b"\xff" * EXCERPT_BYTES)
LARGE_BYTES = len(orjson.dumps(LARGE))

Make = Callable[..., Awaitable[None]]


@pytest.fixture
def grown() -> list[int]:
    """By how many bytes each attempt has let the attempts of its account grow."""
    return []


@pytest.fixture
def batches(stores: Stores, clock: RedisClock, grown: list[int]) -> Batches:
    return Batches(
        clock.calls_of(stores), limits=QueueLimits(), on_attempts=lambda _, size: grown.append(size)
    )


@pytest.fixture
def attempts(stores: Stores, clock: RedisClock) -> Attempts:
    return Attempts(clock.calls_of(stores))


@pytest.fixture
async def channel(stores: Stores) -> str:
    """The webhook of an API key, with something to send."""
    key, _ = await stores.api_key()
    there = Callback("https://example.com/")
    await stores.channels.put_webhook(stores.account_id, key.id, there, serialization=b"")
    await stores.queued(key.id, 1)
    return key.id


def delivery(number: int, *, status: int = 200, large: bool = False) -> Delivery:
    """The attempt of two events, of which the next attempt has one too."""
    return Delivery(
        NOW_MS,
        f"msg_{number}",
        2,
        status,
        "",
        3,
        url="https://example.com/",
        method="POST",
        events=(f"e-{number}", f"e-{number + 1}"),
        exchange=LARGE if large else None,
    )


@pytest.fixture
def make(stores: Stores, batches: Batches, channel: str) -> Make:
    """Makes an attempt: one that succeeds, or else one that fails."""

    async def make(number: int, *, fails: bool = False, large: bool = False) -> None:
        lease = await stores.leases.claim_unheld(channel, owner=f"{EDGE}/1")
        if not fails:
            # An entry that is not there: an attempt is kept also when nothing is acked.
            await batches.ack(lease, until="1-1", delivery=delivery(number, large=large))
            return
        taken = await batches.take(lease, count=1, size_bytes=100)
        assert isinstance(taken, TakenBatch)
        of_failure = delivery(number, status=500, large=large)
        after, _ = await batches.fail(
            lease, taken=taken, delivery=of_failure, backoff_ms=0, expiry_ms=30 * DAY_MS
        )
        assert after is AfterFailure.RETRY

    return make


async def size(stores: Stores, channel: str) -> int:
    """As a recount finds it, without the queue."""
    return int(
        await stores.calls.script(
            "queue_size", [f"{{{channel}}}:a", f"{{{channel}}}:b", keyspace.attempts(channel)]
        )
    )


def numbers(found: list[Delivery]) -> list[int]:
    return [int(each.webhook_id.removeprefix("msg_")) for each in found]


async def pages(attempts: Attempts, channel: str, *, count: int, **filters: object) -> list[Delivery]:
    found: list[Delivery] = []
    after: str | None = ""
    while after is not None:
        page, after = await attempts.page(channel, count=count, after=after, **filters)  # type: ignore[arg-type]
        assert len(page) == count if after is not None else len(page) <= count
        found += page
    return found


async def test_an_attempt_is_read_as_it_was_made(attempts: Attempts, make: Make, channel: str) -> None:
    assert await attempts.page(channel) == ([], None)
    await make(0, fails=True, large=True)
    await make(1)

    (second, first), more = await attempts.page(channel)

    assert more is None
    assert (second.outcome, second.status, second.events) == (AttemptOutcome.SUCCESS, 200, ("e-1", "e-2"))
    assert (second.url, second.method, second.took_ms) == ("https://example.com/", "POST", 3)
    assert (first.outcome, first.status, first.next_attempt_ms) == (AttemptOutcome.FAILURE, 500, NOW_MS)
    assert (first.exchange, second.next_attempt_ms) == (None, None)
    whole = await attempts.one(channel, first.id)
    assert whole is not None
    assert whole.exchange == LARGE
    assert await attempts.one(channel, f"{NOW_MS}-77") is None
    for odd in ("x", "", "1", "-", "1-x", "١-٢", " 1-1", "9" * 20 + "-0"):
        with pytest.raises(ValueError, match="not the id"):
            await attempts.one(channel, odd)


async def test_the_last_200_are_kept(stores: Stores, attempts: Attempts, make: Make, channel: str) -> None:
    for number in range(230):
        await make(number)

    assert numbers((await attempts.page(channel))[0]) == list(range(229, 29, -1))
    assert 200 <= stores.direct.xlen(keyspace.attempts(channel)) < 204
    assert stores.direct.pttl(keyspace.attempts(channel)) > 6 * DAY_MS


async def test_older_ones_go_also_when_newer_ones_come(
    stores: Stores, attempts: Attempts, make: Make, channel: str, clock: RedisClock
) -> None:
    for number in range(40):
        clock.ahead_ms = number * HOUR_MS
        await make(number)
    assert len((await attempts.page(channel))[0]) == 40

    clock.ahead_ms = 7 * DAY_MS + 20 * HOUR_MS

    assert numbers((await attempts.page(channel))[0]) == list(range(39, 19, -1)), "shown no longer"
    for number in range(40, 52):
        await make(number)
    assert stores.direct.xlen(keyspace.attempts(channel)) == 32, "and gone"
    assert numbers((await attempts.page(channel))[0]) == list(range(51, 19, -1))


async def test_failures_of_one_channel_take_no_more_than_512_kib(
    stores: Stores, attempts: Attempts, make: Make, channel: str
) -> None:
    for number in range(150):
        await make(number)
    for number in range(150, 300):
        await make(number, fails=True, large=True)

    assert MOST_BYTES - 2 * LARGE_BYTES < await size(stores, channel) <= MOST_BYTES
    used = stores.direct.memory_usage(keyspace.attempts(channel), samples=0)
    assert used < 1.3 * MOST_BYTES, "what is counted is about what Redis uses"
    found = numbers((await attempts.page(channel))[0])
    assert found == list(range(299, 299 - len(found), -1))


async def test_growth_adds_up_to_what_is_stored(
    stores: Stores, make: Make, channel: str, clock: RedisClock, grown: list[int]
) -> None:
    for number in range(300):
        await make(number, fails=number % 3 == 0, large=number % 5 == 0)
        assert sum(grown) <= MOST_BYTES + 10 * LARGE_BYTES
    assert sum(grown) == await size(stores, channel)
    clock.ahead_ms = 8 * DAY_MS
    for number in range(50):
        await make(number)
        assert sum(grown) == await size(stores, channel)
    assert sum(grown) < 50 * 500, "the older ones have gone"


async def test_by_event_and_outcome_in_pages(attempts: Attempts, make: Make, channel: str) -> None:
    for number in range(120):
        await make(number, fails=number % 3 == 0)
    failures = [number for number in range(119, -1, -1) if number % 3 == 0]

    for count in (1, 7, 24, 199):
        every = await pages(attempts, channel, count=count)
        assert numbers(every) == list(range(119, -1, -1))
        failed = await pages(attempts, channel, count=count, outcome=AttemptOutcome.FAILURE)
        assert numbers(failed) == failures
        both = await pages(attempts, channel, count=count, event_id="e-60")
        assert numbers(both) == [60, 59]
        one = await pages(attempts, channel, count=count, event_id="e-60", outcome=AttemptOutcome.FAILURE)
        assert numbers(one) == [60]
    for part in ("e-6", "-60", "e-60e-61", "E-60"):
        expected = [6, 5] if part == "e-6" else []
        assert numbers(await pages(attempts, channel, count=10, event_id=part)) == expected
    with pytest.raises(ValueError, match="not the id"):
        await attempts.page(channel, after="+")


async def test_a_page_reads_a_bounded_amount(
    stores: Stores, attempts: Attempts, make: Make, channel: str
) -> None:
    for number in range(200):
        await make(number)
    stores.direct.config_resetstat()

    await attempts.page(channel, count=10)
    await attempts.page(channel, event_id="none of them")

    calls = stores.direct.info("commandstats")
    assert calls["cmdstat_xrevrange"]["calls"] <= 1 + 10


async def test_a_clock_that_goes_back_loses_no_attempt(
    attempts: Attempts, make: Make, channel: str, clock: RedisClock
) -> None:
    for number, ahead_ms in enumerate((HOUR_MS, 0, 0, HOUR_MS, HOUR_MS + 1)):
        clock.ahead_ms = ahead_ms
        await make(number)

    assert numbers(await pages(attempts, channel, count=2)) == [4, 3, 2, 1, 0]


async def test_those_of_an_older_release_are_read(
    stores: Stores, attempts: Attempts, make: Make, channel: str
) -> None:
    def stored(number: int, status: int | None) -> bytes:
        old = {"at_ms": NOW_MS - 10_000 + number, "webhook_id": f"msg_{number}", "count": 1, "status": status}
        return orjson.dumps({**old, "error": "", "took_ms": 3, "next_attempt_ms": None})

    name = keyspace.deliveries(channel)
    stores.direct.lpush(name, *(stored(n, (200, 500, 204, None)[n % 4]) for n in range(8)))
    stores.direct.expire(name, 60)
    for number in range(8, 12):
        await make(number)

    for count in (3, 4, 200):
        assert numbers(await pages(attempts, channel, count=count)) == list(range(11, -1, -1))
        failed = await pages(attempts, channel, count=count, outcome=AttemptOutcome.FAILURE)
        assert numbers(failed) == [7, 5, 3, 1]
    assert await pages(attempts, channel, count=3, event_id="e-1") == []
    [oldest] = (await pages(attempts, channel, count=5))[-1:]
    found = await attempts.one(channel, oldest.id)
    assert found == oldest
    assert (oldest.url, oldest.events, oldest.exchange) == ("", (), None)


async def test_the_end_of_a_native_webhook_ends_them_and_that_of_a_key_does_not(
    stores: Stores, batches: Batches, make: Make, channel: str
) -> None:
    native = await create(stores, kind=Kind.WEBHOOK, callback=Callback("https://example.com/"))
    lease = await stores.leases.claim_unheld(native, owner=f"{EDGE}/1")
    await batches.ack(lease, until="1-1", delivery=delivery(0))
    await make(0)
    found = await stores.account_channels.read(native)
    assert found is not None
    assert stores.direct.exists(keyspace.attempts(native))

    await stores.account_channels.delete(found)
    await stores.channels.delete(stores.account_id, channel, kind=Kind.WEBHOOK)

    assert not stores.direct.exists(keyspace.attempts(native))
    assert stores.direct.exists(keyspace.attempts(channel))
    stores.direct.unlink(keyspace.attempts(channel))


async def test_a_revoked_key_leaves_none(stores: Stores, make: Make, channel: str) -> None:
    await make(0)

    await stores.calls.script("key_free", keyspace.leftovers(channel))

    assert not stores.direct.exists(keyspace.attempts(channel))


async def test_a_recount_finds_them_in_the_account(stores: Stores, make: Make, channel: str) -> None:
    before = await Recount(stores.calls).run(stores.account_id)
    for number in range(100):
        await make(number, fails=True, large=True)

    after = await Recount(stores.calls).run(stores.account_id)

    assert before is not None
    assert after is not None
    assert after - before == await size(stores, channel) > 300_000


async def test_an_account_without_room_is_known_and_so_is_one_that_has_some_again(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_bytes, "TICK_S", 0.01)
    monkeypatch.setattr(stored_bytes, "_SMALL_BYTES", 1)
    quotas = AccountQuotas(stores.calls, quotas=Quotas(stored_bytes=100_000))
    sums = AttemptBytes(stores.calls, quotas=quotas)
    assert sums.has_room(stores.account_id)
    sums.grew(stores.account_id, 0)
    sums.grew(stores.account_id, 60_000)
    await sums.report()
    assert sums.has_room(stores.account_id)
    sums.grew(stores.account_id, 60_000)

    await wait_until(lambda: not sums.has_room(stores.account_id))

    sums.grew(stores.account_id, -50_000)
    await wait_until(partial(sums.has_room, stores.account_id))
    assert int(stores.direct.hget(keyspace.usage(stores.account_id), "queues")) == 70_000
