"""A session that is registered again, because Redis may have lost it, while it changes or ends."""

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest

from services.socket_edge.blackhole_socket import BlackholeSocket
from services.socket_edge.cognism_socket import CognismSocket
from services.socket_edge.edge import Edge
from services.socket_edge.session_socket import SessionSocket
from shared.model.errors import StoreUnavailable
from shared.model.events import Notification
from shared.model.sessions import Session, SessionBinding
from tests.harness.waiting import wait_until
from tests.socket_edge.conftest import PING_INTERVAL_S, edge_of, scope_of
from tests.store.stores import Stores


class SlowSessions:
    """Sessions of which the one named `first` is written when the test says so; notes what was done."""

    def __init__(self) -> None:
        self.may_write_first = asyncio.Event()
        self.may_write_first.set()
        self.begun = 0
        self.done: list[tuple[str, str]] = []

    async def put(self, session: Session, _: Sequence[SessionBinding]) -> None:
        self.begun += 1
        if session.name == "first":
            await self.may_write_first.wait()
        self.done.append(("put", session.name))

    async def drop(self, session: Session) -> None:
        self.done.append(("drop", session.name))

    async def take(self, session: Session) -> list[Any]:
        self.done.append(("take", session.name))
        return []


@pytest.fixture
def slow() -> SlowSessions:
    return SlowSessions()


@pytest.fixture
async def edge(stores: Stores, slow: SlowSessions) -> Edge:
    stores.sessions = cast(Any, slow)
    return edge_of(stores)


class ClientConnection:
    """A connection on which nothing can be written before the handshake is accepted."""

    def __init__(self) -> None:
        self.is_accepted = False
        self.pings = 0

    def write(self, _: Sequence[bytes], ping: bytes | None) -> None:
        if not self.is_accepted:
            raise OSError("the handshake has no response yet")
        self.pings += ping is not None


@pytest.fixture
def connection() -> ClientConnection:
    return ClientConnection()


@pytest.fixture
async def socket(edge: Edge, connection: ClientConnection) -> SessionSocket:
    """A socket whose session is registered under the name `first`."""
    made = BlackholeSocket(
        edge,
        address="192.0.2.1",
        principal=None,
        scope=scope_of(write=connection.write),
        send=cast(Any, None),
    )
    edge.hold(made)
    await made.register([], account_id="account", name="first")
    return made


async def test_a_change_that_comes_meanwhile_is_written_last(
    socket: SessionSocket, slow: SlowSessions
) -> None:
    slow.may_write_first.clear()
    recovering = asyncio.create_task(socket.recover())
    await wait_until(lambda: slow.begun == 2)
    await socket.register([], account_id="account", name="second")
    slow.may_write_first.set()
    await recovering

    assert slow.done[-1] == ("put", "second")


async def test_a_session_that_ends_meanwhile_is_dropped_after_it_was_written(
    edge: Edge, socket: SessionSocket, slow: SlowSessions
) -> None:
    slow.may_write_first.clear()
    recovering = asyncio.create_task(socket.recover())
    await wait_until(lambda: slow.begun == 2)
    await edge.drop(socket)
    slow.may_write_first.set()
    await recovering

    assert slow.done[-2:] == [("put", "first"), ("drop", "first")]


async def test_a_session_is_dropped_with_its_socket(
    edge: Edge, socket: SessionSocket, slow: SlowSessions
) -> None:
    assert edge.registry.count_at("192.0.2.1") == 1

    await edge.drop(socket)

    assert slow.done == [("put", "first"), ("drop", "first")]
    assert edge.registry.count_at("192.0.2.1") == 0


async def test_a_wakeup_that_comes_while_redis_fails_is_not_lost(
    socket: SessionSocket, slow: SlowSessions
) -> None:
    """Its notification would wait for the sweep, up to a minute."""
    fails, takes = asyncio.Event(), 0

    async def take(session: Session) -> list[Any]:
        nonlocal takes
        takes += 1
        if takes == 1:
            await fails.wait()
            raise StoreUnavailable(why="ConnectionError")
        return []

    slow.take = take  # type: ignore[method-assign]
    socket.on_accepted()
    await wait_until(lambda: takes == 1)
    socket.wake()
    fails.set()
    await wait_until(lambda: takes == 2)


async def test_a_socket_that_ended_is_not_woken(
    edge: Edge, socket: SessionSocket, slow: SlowSessions
) -> None:
    await edge.drop(socket)

    socket.on_accepted()
    await asyncio.sleep(0)

    assert ("take", "first") not in slow.done


async def test_a_handshake_longer_than_the_ping_interval_is_followed_by_pings(
    socket: SessionSocket, connection: ClientConnection
) -> None:
    now_s = asyncio.get_running_loop().time
    await socket.check(now_s() + 2 * PING_INTERVAL_S)
    connection.is_accepted = True
    socket.on_accepted()

    await socket.check(now_s() + 2 * PING_INTERVAL_S)

    assert connection.pings == 1


@pytest.mark.parametrize("data", [b'{ "type" : "job-join"}', b"[1,2]", b'"text"', b"null"])
def test_a_trigger_gets_the_data_as_it_was_posted(data: bytes) -> None:
    notification = Notification(entry_id="1-0", event_id="1", topic="trigger.job-join", data=data)

    assert CognismSocket.frames(cast(Any, None), notification) == [data]


class ManyFrames(BlackholeSocket):
    """Each event has 100 frames."""

    def frames(self, notification: Notification) -> list[bytes]:
        return [b"%s %d" % (notification.event_id.encode(), number) for number in range(100)]


async def test_a_burst_of_events_leaves_turns_to_others(edge: Edge, slow: SlowSessions) -> None:
    """A thousand events, each of which a hundred bindings match: every frame arrives, in order."""
    texts, writes, turns = list[bytes](), 0, 0

    def write(frames: Sequence[bytes], _: bytes | None) -> None:
        nonlocal writes
        writes += 1
        texts.extend(frames)

    socket = ManyFrames(
        edge,
        address="192.0.2.1",
        principal=None,
        scope=scope_of(write=write, unread_bytes=lambda: 0),
        send=cast(Any, None),
    )
    burst = [Notification(entry_id="1-0", event_id=f"e{n}", topic="t", data=b"1") for n in range(1000)]

    async def take(_: Session) -> list[Notification]:
        return [burst.pop(0) for _ in range(len(burst))]

    edge.stores.sessions.take = take  # type: ignore[method-assign,assignment]
    edge.hold(socket)
    await socket.register([], account_id="account")
    socket.on_accepted()

    async def count() -> None:
        nonlocal turns
        while len(texts) < 100_000:
            await asyncio.sleep(0)
            turns += 1

    await asyncio.wait_for(count(), 60)
    assert texts == [b"e%d %d" % (event, number) for event in range(1000) for number in range(100)]
    assert turns >= 990
    assert writes == 1000
    await wait_until(lambda: not edge.reading_places._readers)
