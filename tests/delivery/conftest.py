"""A delivery loop over fakeredis, and a receiver that acks when a test says so."""

from collections.abc import AsyncIterator

import pytest

from shared.delivery.loop import DeliveryLoop, Window
from shared.model.channels import CloseReason, Lease
from shared.model.events import Notification
from shared.store.queues import BEGINNING
from tests.harness.waiting import wait_until
from tests.store.stores import Stores, ids

PLENTY = 1_000_000


class Receiver:
    """Keeps what it is sent; a test acks it."""

    def __init__(self, *, holds: int = 1000, size_bytes: int = PLENTY, per_call: int = 1000) -> None:
        self.holds = holds
        self.size_bytes = size_bytes
        self.per_call = per_call
        self.sent: list[Notification] = []
        self.batches: list[int] = []
        self.rewinds = 0
        self.adopted: list[bytes] = []
        self.closed: list[CloseReason] = []
        self.breaks = False
        self._acked = 0
        self._forgotten = 0

    @property
    def window(self) -> Window:
        return Window(count=self.holds - (len(self.sent) - self._acked), size_bytes=self.size_bytes)

    @property
    def acked_until(self) -> str:
        return self.sent[self._acked - 1].entry_id if self._acked > self._forgotten else BEGINNING

    def deliver(self, batch: list[Notification]) -> str | None:
        if self.breaks:
            raise RuntimeError("the transport broke")
        sent = batch[: self.per_call]
        self.sent += sent
        self.batches.append(len(batch))
        return sent[-1].entry_id if sent else None

    def adopt(self, serialization: bytes) -> None:
        self.adopted.append(serialization)

    def rewind(self) -> None:
        self.rewinds += 1
        self._acked = self._forgotten = len(self.sent)

    async def end(self, close_reason: CloseReason) -> None:
        self.closed.append(close_reason)

    def ack(self, count: int) -> None:
        self._acked += count


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
async def loop(stores: Stores, lease: Lease, receiver: Receiver) -> AsyncIterator[DeliveryLoop]:
    loop = DeliveryLoop(stores.queues, lease, receiver)
    yield loop
    await loop.stop()


async def sent_to(receiver: Receiver, count: int) -> None:
    await wait_until(lambda: len(receiver.sent) >= count, what=lambda: ids(receiver.sent))
    assert ids(receiver.sent) == [str(n) for n in range(count)]


async def has_read(stores: Stores) -> None:
    """Waits until the reads of a woken loop are over: Redis runs calls in order, and a loop makes few."""
    for _ in range(5):
        await stores.calls.command("PING")
