"""Sessions of dead edges: dropped with the first round after the heartbeat, and only those."""

import pytest

from services.expiry_reaper.reaper import Reaper
from shared.model.api_keys import new_id
from shared.model.bindings import Topic
from shared.model.sessions import Dialect, Session, SessionBinding
from shared.store import keyspace
from shared.store.replicas import Heartbeat
from tests.expiry_reaper.conftest import HEARTBEAT_TTL_S, run_round
from tests.store.routing import table_of
from tests.store.stores import EDGE, OTHER_EDGE, Stores

TTL_MS = round(HEARTBEAT_TTL_S * 1000)


async def put_session(stores: Stores, instance: str) -> Session:
    session = Session(
        id=new_id(),
        dialect=Dialect.KAZOO,
        account_id=stores.account_id,
        owner=f"{instance}/1",
        source="192.0.2.1",
        destination="edge-1",
        connected_at_ms=1,
    )
    await stores.sessions.put(session, [SessionBinding(stores.account_id, "orders.*", Topic("orders.*"))])
    return session


def make_steady(stores: Stores, *, for_ms: int = TTL_MS) -> None:
    """As if rounds had followed each other for so long."""
    now_ms = stores.now_ms()
    stores.direct.hset(
        keyspace.REAPER_ROUND, mapping={"ended_ms": now_ms, "steady_since_ms": now_ms - for_ms, "until_ms": 0}
    )


async def test_sessions_of_a_dead_edge_go_and_those_of_a_live_one_stay(
    stores: Stores, reaper: Reaper
) -> None:
    dead = [await put_session(stores, EDGE) for _ in range(120)]
    living = await put_session(stores, OTHER_EDGE)
    stores.kill(EDGE, before_ms=TTL_MS)
    await Heartbeat(stores.calls, instance=OTHER_EDGE, ttl_ms=60_000).beat()
    make_steady(stores)

    done = await run_round(reaper)

    assert done.sessions_dropped == len(dead)
    assert not [each for each in dead if await stores.sessions.is_known(each.id)]
    assert await stores.sessions.is_known(living.id)
    assert set((await table_of(stores.routing, stores.account_id)).sessions) == {living.id}
    assert not stores.direct.exists(keyspace.held_sessions(EDGE))
    assert (await run_round(reaper)).sessions_dropped == 0


async def test_after_an_outage_of_redis_edges_have_time_to_beat_again(stores: Stores, reaper: Reaper) -> None:
    """No round could run in the outage: that is how the reaper knows."""
    session = await put_session(stores, EDGE)
    stores.kill(EDGE, before_ms=10 * TTL_MS)
    make_steady(stores)
    stores.direct.hset(keyspace.REAPER_ROUND, "ended_ms", stores.now_ms() - 2 * TTL_MS)

    assert (await run_round(reaper)).sessions_dropped == 0
    assert await stores.sessions.is_known(session.id)
    make_steady(stores)
    assert (await run_round(reaper)).sessions_dropped == 1


@pytest.mark.parametrize("crash_after", [1, 2])
async def test_a_session_of_an_edge_that_died_while_it_wrote_it_goes(
    stores: Stores, reaper: Reaper, monkeypatch: pytest.MonkeyPatch, crash_after: int
) -> None:
    """The edge notes that it holds the session, and then writes it and its bindings."""
    commands = 0
    command = stores.calls.command

    def until_the_crash(*arguments: str) -> object:
        nonlocal commands
        if arguments[0] in ("SADD", "HSET"):
            commands += 1
            if commands > crash_after:
                raise ConnectionError
        return command(*arguments)

    with monkeypatch.context() as crash:
        crash.setattr(stores.calls, "command", until_the_crash)
        with pytest.raises(ConnectionError):
            await put_session(stores, EDGE)
    stores.kill(EDGE, before_ms=TTL_MS)
    make_steady(stores)

    assert (await run_round(reaper)).sessions_dropped == 1
    assert stores.direct.keys("*:session") == []
    assert not stores.direct.exists(keyspace.held_sessions(EDGE))


async def test_a_frozen_edge_does_not_hide_dead_ones_for_long(stores: Stores, reaper: Reaper) -> None:
    """One whose last heartbeat seemed old is live; those behind it wait for the next round."""
    await put_session(stores, EDGE)
    stores.kill("edge-0/b00t", before_ms=2 * TTL_MS)
    stores.direct.set(keyspace.heartbeat("edge-0/b00t"), "1", px=60_000)
    stores.kill(EDGE, before_ms=TTL_MS)
    make_steady(stores)
    # The reconciliation would find it without the index.
    stores.direct.hset(keyspace.REAPER_NOTES, "walk_began_ms", stores.now_ms())

    assert (await run_round(reaper)).sessions_dropped == 0
    await Heartbeat(stores.calls, instance="edge-0/b00t", ttl_ms=60_000).beat()
    assert (await run_round(reaper)).sessions_dropped == 1
