"""Rounds of the reaper: expiry of channels and notifications, when they are due."""

import pytest

from services.expiry_reaper.reaper import Reaper
from shared.model.callbacks import Callback
from shared.model.channels import Kind, instance_of
from shared.store import keyspace
from shared.store.due_channels import DueChannels
from shared.store.replicas import Heartbeat
from shared.store.rounds import ROUND_TTL_MS, RoundLost
from tests.expiry_reaper.conftest import DAY_MS, MARGIN_MS, PULL_EXPIRY_MS, MakeReaper, run_round
from tests.store.routing import table_of
from tests.store.stores import EDGE, Stores

CALLBACK = Callback("https://example.com/", {})


async def live(stores: Stores, owner: str) -> None:
    await Heartbeat(stores.calls, instance=instance_of(owner), ttl_ms=60_000).beat()


async def webhook(stores: Stores) -> str:
    key, _ = await stores.api_key()
    await stores.channels.put_webhook(stores.account_id, key.id, CALLBACK, serialization=b"")
    return key.id


async def pull_channel(stores: Stores) -> str:
    key, _ = await stores.api_key()
    await stores.channels.create(stores.account_id, key.id, kind=Kind.PULL)
    return key.id


async def test_idle_channels_expire_and_leased_ones_stay(stores: Stores, reaper: Reaper) -> None:
    idle, leased = await stores.channel(), await stores.channel()
    lease = await stores.claim(leased)
    await live(stores, lease.owner)
    for channel in (idle, leased):
        stores.age(channel, by_ms=DAY_MS)

    done = await run_round(reaper)

    assert done.visited.expired == [idle]
    assert done.visited.channels == 2
    assert (await table_of(stores.routing, stores.account_id)).channels == {leased}


async def test_nothing_expires_early(stores: Stores, reaper: Reaper) -> None:
    channel = await stores.channel()
    stores.age(channel, by_ms=DAY_MS - MARGIN_MS)

    done = await run_round(reaper)

    assert (done.visited.channels, done.visited.expired) == (1, [])


async def test_a_channel_is_visited_when_it_is_due_and_not_before(stores: Stores, reaper: Reaper) -> None:
    """Once after its creation; then nothing costs anything until a day later."""
    channel = await stores.channel()
    created_ms = stores.now_ms()

    assert (await run_round(reaper)).visited.channels == 1
    due_ms = stores.due_ms(channel)
    assert due_ms is not None
    assert created_ms + DAY_MS - MARGIN_MS < due_ms <= created_ms + DAY_MS
    await stores.queued(channel, 3)
    lease = await stores.claim(channel)
    await stores.leases.release(lease)
    assert stores.due_ms(channel) == due_ms, "a publish, a claim and a release write no due time"
    assert (await run_round(reaper)).visited.channels == 0


async def test_a_lease_released_after_a_visit_expires_in_time(stores: Stores, reaper: Reaper) -> None:
    channel = await stores.channel()
    lease = await stores.claim(channel)
    await live(stores, lease.owner)
    await run_round(reaper)

    await stores.leases.release(lease)
    stores.age(channel, by_ms=DAY_MS)

    assert (await run_round(reaper)).visited.expired == [channel]


async def test_the_channels_of_a_dead_edge_expire_by_its_last_heartbeat(
    stores: Stores, reaper: Reaper
) -> None:
    channel = await stores.channel()
    lease = await stores.claim(channel)
    await live(stores, lease.owner)
    await run_round(reaper)

    stores.age(channel, by_ms=DAY_MS + MARGIN_MS)
    stores.kill(EDGE, before_ms=DAY_MS - MARGIN_MS)
    assert (await run_round(reaper)).visited.expired == []
    stores.age(channel, by_ms=2 * MARGIN_MS)
    stores.kill(EDGE, before_ms=DAY_MS + MARGIN_MS)
    assert (await run_round(reaper)).visited.expired == [channel]


