"""A native channel, an edge in this process, its clients, and a publisher."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from services.socket_edge.edge import Edge
from services.socket_edge.native.channel import NativeChannel
from shared.model.account_channels import shown_id
from shared.store import keyspace
from tests.harness.overheard import Overheard
from tests.harness.waiting import wait_until
from tests.socket_edge.conftest import Clock, edge_of
from tests.socket_edge.native_peer import Peer, grant_of
from tests.store.native import create
from tests.store.stores import Stores, events

TIMEOUT_S = 30


@dataclass
class World:
    """A native channel, an edge, and a publisher whose wakeups the edge hears."""

    stores: Stores
    edge: Edge
    clock: Clock
    channel: str

    def __post_init__(self) -> None:
        self._overheard = Overheard(self.stores.direct)
        self._published = 0
        self.peers: list[Peer] = []

    @property
    def shown(self) -> str:
        return shown_id(self.channel)

    async def publish(self, count: int, *, heard: bool = True) -> None:
        """Publishes events that are numbered from 0; the edge may hear the wakeups."""
        numbers = range(self._published, self._published + count)
        self._published += count
        await self.stores.queues.append(self.channel, events(*numbers))
        self.hear(heard=heard)

    def hear(self, *, heard: bool = True) -> None:
        messages = [message for _, message in self._overheard.all()]
        if heard and messages:
            self.edge.wakeups.on_messages(messages)

    async def peer(self, **options: Any) -> Peer:
        """A client that has opened the channel."""
        peer = Peer(self.edge, grant_of(self.stores.account_id, self.shown))
        self.peers.append(peer)
        await peer.ask(open={"channel": self.shown, "ack_timeout_s": TIMEOUT_S, **options})
        return peer

    @property
    def held(self) -> NativeChannel:
        found = self.edge.registry.of(self.channel)[-1]
        assert isinstance(found, NativeChannel)
        return found

    async def pass_s(self, seconds: float) -> None:
        """Lets time pass: what is due by then happens."""
        self.clock.ahead_s += seconds
        await asyncio.sleep(0.001)
        for peer in self.peers:
            await peer.quiet()

    async def pending(self, *numbers: int) -> None:
        """Waits until the queue has exactly these."""
        wanted = [str(number).encode() for number in numbers]

        def ids() -> list[bytes]:
            rows = self.stores.direct.xrange(keyspace.queue(self.channel))
            return [values[b"id"] for _, values in rows]

        await wait_until(lambda: ids() == wanted, what=lambda: f"{wanted}, not {ids()}")


async def ack(world: World, peer: Peer, event: int) -> None:
    await peer.ask(ack={"channel": world.shown, "entry": peer.entry(event)})


async def nack(world: World, peer: Peer, event: int, delay_s: float = 0) -> None:
    await peer.ask(nack={"channel": world.shown, "entry": peer.entry(event), "delay_s": delay_s})


@contextlib.asynccontextmanager
async def world_of(stores: Stores, **settings: Any) -> AsyncIterator[World]:
    """A world whose clients leave in the end."""
    clock = Clock()
    world = World(stores, edge_of(stores, **settings), clock, await create(stores, name="kitchen"))
    yield world
    for peer in world.peers:
        await peer.leaves()
