"""What is confirmed is settled a moment later, for all drains of a process together."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import fakeredis
import pytest

from shared.drain import Drain, Settling
from shared.model.channels import Ending
from shared.model.errors import StoreUnavailable
from shared.store import keyspace
from shared.store.calls import Calls
from shared.store.carried import carried_in
from shared.store.line import Call, Then
from shared.store.queues import Queues
from tests.drain.conftest import Receiver
from tests.harness.overheard import Overheard
from tests.harness.waiting import wait_until
from tests.store.stores import EDGE, OTHER_EDGE, Stores, fake_backend

MANY = 20
NEVER_S = 3600.0


class Sent(Calls):
    """Remembers how many commands went in each pipeline."""

    pipelines: list[int]

    def begin(self, calls: Sequence[Call], then: Then) -> None:
        self.pipelines.append(len(calls))
        super().begin(calls, then)


@pytest.fixture
async def sent(server: fakeredis.FakeServer) -> AsyncIterator[Sent]:
    backend = fake_backend(server)
    async with backend.connect() as redis:
        calls = Sent(redis, scripts=backend.scripts)
        calls.pipelines = []
        # A script that is not known yet would be sent twice.
        backend.direct.script_load(backend.scripts["queue_settle"].source)
        yield calls


class Draining:
    """A channel whose notifications have been sent, and none confirmed."""

    def __init__(self, channel: str, receiver: Receiver, drain: Drain) -> None:
        self.channel = channel
        self.receiver = receiver
        self.drain = drain

    @classmethod
    async def of(
        cls, stores: Stores, calls: Calls, settling: Settling | None, *, queued: int = 3
    ) -> "Draining":
        channel = await stores.channel()
        await stores.queued(channel, queued)
        receiver = Receiver()
        drain = Drain(Queues(calls), await stores.claim(channel, f"{EDGE}/1"), receiver, settling=settling)
        drain.wake()
        await drain.rested()
        assert len(receiver.taken) == queued
        return cls(channel, receiver, drain)

    def confirm(self, count: int = 3) -> None:
        self.receiver.confirm(count)
        self.drain.was_confirmed()


async def test_what_many_confirmed_is_settled_in_one_round_trip(stores: Stores, sent: Sent) -> None:
    settling = Settling(every_s=0)
    all_of_them = [await Draining.of(stores, sent, settling) for _ in range(MANY)]
    sent.pipelines.clear()

    for one in all_of_them:
        one.confirm()
    await wait_until(lambda: not any(stores.entries(one.channel) for one in all_of_them))

    assert sent.pipelines == [MANY]


async def test_what_is_confirmed_meanwhile_goes_along(stores: Stores, sent: Sent) -> None:
    one = await Draining.of(stores, sent, Settling())
    sent.pipelines.clear()

    for _ in range(3):
        one.confirm(1)
    await wait_until(lambda: stores.entries(one.channel) == [])

    assert sent.pipelines == [1]


async def test_who_was_told_twice_settles_once(stores: Stores, sent: Sent) -> None:
    one = await Draining.of(stores, sent, Settling(every_s=0))
    one.confirm()
    await wait_until(lambda: stores.entries(one.channel) == [])
    sent.pipelines.clear()

    one.drain.was_confirmed()
    await one.drain.settle()

    assert sent.pipelines == []


async def test_where_more_waits_a_confirmation_makes_it_look_at_once(stores: Stores, sent: Sent) -> None:
    one = await Draining.of(stores, sent, Settling(every_s=NEVER_S), queued=1)
    one.receiver.holds = 1
    await stores.queued(one.channel, 1)
    one.drain.wake()
    await one.drain.rested()
    assert len(one.receiver.taken) == 1

    one.confirm(1)
    await one.drain.rested()

    assert len(one.receiver.taken) == 2
    assert len(stores.entries(one.channel)) == 1


async def test_for_what_had_no_room_a_confirmation_makes_it_look_at_once(stores: Stores, sent: Sent) -> None:
    one = await Draining.of(stores, sent, Settling(every_s=NEVER_S), queued=1)
    one.receiver.holds = 1
    overheard = Overheard(stores.direct)
    await stores.queued(one.channel, 1)
    [(_, message)] = overheard.all()
    carried = carried_in(message)
    assert carried is not None
    one.drain.offer(carried)
    assert len(one.receiver.taken) == 1

    one.confirm(1)
    await one.drain.rested()

    assert len(one.receiver.taken) == 2


async def test_in_doubt_nothing_is_settled_unseen(stores: Stores, sent: Sent) -> None:
    one = await Draining.of(stores, sent, Settling(every_s=0))
    sent.pipelines.clear()
    one.confirm()

    one.drain.doubt()
    for _ in range(5):
        await asyncio.sleep(0)

    assert sent.pipelines == []


async def test_without_a_settling_it_settles_at_once(stores: Stores, sent: Sent) -> None:
    one = await Draining.of(stores, sent, None)

    one.confirm()
    await one.drain.rested()

    assert stores.entries(one.channel) == []


async def test_who_is_not_the_owner_any_more_finds_out_and_ends(stores: Stores, sent: Sent) -> None:
    one = await Draining.of(stores, sent, Settling(every_s=0))
    await stores.claim(one.channel, f"{OTHER_EDGE}/1")

    one.confirm()

    await wait_until(lambda: one.receiver.endings)
    assert one.receiver.endings == [Ending.TAKEN_OVER]
    assert len(stores.entries(one.channel)) == 3


async def test_a_claim_that_redis_lost_is_made_again(stores: Stores, sent: Sent) -> None:
    one = await Draining.of(stores, sent, Settling(every_s=0))
    stores.direct.delete(keyspace.lease(one.channel))
    one.drain.doubt()

    one.confirm()

    await wait_until(lambda: stores.entries(one.channel) == [])
    assert stores.owner(one.channel) == f"{EDGE}/1"
    assert one.receiver.endings == []


async def test_redis_away_is_doubt_and_heals(
    server: fakeredis.FakeServer, stores: Stores, sent: Sent
) -> None:
    one = await Draining.of(stores, sent, Settling(every_s=0))
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
    one.drain.wake()
    await one.drain.rested()

    assert one.receiver.rewinds == 1
    assert stores.entries(one.channel) == entries[:1]
    assert one.receiver.endings == []


async def test_it_comes_back_by_itself_when_nobody_hears_that_redis_does(
    server: fakeredis.FakeServer, stores: Stores, sent: Sent
) -> None:
    one = await Draining.of(stores, sent, Settling(every_s=0))
    sent.pipelines.clear()
    server.connected = False
    one.confirm()
    await wait_until(lambda: sent.pipelines)
    with pytest.raises(StoreUnavailable):
        await sent.command("PING")

    server.connected = True

    await wait_until(lambda: stores.entries(one.channel) == [])


async def test_stopping_settles_at_once(stores: Stores, sent: Sent) -> None:
    settling = Settling(every_s=NEVER_S)
    one, other = [await Draining.of(stores, sent, settling) for _ in range(2)]
    one.confirm(2)
    other.confirm()

    await one.drain.stop()

    assert len(stores.entries(one.channel)) == 1
    assert len(stores.entries(other.channel)) == 3, "the others have their moment"


async def test_a_moment_that_comes_after_the_stop_settles_nothing(stores: Stores, sent: Sent) -> None:
    one = await Draining.of(stores, sent, Settling(every_s=0))
    sent.pipelines.clear()
    one.confirm()
    await one.drain.stop()

    for _ in range(5):
        await asyncio.sleep(0)

    assert sent.pipelines == [1], "the stop did"
