"""Reconciliation: what it repairs, its rate, and that it goes on where a killed reaper stopped."""

import time

from services.expiry_reaper.reaper import Reaper
from shared.model.api_keys import new_id
from shared.store import keyspace
from tests.conftest import Measured
from tests.expiry_reaper.conftest import DAY_MS, MakeReaper, run_round
from tests.expiry_reaper.test_orphans import TTL_MS, make_steady, put_session
from tests.expiry_reaper.test_reaper import webhook
from tests.store.routing import table_of
from tests.store.stores import EDGE, Stores


async def walk(reaper: Reaper) -> int:
    """Rounds until a walk ends; how much it repaired."""
    repairs = 0
    for _ in range(100):
        walked = (await run_round(reaper)).walked
        repairs += walked.repairs
        if walked.is_complete:
            return repairs
    raise AssertionError("no walk has ended in 100 rounds")


def walk_again(stores: Stores) -> None:
    """As if the last walk began long ago."""
    stores.direct.hset(keyspace.REAPER_NOTES, "walk_began_ms", 0)


async def test_a_channel_without_a_due_time_is_found(stores: Stores, reaper: Reaper) -> None:
    """Of an earlier release, which has no mark of a walk either: the first round begins one."""
    channel = await stores.channel()
    stores.direct.delete(*keyspace.DUE)
    stores.age(channel, by_ms=DAY_MS)

    await walk(reaper)
    assert (await run_round(reaper)).visited.expired == [channel]

    lost = await stores.channel()
    await run_round(reaper)
    stores.direct.delete(*keyspace.DUE)
    assert (await run_round(reaper)).walked.channels == 0, "once a day"
    walk_again(stores)
    await walk(reaper)
    assert stores.due_ms(lost) is not None


async def test_missing_routing_entries_are_repaired(stores: Stores, reaper: Reaper) -> None:
    channel = await stores.channel()
    stores.direct.delete(keyspace.routing(stores.account_id))

    assert await walk(reaper) == 1

    routes = await table_of(stores.routing, stores.account_id)
    assert routes.channels == routes.api_keys == {channel}
    walk_again(stores)
    assert await walk(reaper) == 0


async def test_stale_routing_entries_are_removed(stores: Stores, reaper: Reaper) -> None:
    channel = await stores.channel()
    await stores.routing.put_bindings(stores.account_id, channel, b'[{"endpoint-name":"*"}]')
    gone = new_id()
    fields = (
        f"key:{gone}",
        f"bindings:{gone}",
        f"channel:{gone}:1",
        f"channel:{channel}:old",
        "session:gone",
    )
    for field in fields:
        stores.direct.hset(keyspace.routing(stores.account_id), field, "[]" if "bind" in field else "")

    assert await walk(reaper) == 4

    keys, channels, sessions = await stores.routing.entries(stores.account_id)
    assert (keys, [key for key, _ in channels], sessions) == ([channel], [channel], [])
    routes = await table_of(stores.routing, stores.account_id)
    assert set(routes.bindings) == {channel}


async def test_a_webhook_missing_from_the_dispatchers_set_is_added(stores: Stores, reaper: Reaper) -> None:
    channel = await webhook(stores)
    known = stores.direct.smembers(keyspace.WEBHOOKS)
    stores.direct.delete(keyspace.WEBHOOKS)

    assert await walk(reaper) == 1

    assert stores.direct.smembers(keyspace.WEBHOOKS) == known
    assert channel in str(known)


async def test_a_session_of_a_dead_edge_that_no_index_names_goes(stores: Stores, reaper: Reaper) -> None:
    session = await put_session(stores, EDGE)
    stores.direct.delete(keyspace.held_sessions(EDGE))
    make_steady(stores)

    await walk(reaper)

    assert not await stores.sessions.is_known(session.id)


async def test_old_instances_are_removed(stores: Stores, reaper: Reaper) -> None:
    """A day after the last channel that could expire by their last heartbeat."""
    stores.kill("a/1", before_ms=2 * DAY_MS - TTL_MS)
    stores.kill("a/2", before_ms=2 * DAY_MS + TTL_MS)

    await walk(reaper)

    assert stores.direct.zrange(keyspace.LAST_SEEN, 0, -1) == [b"a/1"]


async def test_a_walk_goes_on_where_a_killed_reaper_stopped(stores: Stores, make_reaper: MakeReaper) -> None:
    """Each reaper runs one round and is gone. Together they walk once, over many pages and a large table."""
    channels = {await stores.channel() for _ in range(400)}
    stores.direct.hset(
        keyspace.routing(stores.account_id), mapping={f"session:{new_id()}": "" for _ in range(300)}
    )
    stores.direct.delete(*keyspace.DUE)
    reached, rounds = 0, 0

    while rounds < 100:
        rounds += 1
        walked = (await run_round(make_reaper(every_s=0.01, reconcile_commands_per_s=2000))).walked
        reached += walked.channels
        if walked.is_complete:
            break

    assert rounds > 5, "a round does a part of the walk"
    assert len(channels) <= reached < 1.5 * len(channels), "none twice, apart from the lot that was cut short"
    assert (await stores.routing.entries(stores.account_id))[2] == []


async def test_a_walk_keeps_to_its_rate(
    stores: Stores, make_reaper: MakeReaper, record_property: Measured
) -> None:
    """Counted by Redis, with what scripts run."""
    rate, channels = 1000, 300
    for _ in range(channels):
        await stores.channel()
    reaper = make_reaper(every_s=60, reconcile_commands_per_s=rate)
    stores.direct.hset(keyspace.REAPER_NOTES, "walk_began_ms", stores.now_ms())
    # The visits of new channels are another matter.
    await run_round(reaper)
    walk_again(stores)

    stores.direct.config_resetstat()
    began_s = time.monotonic()
    walked = (await run_round(reaper)).walked
    took_s = time.monotonic() - began_s

    assert walked.is_complete
    assert walked.channels == channels
    stats = stores.direct.info("commandstats")
    commands = sum(each["calls"] for each in stats.values())
    record_property("Redis commands of a walk, for each channel", round(commands / channels, 1))
    record_property("Redis commands a second of a walk that may run 1000", round(commands / took_s))
    # The rest of the round is in the figure too.
    assert commands / took_s < 1.1 * rate
