"""Sessions: records, bindings, queues and pushes."""

import asyncio
from collections.abc import Set
from dataclasses import replace

from shared.model.api_keys import new_id
from shared.model.bindings import Topic
from shared.model.events import Event
from shared.model.sessions import EVERY_ACCOUNT, Dialect, Pushed, Session, SessionBinding
from shared.store import keyspace
from shared.store.replicas import Heartbeat
from tests.harness.overheard import Overheard
from tests.store.routing import table_of
from tests.store.stores import EDGE, NOW_MS, OTHER_EDGE, Stores, events

TTL_MS = 60_000


def a_session(stores: Stores, *, owner: str = f"{EDGE}/1") -> Session:
    return Session(
        id=new_id(),
        dialect=Dialect.KAZOO,
        account_id=stores.account_id,
        owner=owner,
        source="192.0.2.1",
        destination="edge-1",
        connected_at_ms=NOW_MS,
    )


def topic(account: str, pattern: str) -> SessionBinding:
    return SessionBinding(account, pattern, Topic(pattern))


async def live(stores: Stores, instance: str = EDGE) -> None:
    await Heartbeat(stores.calls, instance=instance, ttl_ms=TTL_MS).beat()


async def listeners(stores: Stores, account: str, name: str = "orders.new") -> Set[str]:
    routes = await table_of(stores.routing, account)
    return routes.sessions_for(Event("1", name, b"1"), None)


async def append(stores: Stores, session_id: str, account_id: str, these: list[Event]) -> int:
    reply = await stores.sessions.begin_append(session_id, account_id, these)
    return stores.sessions.end_append(reply, count=len(these))


async def test_session_is_found_while_its_edge_is_live(stores: Stores) -> None:
    session = replace(a_session(stores), bindings=("orders.*", "x,\ny"), name="mine", metadata=b'{"a":1}')
    await stores.sessions.put(session, [topic(stores.account_id, "orders.*")])
    assert await stores.sessions.find(session.id) is None
    assert await stores.sessions.of_account(stores.account_id) == []

    await live(stores)

    assert await stores.sessions.find(session.id) == session
    assert await stores.sessions.of_account(stores.account_id) == [session]
    assert await stores.sessions.of_account(new_id()) == []


async def test_sessions_that_their_own_edge_does_not_hold_are_dropped(stores: Stores) -> None:
    """Redis was restored from a copy in which they were open: their edge is live, so no reaper drops them."""
    held, ended, elsewhere = a_session(stores), a_session(stores), a_session(stores, owner=f"{OTHER_EDGE}/1")
    for session in (held, ended, elsewhere):
        await stores.sessions.put(session, [topic(stores.account_id, "orders.*")])

    assert await stores.sessions.drop_unheld(EDGE, is_held={held.id}.__contains__) == 1

    assert await listeners(stores, stores.account_id) == {held.id, elsewhere.id}
    assert not await stores.sessions.is_known(ended.id)
    assert await stores.sessions.drop_unheld(EDGE, is_held={held.id}.__contains__) == 0


async def test_bindings_are_replaced_in_the_routing_tables(stores: Stores) -> None:
    session, other = a_session(stores), new_id()
    account = stores.account_id
    await stores.sessions.put(session, [topic(account, "orders.*"), topic(other, "orders.#")])
    assert await listeners(stores, account) == await listeners(stores, other) == {session.id}
    assert await listeners(stores, account, "audit") == set()

    await stores.sessions.put(session, [topic(other, "orders.#")])
    assert await listeners(stores, account) == set()
    assert await listeners(stores, other) == {session.id}


async def test_session_may_want_events_of_every_account(stores: Stores) -> None:
    session = a_session(stores)
    await stores.sessions.put(session, [topic(EVERY_ACCOUNT, "orders.*")])

    assert await listeners(stores, keyspace.EVERY) == {session.id}
    assert await listeners(stores, stores.account_id) == set()


