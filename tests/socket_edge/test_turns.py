"""Turns by account: another account's event waits for a lot of those that came before it, never for all."""

import asyncio
from typing import Any, cast

import pytest

from services.socket_edge.held import HeldConnection
from services.socket_edge.turns import SMALL, ReadingPlaces, WakeupTurns
from services.socket_edge.wakeup_reader import WakeupReader
from shared.model.events import Notification
from shared.store.inline_entries import InlineEntries
from tests.harness.waiting import wait_until
from tests.socket_edge.conftest import Client, Clock, edge_of
from tests.store.stores import Stores

BUSY, QUIET = "busy", "quiet"


class Connection:
    """What the turns read of a connection."""

    def __init__(self, account_id: str, order: list["Connection"]) -> None:
        self.account_id = account_id
        self.is_held = True
        self.loop: Any = self
        self.got: list[str] = []
        self.wakeups = 0
        self._order = order

    def wake(self) -> None:
        self.wakeups += 1
        self._order.append(self)

    def deliver_inline(self, entries: InlineEntries) -> None:
        self.got += [each.entry_id for each in entries.notifications]
        self._order.append(self)


def held(connection: Connection) -> HeldConnection:
    return cast(HeldConnection, connection)


def entries(number: int, size_bytes: int = 10) -> InlineEntries:
    notification = Notification(entry_id=f"{number}-0", event_id="e", topic="t", data=b"x" * size_bytes)
    return InlineEntries("channel", "owner", "1", "", b"", [notification])


@pytest.fixture
def order() -> list[Connection]:
    """The connections in the order in which they were served."""
    return []


async def test_a_quiet_account_is_served_second(order: list[Connection]) -> None:
    turns, busy, quiet = WakeupTurns(), Connection(BUSY, order), Connection(QUIET, order)
    for number in range(10_000):
        turns.deliver(held(busy), entries(number))
    turns.deliver(held(quiet), entries(1))
    await wait_until(lambda: not turns)

    assert order.index(quiet) == 1
    assert busy.got == [f"{number}-0" for number in range(10_000)]


