"""The sweep wakes every connection, and never so many at once that others wait for the event loop."""

import asyncio
from collections.abc import Iterable
from typing import Any, cast

import pytest

from services.socket_edge import edge as edge_module
from services.socket_edge.credential_watcher import CredentialWatcher
from services.socket_edge.held import HeldConnection
from services.socket_edge.leased_socket import LeasedSocket
from services.socket_edge.liveness import Liveness
from shared.model.channels import Lease
from shared.store.leases import Claimed
from shared.store.queues import Batch
from tests.conftest import Measured
from tests.harness.waiting import wait_until
from tests.socket_edge.conftest import LongestTurn, edge_of, scope_of
from tests.store.stores import EDGE, Stores

SOCKETS = 5000
LONGEST_TURN_S = 0.05


class EmptyQueues:
    """Queues in which nothing waits; notes which were read."""

    def __init__(self) -> None:
        self.read_by: set[str] = set()

    async def read(self, lease: Lease, **_: Any) -> Batch:
        self.read_by.add(lease.owner)
        await asyncio.sleep(0)
        return Batch([], more=False)


class UnchangedKeys(CredentialWatcher):
    """Reads no key; notes whose credential the sweep asked about."""

    def __init__(self, liveness: Liveness) -> None:
        super().__init__(cast(Any, None), liveness, tuple)
        self.asked_about = 0

    def check(self, connections: Iterable[HeldConnection]) -> None:
        self.asked_about += len(list(connections))


@pytest.mark.usefixtures("no_garbage_collection")
async def test_a_sweep_of_5000_sockets_stops_nothing_else(
    stores: Stores, monkeypatch: pytest.MonkeyPatch, record_property: Measured
) -> None:
    # As many lots as ever, but a second for all of them.
    monkeypatch.setattr(edge_module, "SWEEP_S", 1.0)
    stores.queues = queues = EmptyQueues()  # type: ignore[assignment]
    edge, scope = edge_of(stores), scope_of(write=lambda texts, ping: None)
    edge.credentials = credentials = UnchangedKeys(edge.liveness)
    for number in range(SOCKETS):
        lease = Lease(channel=f"{number:032x}", generation="1", owner=f"{EDGE}/{number}", previous="")
        socket = LeasedSocket(edge, Claimed(lease, None, ""), scope=scope, send=cast(Any, None))
        edge.registry.add(socket)

    turns = LongestTurn()
    task = asyncio.create_task(edge.sweep())
    await wait_until(lambda: len(queues.read_by) == SOCKETS, within_s=60, what="every queue to be read")
    turns.stop()
    task.cancel()

    assert credentials.asked_about >= SOCKETS
    record_property("longest turn of the event loop in a sweep", f"{turns.seconds * 1000:.1f} ms")
    assert turns.seconds < LONGEST_TURN_S