async def test_old_notifications_are_dropped_from_unused_queues(stores: Stores, reaper: Reaper) -> None:
    channel = await stores.channel()
    begin_ms = stores.now_ms() - DAY_MS
    kept = f"{begin_ms + MARGIN_MS}-0"
    stores.put_at(channel, f"{begin_ms - 2}-0", f"{begin_ms - 1}-0", kept)

    done = await run_round(reaper)

    assert done.visited.dropped == 2
    assert stores.entries(channel) == [kept]
    assert stores.due_ms(channel) == begin_ms + MARGIN_MS + DAY_MS, "then the next one is too old"


async def test_an_idle_webhook_does_not_expire_by_default(stores: Stores, reaper: Reaper) -> None:
    channel = await webhook(stores)
    stores.age(channel, by_ms=1000 * DAY_MS)

    assert (await run_round(reaper)).visited.expired == []


async def test_an_idle_webhook_expires_if_so_configured(stores: Stores, make_reaper: MakeReaper) -> None:
    reaper = make_reaper({Kind.WEBSOCKET: DAY_MS, Kind.WEBHOOK: DAY_MS})
    idle, busy = await webhook(stores), await webhook(stores)
    for channel in (idle, busy):
        stores.age(channel, by_ms=2 * DAY_MS)
    stores.put_at(busy, f"{stores.now_ms() - DAY_MS + MARGIN_MS}-0")
    stores.direct.xtrim(keyspace.queue(busy), maxlen=0, approximate=False)

    assert (await run_round(reaper)).visited.expired == [idle]
    assert len(stores.direct.smembers(keyspace.WEBHOOKS)) == 1
    stores.direct.hset(keyspace.channel(busy), "tail", f"{stores.now_ms() - DAY_MS}-0")
    stores.age(busy, by_ms=DAY_MS)
    assert (await run_round(reaper)).visited.expired == [busy]
    assert stores.direct.smembers(keyspace.WEBHOOKS) == set()


async def test_a_round_visits_all_of_many_channels(stores: Stores, reaper: Reaper) -> None:
    channels = {await stores.channel() for _ in range(1100)}
    for channel in channels:
        stores.age(channel, by_ms=DAY_MS)

    done = await run_round(reaper)

    assert set(done.visited.expired) == channels


async def test_a_channel_without_polls_expires_after_ten_minutes(stores: Stores, reaper: Reaper) -> None:
    channel = await pull_channel(stores)
    lease = await stores.leases.claim_poll(channel, owner=f"{EDGE}/1")
    await stores.leases.release(lease)

    stores.age(channel, by_ms=PULL_EXPIRY_MS - MARGIN_MS)
    assert (await run_round(reaper)).visited.expired == []
    stores.age(channel, by_ms=MARGIN_MS)
    assert (await run_round(reaper)).visited.expired == [channel]


async def test_a_channel_with_an_open_poll_does_not_expire(stores: Stores, reaper: Reaper) -> None:
    channel = await pull_channel(stores)
    await stores.leases.claim_poll(channel, owner=f"{EDGE}/1")
    await live(stores, f"{EDGE}/1")
    stores.age(channel, by_ms=DAY_MS)

    assert (await run_round(reaper)).visited.expired == []


async def test_the_due_time_of_a_channel_that_is_gone_goes_at_a_second_look(
    stores: Stores, reaper: Reaper
) -> None:
    channel = await stores.channel()
    await stores.delete_channel(channel)

    assert (await run_round(reaper)).visited.channels == 1
    assert stores.due_ms(channel) is not None, "it may be under creation"
    stores.age(channel, by_ms=MARGIN_MS)
    assert (await run_round(reaper)).visited.channels == 1
    assert stores.due_ms(channel) is None