async def test_other_work_has_its_turn_between_lots(
    order: list[Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lot ends after 4 ms of a clock by which each delivery takes 1 ms."""
    now_s = 0.0

    def perf_counter() -> float:
        nonlocal now_s
        now_s += 0.001
        return now_s

    monkeypatch.setattr("services.socket_edge.turns.time.perf_counter", perf_counter)
    turns, busy = WakeupTurns(), Connection(BUSY, order)
    for number in range(100):
        turns.deliver(held(busy), entries(number))
    lots, served = list[int](), 0
    while turns:
        await asyncio.sleep(0)
        lots.append(len(order) - served)
        served = len(order)

    assert max(lots) <= 4
    assert served == 100


async def test_entries_that_take_too_much_memory_become_a_wakeup(order: list[Connection]) -> None:
    """The connection reads its queue then, so nothing is lost; and it is woken once."""
    turns, busy, quiet = WakeupTurns(), Connection(BUSY, order), Connection(QUIET, order)
    for number in range(2000):
        turns.deliver(held(busy), entries(number, size_bytes=32 * 1024))
    turns.deliver(held(quiet), entries(1, size_bytes=32 * 1024))

    assert len(turns) < 520
    assert turns._waiting_bytes <= 16 * 1024 * 1024
    await wait_until(lambda: not turns)
    assert (busy.wakeups, quiet.wakeups) == (1, 1)
    assert busy.got == [f"{number}-0" for number in range(len(busy.got))]
    assert (turns._waiting_bytes, turns._woken) == (0, set())


async def test_a_connection_that_has_ended_is_skipped(order: list[Connection]) -> None:
    turns, gone = WakeupTurns(), Connection(BUSY, order)
    turns.wake(held(gone))
    turns.deliver(held(Connection(QUIET, order)), entries(1))
    gone.is_held = False
    await wait_until(lambda: not turns)

    assert len(order) == 1


async def test_readers_take_their_places_in_turn_by_account(order: list[Connection]) -> None:
    places = ReadingPlaces(2)
    done: list[str] = []

    async def read(connection: Connection) -> None:
        if not places.take_free(held(connection)):
            await places.take(held(connection))
        await asyncio.sleep(0)
        done.append(connection.account_id)
        places.give_back(held(connection))

    readers = [asyncio.create_task(read(Connection(BUSY, order))) for _ in range(1000)]
    readers.append(asyncio.create_task(read(Connection(QUIET, order))))
    await asyncio.gather(*readers)

    # Third or fourth; on a slow machine the first readers may lose their places.
    assert done.index(QUIET) <= 10
    assert not places._readers
    assert not places._waiting


async def test_reads_of_a_primary_that_is_silent_hold_no_other_up(order: list[Connection]) -> None:
    places, silent = ReadingPlaces(2), [Connection(BUSY, order) for _ in range(20)]
    taken: list[Connection] = []

    async def take(connection: Connection) -> None:
        if not places.take_free(held(connection)):
            await places.take(held(connection))
        taken.append(connection)

    for connection in silent:
        asyncio.create_task(take(connection)).add_done_callback(lambda _: None)
    late = Connection(QUIET, order)
    await asyncio.wait_for(take(late), 10)

    assert taken.index(late) <= 10
    # Those that lost their places give back nothing.
    await wait_until(lambda: len(taken) == 21)
    for connection in (*silent, late):
        places.give_back(held(connection))
    assert not places._readers


async def test_a_reader_that_is_cancelled_keeps_no_place(order: list[Connection]) -> None:
    places, first, second, third = ReadingPlaces(1), *(Connection(BUSY, order) for _ in range(3))
    assert places.take_free(held(first))
    waiting = [asyncio.create_task(places.take(held(each))) for each in (second, third)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    places.give_back(held(first))
    await waiting[1]
    # Cancelled after its place was given to it, before it ran on.
    late = asyncio.create_task(places.take(held(first)))
    await asyncio.sleep(0)
    places.give_back(held(third))
    late.cancel()
    await asyncio.wait([*waiting, late])

    assert not places._readers
    assert places.take_free(held(second))


async def test_few_wakeups_are_handled_at_once(stores: Stores, order: list[Connection]) -> None:
    """No callback, no task: the hot path with few sockets is a call."""
    reader = WakeupReader(edge_of(stores))
    connections = {f"c{number}": Connection(BUSY, order) for number in range(SMALL + 1)}
    reader._registry.by_id.update({id: (held(each),) for id, each in connections.items()})

    reader.on_messages([name.encode() for name in list(connections)[:SMALL]])
    assert len(order) == SMALL
    reader.on_messages([name.encode() for name in connections])
    assert len(order) == SMALL
    await wait_until(lambda: len(order) == 2 * SMALL + 1)


async def test_a_backlog_is_read_in_shares_and_arrives_whole(stores: Stores, clock: Clock) -> None:
    """A read brings at most 128 notifications, and then another account's read may come."""
    channel = await stores.channel()
    for _ in range(5):
        await stores.queued(channel, 200)
    client = Client(stores, clock)
    socket = await client.opens(channel)
    socket._share = 1.0
    counts, taken = list[int](), list[HeldConnection]()
    deliver, take_free = socket.deliver, client.edge.reading_places.take_free

    def counted(batch: list[Notification]) -> str | None:
        counts.append(len(batch))
        return deliver(batch)

    def recorded(connection: HeldConnection) -> bool:
        taken.append(connection)
        return take_free(connection)

    socket.deliver = counted  # type: ignore[method-assign]
    client.edge.reading_places.take_free = recorded  # type: ignore[method-assign]
    socket.wake()
    await socket.loop.wait_idle()

    assert max(counts) == 128
    assert sum(counts) == 1000
    assert len(taken) >= len(counts)
    assert not client.edge.reading_places._readers
    await socket.loop.stop()
