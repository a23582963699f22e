"""A drain over fakeredis, and a receiver that confirms what a test says."""

from collections.abc import AsyncIterator

import fakeredis
import pytest

from shared.delivery.loop import DeliveryLoop, Window
from shared.model.channels import CloseReason, Lease
from shared.model.events import Notification
from shared.store.queues import BEGINNING
from tests.harness.waiting import wait_until
from tests.store.stores import Stores, fake_backend, ids

PLENTY = 1_000_000


class Receiver:
    """Takes notifications into a list; a test confirms them, or not."""

    def __init__(self, *, holds: int = 1000, size_bytes: int = PLENTY, at_once: int = 1000) -> None:
        self.holds = holds
        self.size_bytes = size_bytes
        self.at_once = at_once
        self.taken: list[Notification] = []
        self.batches: list[int] = []
        self.rewinds = 0
        self.adopted: list[bytes] = []
        self.sockets_closed: list[CloseReason] = []
        self.breaks = False
        self._acked = 0
        self._forgotten = 0

    @property
    def window(self) -> Window:
        return Window(count=self.holds - (len(self.taken) - self._acked), size_bytes=self.size_bytes)

    @property
    def acked_until(self) -> str:
        return self.taken[self._acked - 1].entry_id if self._acked > self._forgotten else BEGINNING

    def deliver(self, batch: list[Notification]) -> str | None:
        if self.breaks:
            raise RuntimeError("the transport broke")
        taken = batch[: self.at_once]
        self.taken += taken
        self.batches.append(len(batch))
        return taken[-1].entry_id if taken else None

    def adopt(self, serialization: bytes) -> None:
        self.adopted.append(serialization)

    def rewind(self) -> None:
        self.rewinds += 1
        self._acked = self._forgotten = len(self.taken)

    async def end(self, close_reason: CloseReason) -> None:
        self.sockets_closed.append(close_reason)

    def confirm(self, count: int) -> None:
        self._acked += count


@pytest.fixture
def server() -> fakeredis.FakeServer:
    return fakeredis.FakeServer()


@pytest.fixture
async def stores(server: fakeredis.FakeServer) -> AsyncIterator[Stores]:
    backend = fake_backend(server)
    async with backend.connect() as redis:
        yield Stores(redis, backend)


@pytest.fixture
async def channel(stores: Stores) -> str:
    return await stores.channel()


@pytest.fixture
async def lease(stores: Stores, channel: str) -> Lease:
    return await stores.claim(channel)


@pytest.fixture
async def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
async def drain(stores: Stores, lease: Lease, receiver: Receiver) -> AsyncIterator[DeliveryLoop]:
    drain = DeliveryLoop(stores.queues, lease, receiver)
    yield drain
    await drain.stop()


async def took(receiver: Receiver, count: int) -> None:
    await wait_until(lambda: len(receiver.taken) >= count, what=lambda: ids(receiver.taken))
    assert ids(receiver.taken) == [str(n) for n in range(count)]


async def has_looked(stores: Stores) -> None:
    """Whatever a drain was woken for is over: calls are carried out in order, and it asks at most twice."""
    for _ in range(5):
        await stores.calls.command("PING")
