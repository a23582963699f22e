"""Acks are flushed a moment later, for all delivery loops of a process together."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import fakeredis
import pytest

from shared import telemetry
from shared.delivery.acks import AckScheduler
from shared.delivery.loop import DeliveryLoop
from shared.model.channels import CloseReason
from shared.model.errors import StoreUnavailable
from shared.redis.connection import Command, OnReplies
from shared.redis.pipeline import Pipeline
from shared.store.commands import HOOKS
from shared.store.inline_entries import parse_inline_entries
from shared.store.queues import Queues
from tests.delivery.conftest import Receiver
from tests.harness.overheard import Overheard
from tests.harness.waiting import wait_until
from tests.store.stores import EDGE, OTHER_EDGE, Stores, fake_backend

MANY = 20
NEVER_S = 3600.0


class Sent(Pipeline):
    """Records the number of commands of each pipeline."""

    pipelines: list[int]

    def send(self, commands: Sequence[Command], on_replies: OnReplies) -> None:
        self.pipelines.append(len(commands))
        super().send(commands, on_replies)


@pytest.fixture
async def sent(server: fakeredis.FakeServer) -> AsyncIterator[Sent]:
    backend = fake_backend(server)
    async with backend.connect() as redis:
        calls = Sent(redis, scripts=backend.scripts, hooks=HOOKS)
        calls.pipelines = []
        # A script that Redis has not loaded yet would be sent twice.
        backend.direct.script_load(backend.scripts["queue_ack"].source)
        yield calls


class Delivered:
    """A channel whose notifications were sent, and none acked."""

    def __init__(self, channel: str, receiver: Receiver, loop: DeliveryLoop) -> None:
        self.channel = channel
        self.receiver = receiver
        self.loop = loop

    @classmethod
    async def of(
        cls, stores: Stores, calls: Pipeline, acks: AckScheduler | None, *, queued: int = 3
    ) -> "Delivered":
        channel = await stores.channel()
        await stores.queued(channel, queued)
        receiver = Receiver()
        loop = DeliveryLoop(Queues(calls), await stores.claim(channel, f"{EDGE}/1"), receiver, acks=acks)
        loop.wake()
        await loop.wait_idle()
        assert len(receiver.sent) == queued
        return cls(channel, receiver, loop)

    def ack(self, count: int = 3) -> None:
        self.receiver.ack(count)
        self.loop.on_ack()


async def test_acks_of_many_channels_share_a_round_trip(stores: Stores, sent: Sent) -> None:
    acks = AckScheduler(every_s=0)
    every_one = [await Delivered.of(stores, sent, acks) for _ in range(MANY)]
    sent.pipelines.clear()

    for one in every_one:
        one.ack()
    await wait_until(lambda: not any(stores.entries(one.channel) for one in every_one))

    assert sent.pipelines == [MANY]


async def test_later_acks_join_those_that_wait(stores: Stores, sent: Sent) -> None:
    one = await Delivered.of(stores, sent, AckScheduler())
    sent.pipelines.clear()

    for _ in range(3):
        one.ack(1)
    await wait_until(lambda: stores.entries(one.channel) == [])

    assert sent.pipelines == [1]


async def test_nothing_new_is_acked_twice(stores: Stores, sent: Sent) -> None:
    one = await Delivered.of(stores, sent, AckScheduler(every_s=0))
    one.ack()
    await wait_until(lambda: stores.entries(one.channel) == [])
    sent.pipelines.clear()

    one.loop.on_ack()
    one.loop.flush_acks()

    assert sent.pipelines == []


async def test_a_loop_that_is_behind_reads_at_once_after_an_ack(stores: Stores, sent: Sent) -> None:
    one = await Delivered.of(stores, sent, AckScheduler(every_s=NEVER_S), queued=1)
    one.receiver.holds = 1
    await stores.queued(one.channel, 1)
    one.loop.wake()
    await one.loop.wait_idle()
    assert len(one.receiver.sent) == 1

    one.ack(1)
    await one.loop.wait_idle()

    assert len(one.receiver.sent) == 2
    assert len(stores.entries(one.channel)) == 1


async def test_what_exceeded_the_window_is_read_at_once_after_an_ack(stores: Stores, sent: Sent) -> None:
    one = await Delivered.of(stores, sent, AckScheduler(every_s=NEVER_S), queued=1)
    one.receiver.holds = 1
    overheard = Overheard(stores.direct)
    await stores.queued(one.channel, 1)
    [(_, message)] = overheard.all()
    entries = parse_inline_entries(message)
    assert entries is not None
    one.loop.deliver_inline(entries)
    assert len(one.receiver.sent) == 1

    one.ack(1)
    await one.loop.wait_idle()

    assert len(one.receiver.sent) == 2


async def test_nothing_is_acked_before_a_resync(stores: Stores, sent: Sent) -> None:
    one = await Delivered.of(stores, sent, AckScheduler(every_s=0))
    sent.pipelines.clear()
    one.ack()

    one.loop.require_resync()
    for _ in range(5):
        await asyncio.sleep(0)

    assert sent.pipelines == []


async def test_without_a_scheduler_it_acks_at_once(stores: Stores, sent: Sent) -> None:
    one = await Delivered.of(stores, sent, None)

    one.ack()
    await one.loop.wait_idle()

    assert stores.entries(one.channel) == []


async def test_an_ack_that_is_refused_finds_the_new_owner_and_ends(stores: Stores, sent: Sent) -> None:
    one = await Delivered.of(stores, sent, AckScheduler(every_s=0))
    await stores.claim(one.channel, f"{OTHER_EDGE}/1")

    one.ack()

    await wait_until(lambda: one.receiver.closed)
    assert one.receiver.closed == [CloseReason.TAKEN_OVER]
    assert len(stores.entries(one.channel)) == 3


async def test_a_claim_that_redis_lost_is_written_again(stores: Stores, sent: Sent) -> None:
    one = await Delivered.of(stores, sent, AckScheduler(every_s=0))
    stores.set_owner(one.channel, None)
    one.loop.require_resync()

    one.ack()

    await wait_until(lambda: stores.entries(one.channel) == [])
    assert stores.owner(one.channel) == f"{EDGE}/1"
    assert one.receiver.closed == []


async def test_a_redis_outage_requires_a_resync(
    server: fakeredis.FakeServer, stores: Stores, sent: Sent
) -> None:
    one = await Delivered.of(stores, sent, AckScheduler(every_s=0))
    entries = stores.entries(one.channel)
    sent.pipelines.clear()
    server.connected = False
    one.ack(2)
    await wait_until(lambda: sent.pipelines)
    with pytest.raises(StoreUnavailable):
        await sent.command("PING")

    server.connected = True
    # Redis lost the tail of the queue: new entries may get the ids of those that were acked.
    stores.lose_all_but(one.channel, *entries[:1])
    one.loop.wake()
    await one.loop.wait_idle()

    assert one.receiver.rewinds == 1
    assert stores.entries(one.channel) == entries[:1]
    assert one.receiver.closed == []


async def test_it_retries_without_a_wakeup_when_redis_is_back(
    server: fakeredis.FakeServer, stores: Stores, sent: Sent
) -> None:
    one = await Delivered.of(stores, sent, AckScheduler(every_s=0))
    sent.pipelines.clear()
    server.connected = False
    one.ack()
    await wait_until(lambda: sent.pipelines)
    with pytest.raises(StoreUnavailable):
        await sent.command("PING")

    server.connected = True

    await wait_until(lambda: stores.entries(one.channel) == [])


async def test_a_stop_acks_at_once(stores: Stores, sent: Sent) -> None:
    acks = AckScheduler(every_s=NEVER_S)
    one, other = [await Delivered.of(stores, sent, acks) for _ in range(2)]
    one.ack(2)
    other.ack()

    await one.loop.stop()

    assert len(stores.entries(one.channel)) == 1
    assert len(stores.entries(other.channel)) == 3, "a stop flushes only its own acks"


async def test_a_flush_after_the_stop_acks_nothing(stores: Stores, sent: Sent) -> None:
    one = await Delivered.of(stores, sent, AckScheduler(every_s=0))
    sent.pipelines.clear()
    one.ack()
    await one.loop.stop()

    for _ in range(5):
        await asyncio.sleep(0)

    assert sent.pipelines == [1], "only the stop acked"


async def test_more_than_one_step_may_ack_is_acked_in_several(
    stores: Stores, sent: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[int] = []
    monkeypatch.setattr(telemetry.acked, "add", counts.append)
    acks = AckScheduler(every_s=0)
    one = await Delivered.of(stores, sent, acks, queued=1000)

    one.ack(900)

    await wait_until(lambda: len(stores.entries(one.channel)) == 100)
    await one.loop.wait_idle()
    assert sum(counts) == 900
    assert len(counts) > 1
    assert len(one.receiver.sent) == 1000, "nothing is sent again"
    await one.loop.stop()
