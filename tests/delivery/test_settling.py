"""What is confirmed is acked a moment later, for all drains of a process together."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import fakeredis
import pytest

from shared.delivery.loop import AckScheduler, DeliveryLoop
from shared.model.channels import CloseReason
from shared.model.errors import StoreUnavailable
from shared.redis.connection import Command, OnReplies
from shared.redis.pipeline import Pipeline
from shared.store import keyspace
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
    """Remembers how many commands went in each pipeline."""

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
        # A script that is not known yet would be sent twice.
        backend.direct.script_load(backend.scripts["queue_ack"].source)
        yield calls


class Draining:
    """A channel whose notifications have been sent, and none confirmed."""

    def __init__(self, channel: str, receiver: Receiver, drain: DeliveryLoop) -> None:
        self.channel = channel
        self.receiver = receiver
        self.loop = drain

    @classmethod
    async def of(
        cls, stores: Stores, calls: Pipeline, acks: AckScheduler | None, *, queued: int = 3
    ) -> "Draining":
        channel = await stores.channel()
        await stores.queued(channel, queued)
        receiver = Receiver()
        drain = DeliveryLoop(Queues(calls), await stores.claim(channel, f"{EDGE}/1"), receiver, acks=acks)
        drain.wake()
        await drain.rested()
        assert len(receiver.taken) == queued
        return cls(channel, receiver, drain)

    def confirm(self, count: int = 3) -> None:
        self.receiver.confirm(count)
        self.loop.on_ack()


async def test_what_many_confirmed_is_acked_in_one_round_trip(stores: Stores, sent: Sent) -> None:
    acking = AckScheduler(every_s=0)
    all_of_them = [await Draining.of(stores, sent, acking) for _ in range(MANY)]
    sent.pipelines.clear()

    for one in all_of_them:
        one.confirm()
    await wait_until(lambda: not any(stores.entries(one.channel) for one in all_of_them))

    assert sent.pipelines == [MANY]


async def test_what_is_confirmed_meanwhile_goes_along(stores: Stores, sent: Sent) -> None:
    one = await Draining.of(stores, sent, AckScheduler())
    sent.pipelines.clear()

    for _ in range(3):
        one.confirm(1)
    await wait_until(lambda: stores.entries(one.channel) == [])

    assert sent.pipelines == [1]


async def test_who_was_told_twice_acks_once(stores: Stores, sent: Sent) -> None:
    one = await Draining.of(stores, sent, AckScheduler(every_s=0))
    one.confirm()
    await wait_until(lambda: stores.entries(one.channel) == [])
    sent.pipelines.clear()

    one.loop.on_ack()
    await one.loop.ack()

    assert sent.pipelines == []


async def test_where_more_waits_a_confirmation_makes_it_look_at_once(stores: Stores, sent: Sent) -> None:
    one = await Draining.of(stores, sent, AckScheduler(every_s=NEVER_S), queued=1)
    one.receiver.holds = 1
    await stores.queued(one.channel, 1)
    one.loop.wake()
    await one.loop.rested()
    assert len(one.receiver.taken) == 1

    one.confirm(1)
    await one.loop.rested()

    assert len(one.receiver.taken) == 2
    assert len(stores.entries(one.channel)) == 1


async def test_for_what_had_no_room_a_confirmation_makes_it_look_at_once(stores: Stores, sent: Sent) -> None:
    one = await Draining.of(stores, sent, AckScheduler(every_s=NEVER_S), queued=1)
    one.receiver.holds = 1
    overheard = Overheard(stores.direct)
    await stores.queued(one.channel, 1)
    [(_, message)] = overheard.all()
    carried = parse_inline_entries(message)
    assert carried is not None
    one.loop.offer(carried)
    assert len(one.receiver.taken) == 1

    one.confirm(1)
    await one.loop.rested()

    assert len(one.receiver.taken) == 2


async def test_in_doubt_nothing_is_acked_unseen(stores: Stores, sent: Sent) -> None:
    one = await Draining.of(stores, sent, AckScheduler(every_s=0))
    sent.pipelines.clear()
    one.confirm()

    one.loop.doubt()
    for _ in range(5):
        await asyncio.sleep(0)

    assert sent.pipelines == []


async def test_without_a_acking_it_acks_at_once(stores: Stores, sent: Sent) -> None:
    one = await Draining.of(stores, sent, None)

    one.confirm()
    await one.loop.rested()

    assert stores.entries(one.channel) == []


async def test_who_is_not_the_owner_any_more_finds_out_and_ends(stores: Stores, sent: Sent) -> None:
    one = await Draining.of(stores, sent, AckScheduler(every_s=0))
    await stores.claim(one.channel, f"{OTHER_EDGE}/1")

    one.confirm()

    await wait_until(lambda: one.receiver.sockets_closed)
    assert one.receiver.sockets_closed == [CloseReason.TAKEN_OVER]
    assert len(stores.entries(one.channel)) == 3


async def test_a_claim_that_redis_lost_is_made_again(stores: Stores, sent: Sent) -> None:
    one = await Draining.of(stores, sent, AckScheduler(every_s=0))
    stores.direct.delete(keyspace.lease(one.channel))
    one.loop.doubt()

    one.confirm()

    await wait_until(lambda: stores.entries(one.channel) == [])
    assert stores.owner(one.channel) == f"{EDGE}/1"
    assert one.receiver.sockets_closed == []


async def test_redis_away_is_doubt_and_heals(
    server: fakeredis.FakeServer, stores: Stores, sent: Sent
) -> None:
    one = await Draining.of(stores, sent, AckScheduler(every_s=0))
    entries = stores.entries(one.channel)
    sent.pipelines.clear()
    server.connected = False
    one.confirm(2)
    await wait_until(lambda: sent.pipelines)
    with pytest.raises(StoreUnavailable):
        await sent.command("PING")

    server.connected = True
    # It has lost the end of the queue meanwhile: that was confirmed says nothing about what may come there.
    stores.direct.xdel(keyspace.queue(one.channel), *entries[1:])
    one.loop.wake()
    await one.loop.rested()

    assert one.receiver.rewinds == 1
    assert stores.entries(one.channel) == entries[:1]
    assert one.receiver.sockets_closed == []


async def test_it_comes_back_by_itself_when_nobody_hears_that_redis_does(
    server: fakeredis.FakeServer, stores: Stores, sent: Sent
) -> None:
    one = await Draining.of(stores, sent, AckScheduler(every_s=0))
    sent.pipelines.clear()
    server.connected = False
    one.confirm()
    await wait_until(lambda: sent.pipelines)
    with pytest.raises(StoreUnavailable):
        await sent.command("PING")

    server.connected = True

    await wait_until(lambda: stores.entries(one.channel) == [])


async def test_stopping_acks_at_once(stores: Stores, sent: Sent) -> None:
    acking = AckScheduler(every_s=NEVER_S)
    one, other = [await Draining.of(stores, sent, acking) for _ in range(2)]
    one.confirm(2)
    other.confirm()

    await one.loop.stop()

    assert len(stores.entries(one.channel)) == 1
    assert len(stores.entries(other.channel)) == 3, "the others have their moment"


async def test_a_moment_that_comes_after_the_stop_acks_nothing(stores: Stores, sent: Sent) -> None:
    one = await Draining.of(stores, sent, AckScheduler(every_s=0))
    sent.pipelines.clear()
    one.confirm()
    await one.loop.stop()

    for _ in range(5):
        await asyncio.sleep(0)

    assert sent.pipelines == [1], "the stop did"