async def test_drop_leaves_nothing(stores: Stores) -> None:
    session, other = a_session(stores), new_id()
    await stores.sessions.put(session, [topic(other, "a.*"), topic(EVERY_ACCOUNT, "b.*")])
    await append(stores, session.id, other, events(1))

    await stores.sessions.drop(session)

    assert await listeners(stores, other, "a.b") == await listeners(stores, keyspace.EVERY, "b.c") == set()
    assert [name for name in stores.direct.scan_iter() if session.id.encode() in name] == []
    assert stores.direct.exists(keyspace.sessions(stores.account_id)) == 0


async def test_append_wakes_the_edge_and_take_empties_the_queue(stores: Stores, overheard: Overheard) -> None:
    session = a_session(stores)
    await stores.sessions.put(session, [])

    result = await append(stores, session.id, "of-account", events(1, 2, 3))

    assert result == 3
    assert overheard.all() == [(EDGE, session.id.encode())]
    taken = await stores.sessions.take(session)
    assert taken is not None
    assert [(n.event_id, n.account) for n in taken] == [(str(i), "of-account") for i in (1, 2, 3)]
    assert await stores.sessions.take(session) == []


async def test_full_queue_drops_the_newest(stores: Stores) -> None:
    session = a_session(stores)
    await stores.sessions.put(session, [])
    await append(stores, session.id, "a", events(*range(498)))

    assert await append(stores, session.id, "a", events(498, 499, 500)) == 2

    taken = await stores.sessions.take(session)
    assert taken is not None
    assert [n.event_id for n in taken] == [str(i) for i in range(500)]


async def test_queue_is_full_after_a_number_of_bytes(stores: Stores) -> None:
    session = a_session(stores)
    await stores.sessions.put(session, [])
    for _ in range(2):
        large = events(*range(10), size_bytes=200 * 1024)

        assert await append(stores, session.id, "a", large) == 5, "1 MiB"
        assert await append(stores, session.id, "a", events(11, size_bytes=200 * 1024)) == 0
        assert await append(stores, session.id, "a", events(12)) == 1, "there is room for a small one"

        assert len(await stores.sessions.take(session) or ()) == 6, "an empty queue has room again"


async def test_append_to_an_unknown_session(stores: Stores, overheard: Overheard) -> None:
    assert await append(stores, new_id(), "a", events(1)) == 0
    assert overheard.all() == []


async def test_take_of_an_unknown_session_or_by_another_owner(stores: Stores) -> None:
    session = a_session(stores)
    assert await stores.sessions.take(session) is None
    await stores.sessions.put(session, [])
    assert await stores.sessions.take(replace(session, owner=f"{OTHER_EDGE}/1")) is None


async def test_push_returns_when_the_edge_has_taken_it(stores: Stores) -> None:
    session = a_session(stores)
    await stores.sessions.put(session, [])
    pushing = asyncio.create_task(stores.sessions.push(session.id, b'{"a": 1}'))

    taken: list[tuple[str, bytes]] = []
    while not taken:
        taken = await stores.sessions.pushes(session.id)
    [(push_id, data)] = taken
    assert data == b'{"a": 1}'
    assert not pushing.done()
    await stores.sessions.mark_pushed(session.id, push_id)

    assert await pushing is Pushed.TAKEN


async def test_push_to_a_session_that_ends(stores: Stores) -> None:
    session = a_session(stores)
    assert await stores.sessions.push(session.id, b"1") is Pushed.GONE

    await stores.sessions.put(session, [])
    pushing = asyncio.create_task(stores.sessions.push(session.id, b"1"))
    while not await stores.sessions.pushes(session.id):
        pass
    await stores.sessions.drop(session)
    assert await pushing is Pushed.GONE


async def test_push_that_is_not_taken_is_withdrawn(stores: Stores) -> None:
    session = a_session(stores)
    await stores.sessions.put(session, [])

    assert await stores.sessions.push(session.id, b"1") is Pushed.UNANSWERED
    assert await stores.sessions.pushes(session.id) == []
