"""However many sockets of an edge have something to do at once, no turn of the event loop is long."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, cast

import pytest

from services.socket_edge.leased_socket import LeasedSocket
from services.socket_edge.wakeup_reader import WakeupReader
from shared.delivery.acks import AckScheduler
from shared.model.channels import Lease
from shared.model.events import Notification
from shared.store.leases import Claimed
from shared.store.queues import BEGINNING, Batch
from tests.conftest import Measured
from tests.harness.waiting import wait_until
from tests.socket_edge.conftest import LongestTurn, edge_of, pending, scope_of
from tests.store.stores import EDGE, Stores

SOCKETS = 5000
READERS = 500
BACKLOG = 1000
LONGEST_TURN_S = 0.05
"""Of CPU time, on a slow machine. The aim is 10 ms."""


class Queues:
    """The queues of all channels hold the same, and each ack is noted."""

    def __init__(self, held: Sequence[Notification] = ()) -> None:
        self._held = held
        self.acked: set[str] = set()

    async def read(self, _: Lease, *, after: str, count: int, **__: Any) -> Batch:
        # In Redis there is time for others.
        await asyncio.sleep(0)
        begin = int(after.partition("-")[0])
        batch = list(self._held[begin : begin + count])
        tail = self._held[-1].entry_id if self._held else BEGINNING
        return Batch(batch, more=begin + count < len(self._held), tail=tail)

    async def ack_until(self, lease: Lease, *, until: str) -> int:
        return await self.begin_ack(lease, until=until)

    def begin_ack(self, lease: Lease, *, until: str) -> asyncio.Future[int]:
        self.acked.add(lease.channel)
        acking = asyncio.get_running_loop().create_future()
        acking.set_result(1)
        return acking


class Sockets:
    """Many sockets of one account on an edge, and what their clients got."""

    def __init__(self, stores: Stores, queues: Queues, count: int) -> None:
        stores.queues = queues  # type: ignore[assignment]
        self.edge = edge_of(stores)
        self.edge.acks = AckScheduler()
        self.pings: dict[LeasedSocket, bytes] = {}
        self.frames = 0
        self.all = [self._opened(number) for number in range(count)]

    def _opened(self, number: int) -> LeasedSocket:
        lease = Lease(channel=f"{number:032x}", generation="1", owner=f"{EDGE}/{number}", previous="")

        def write(texts: Sequence[bytes], ping: bytes | None) -> None:
            self.frames += len(texts)
            if ping is not None:
                self.pings[socket] = ping

        scope = scope_of(write=write)
        socket = LeasedSocket(self.edge, Claimed(lease, None, ""), scope=scope, send=cast(Any, None))
        self.edge.registry.add(socket)
        return socket

    async def read_all(self) -> None:
        for socket in self.all:
            socket.wake()
        await wait_until(lambda: all(socket.loop._task is None for socket in self.all), within_s=60)

    async def stop(self) -> None:
        for socket in self.all:
            await socket.loop.stop()


@pytest.mark.usefixtures("no_garbage_collection")
async def test_an_event_for_5000_sockets(stores: Stores, record_property: Measured) -> None:
    """Their wakeups come together, then the pings are due, and then all acks."""
    sockets = Sockets(stores, queues := Queues(), SOCKETS)
    await sockets.read_all()
    sockets.edge.ping_spacing_s = 0.2
    now_s = asyncio.get_running_loop().time()
    for socket in sockets.all:
        # Just pinged: the pings behind the event wait for the timer.
        socket._pinged_s = now_s
    reader = WakeupReader(sockets.edge)

    turns = LongestTurn()
    # Of one read from the subscription there are at most some hundreds.
    wakeups = list(inline_wakeups(sockets.all))
    for begin in range(0, SOCKETS, 250):
        reader.on_messages(wakeups[begin : begin + 250])
        await asyncio.sleep(0)
    await wait_until(lambda: sockets.frames == SOCKETS, within_s=60)
    delivering_s, turns.seconds = turns.seconds, 0.0
    await wait_until(lambda: len(sockets.pings) == SOCKETS, within_s=60)
    pinging_s = turns.seconds
    turns.stop()

    for socket in sockets.all:
        socket.on_pong(sockets.pings[socket])
    turns = LongestTurn()
    await wait_until(lambda: len(queues.acked) == SOCKETS, within_s=60)
    turns.stop()
    await sockets.stop()

    figures = {"delivering": delivering_s, "pinging": pinging_s, "acking": turns.seconds}
    record_property(f"longest turn, {SOCKETS} sockets", figures_of(figures))
    assert max(figures.values()) < LONGEST_TURN_S


@pytest.mark.usefixtures("no_garbage_collection")
async def test_500_sockets_with_a_backlog(stores: Stores, record_property: Measured) -> None:
    """As after a reconnect storm: their windows are wide open."""
    sockets = Sockets(stores, Queues(pending(*range(1, BACKLOG + 1))), READERS)
    for socket in sockets.all:
        socket._share = 1.0
    turns = LongestTurn()
    await sockets.read_all()
    turns.stop()

    assert {socket._written.entry for socket in sockets.all} == {f"{BACKLOG}-0"}
    record_property(
        f"longest turn, {READERS} backlogs of {BACKLOG:,}", figures_of({"delivering": turns.seconds})
    )
    assert turns.seconds < LONGEST_TURN_S
    await sockets.stop()


def inline_wakeups(sockets: Iterable[LeasedSocket]) -> Iterable[bytes]:
    """One entry for each, as its append publishes it (queue_append.lua)."""
    for socket in sockets:
        lease = socket.lease
        channel = (lease.channel, lease.owner, lease.generation, "", "")
        entry = ("1-0", "event", "device.registrations", '"data"', "", "", "")
        yield b"+" + "\0".join((*channel, *entry)).encode()


def figures_of(seconds: dict[str, float]) -> str:
    return ", ".join(f"{name} {took_s * 1000:.1f} ms" for name, took_s in seconds.items())