async def test_what_a_creation_makes_due_during_a_visit_is_kept(
    stores: Stores, reaper: Reaper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The visit saw a WebSocket channel and would come again in a day; long polls have ten minutes."""
    channel = await stores.channel()
    plan = DueChannels.plan

    async def late(due_channels: DueChannels, *arguments: object, **times: int) -> None:
        monkeypatch.undo()
        await stores.delete_channel(channel)
        await stores.channels.create(stores.account_id, channel, kind=Kind.PULL)
        await plan(due_channels, *arguments, **times)  # type: ignore[arg-type]

    monkeypatch.setattr(DueChannels, "plan", late)
    await run_round(reaper)

    due_ms = stores.due_ms(channel)
    assert due_ms is not None
    assert due_ms <= stores.now_ms() + PULL_EXPIRY_MS


async def test_a_shorter_expiry_makes_everything_due(stores: Stores, make_reaper: MakeReaper) -> None:
    channel = await stores.channel()
    await run_round(make_reaper())
    stores.age(channel, by_ms=2 * PULL_EXPIRY_MS)
    assert (await run_round(make_reaper())).visited.channels == 0

    shorter = make_reaper({Kind.WEBSOCKET: PULL_EXPIRY_MS})

    # The first one makes everything due, and may have begun a moment too early to visit it.
    expired = [*(await run_round(shorter)).visited.expired, *(await run_round(shorter)).visited.expired]
    assert expired == [channel]
    assert (await run_round(shorter)).visited.channels == 0


async def test_one_round_runs_at_a_time(stores: Stores, make_reaper: MakeReaper) -> None:
    one, other = make_reaper(), make_reaper()
    begun = await stores.rounds.begin("killed", longest_gap_ms=10_000)
    assert begun is not None

    assert await one.round() is None
    assert await other.round() is None
    left_ms = int(stores.direct.hget(keyspace.REAPER_ROUND, "until_ms")) - stores.now_ms()
    assert left_ms <= ROUND_TTL_MS == 10_000, "a killed one blocks the others for seconds"

    stores.direct.hset(keyspace.REAPER_ROUND, "until_ms", stores.now_ms())
    assert await other.round() is not None
    assert await one.round() is not None, "a round that ends makes room at once"


async def test_a_round_that_took_too_long_stops(stores: Stores) -> None:
    await stores.rounds.begin("slow", longest_gap_ms=10_000)
    await stores.rounds.renew("slow")
    stores.direct.hset(keyspace.REAPER_ROUND, "until_ms", stores.now_ms())
    await stores.rounds.begin("next", longest_gap_ms=10_000)
    before = await stores.rounds.notes()

    with pytest.raises(RoundLost):
        await stores.rounds.renew("slow")
    await stores.rounds.end("slow")
    with pytest.raises(RoundLost):
        await stores.rounds.note("slow", {"walk_after": "far"})
    assert await stores.rounds.notes() == before, "it moves no other round's walk"
    await stores.rounds.note("next", {"walk_after": "near"})
    assert (await stores.rounds.notes())["walk_after"] == "near"
    assert await stores.rounds.begin("third", longest_gap_ms=10_000) is None, "it ends no other round"


async def test_the_oldest_pending_notification_by_kind(stores: Stores, reaper: Reaper) -> None:
    """Separately for channels with a live lease, whose notifications should not wait."""
    begin_ms = stores.now_ms() - DAY_MS + MARGIN_MS

    def put(channel: str, *at_ms: int) -> None:
        stores.put_at(channel, *(f"{begin_ms + at}-0" for at in at_ms))

    offline, dead_lease, leased, acked = [await stores.channel() for _ in range(4)]
    for channel, owner in ((dead_lease, "edge-9/gone/1"), (leased, f"{EDGE}/1"), (acked, f"{EDGE}/2")):
        await stores.claim(channel, owner)
    await live(stores, f"{EDGE}/1")
    put(offline, 5, 6)
    put(dead_lease, 3, 7)
    put(leased, 8)
    put(acked, 1)
    stores.direct.xtrim(keyspace.queue(acked), maxlen=0, approximate=False)
    put(await webhook(stores), 1)

    done = await run_round(reaper)

    nothing = {(kind, connected): done.now_ms for kind in Kind for connected in (True, False)}
    assert done.oldest_pending_ms == nothing | {
        (Kind.WEBSOCKET, False): begin_ms + 3,
        (Kind.WEBSOCKET, True): begin_ms + 8,
        (Kind.WEBHOOK, False): begin_ms + 1,
    }
    assert (await run_round(reaper)).oldest_pending_ms is None, "each second round measures"


async def test_a_full_redis_stops_neither_expiry_nor_its_notes(stores: Stores, reaper: Reaper) -> None:
    idle = await stores.channel()
    stores.age(idle, by_ms=DAY_MS)
    old = await stores.channel()
    stores.put_at(old, f"{stores.now_ms() - DAY_MS - 1}-0")
    stores.direct.config_set("maxmemory", 1)
    try:
        done = await run_round(reaper)
    finally:
        stores.direct.config_set("maxmemory", 0)

    assert done.visited.expired == [idle]
    assert done.visited.dropped == 1
    assert stores.direct.hget(keyspace.REAPER_NOTES, "lifetime") == str(DAY_MS).encode()


async def test_a_broken_channel_does_not_keep_others_from_expiring(stores: Stores, reaper: Reaper) -> None:
    broken, idle = await stores.channel(), await stores.channel()
    stores.direct.set(keyspace.queue(broken), "no stream")
    for channel in (broken, idle):
        stores.age(channel, by_ms=DAY_MS)

    assert (await run_round(reaper)).visited.expired == [idle]
    due_ms = stores.due_ms(broken)
    assert due_ms is not None
    assert stores.now_ms() < due_ms <= stores.now_ms() + MARGIN_MS, "it is tried again, and not all the time"


@pytest.mark.parametrize(
    ("kind", "expiry_ms", "return_ms"),
    [(Kind.WEBSOCKET, DAY_MS, 3600 * 1000), (Kind.PULL, PULL_EXPIRY_MS, PULL_EXPIRY_MS)],
)
async def test_after_an_absence_of_redis_clients_have_time_to_connect_again(
    stores: Stores, reaper: Reaper, kind: Kind, expiry_ms: int, return_ms: int
) -> None:
    """Redis was away for days, or was restored from a copy of days ago: no client could use a channel."""
    channel = await (stores.channel() if kind is Kind.WEBSOCKET else pull_channel(stores))
    await run_round(reaper)
    stores.age(channel, by_ms=3 * expiry_ms)
    stores.direct.hincrby(keyspace.REAPER_ROUND, "ended_ms", -3 * expiry_ms)

    assert (await run_round(reaper)).visited.expired == []
    due_ms = stores.due_ms(channel)
    assert due_ms is not None
    assert due_ms == pytest.approx(stores.now_ms() + return_ms, abs=MARGIN_MS)

    stores.direct.hincrby(keyspace.REAPER_ROUND, "back_since_ms", -return_ms)
    await stores.due_channels.bring_forward(channel)
    assert (await run_round(reaper)).visited.expired == [channel]


async def test_a_short_gap_between_rounds_delays_no_expiry(stores: Stores, reaper: Reaper) -> None:
    """A reaper was killed, and another one took over."""
    channel = await stores.channel()
    await run_round(reaper)
    stores.age(channel, by_ms=DAY_MS)
    stores.direct.hincrby(keyspace.REAPER_ROUND, "ended_ms", -MARGIN_MS)

    assert (await run_round(reaper)).visited.expired == [channel]


async def test_a_clock_of_redis_that_was_set_back_blocks_no_round(stores: Stores, reaper: Reaper) -> None:
    later_ms = stores.now_ms() + DAY_MS
    times = {"until_ms": later_ms, "ended_ms": later_ms, "steady_since_ms": later_ms, "token": "killed"}
    stores.direct.hset(keyspace.REAPER_ROUND, mapping=times)

    await run_round(reaper)

    assert int(stores.direct.hget(keyspace.REAPER_ROUND, "steady_since_ms")) < later_ms
