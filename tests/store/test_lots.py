"""Any order of appends, acks and drops, in lots of a few entries, leaves what single steps would leave."""

import random
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace

import pytest

from shared.model.channels import Lease
from shared.model.events import Event
from shared.redis.pipeline import Script
from shared.store import keyspace
from shared.store.queues import QueueLimits, acked_in_part, parse_entry_id
from tests.harness.waiting import wait_until
from tests.store.stores import AppendingQueues, Backend, Stores, at_time

LIMITS = QueueLimits(size_bytes=60 * 240, lifetime_ms=10**10)
ENTRY_BYTES = 220
TOPIC = "t"
# In place of a hundred and of hundreds.
SMALL = {"NODE": 3, "RECEIPTS_LOT": 7, "LOT": 10, "DROP_LOT": 8, "READ_LOT": 9, "MOST_WITH_RECEIPTS": 4}
NODE_OPTION = "stream-node-max-entries"


def with_small_lots(script: Script) -> Script:
    source = script.source
    for name, size in SMALL.items():
        source = re.sub(rf"(?m)^(\s*local {name}) = \d+$", rf"\1 = {size}", source)
    return Script(script.name, source)


@pytest.fixture
async def stores(backend: Backend) -> AsyncIterator[Stores]:
    """With scripts that work in small lots, on streams with small nodes."""
    small = replace(backend, scripts={name: with_small_lots(each) for name, each in backend.scripts.items()})
    before = backend.direct.config_get(NODE_OPTION)[NODE_OPTION]
    backend.direct.config_set(NODE_OPTION, SMALL["NODE"])
    async with small.connect() as redis:
        yield Stores(redis, small)
    backend.direct.config_set(NODE_OPTION, before)


@dataclass
class Model:
    """What is pending (entry id, event), and what became of the receipts of all others."""

    pending: list[tuple[str, Event]] = field(default_factory=list)
    receipts: dict[str, str] = field(default_factory=dict)
    dropped: int = 0

    def remove(self, count: int, state: str) -> None:
        gone, self.pending = self.pending[:count], self.pending[count:]
        self.receipts |= {event.id: state for _, event in gone if event.receipt}
        self.dropped += len(gone) if state != "acked" else 0

    @property
    def size_bytes(self) -> int:
        return sum(size_of(event) for _, event in self.pending)


def size_of(event: Event) -> int:
    return len(TOPIC) + len(event.data) + len("r" if event.receipt else "") + ENTRY_BYTES


class Steps:
    """Random steps, each on Redis and on the model."""

    def __init__(self, stores: Stores, lease: Lease, seed: int) -> None:
        self.stores, self.lease, self.channel = stores, lease, lease.channel
        self.random, self.model, self.number = random.Random(seed), Model(), 0
        self.queues = AppendingQueues(stores.calls, limits=LIMITS)

    async def append(self) -> None:
        wants, events = self.random.random(), list[Event]()
        for _ in range(self.random.choice((1, 2, 10, 70))):
            receipt, size = self.random.random() < wants - 0.4, self.random.choice((1, 1, 1, 300))
            events.append(Event(str(self.number), TOPIC, b"1" * size, receipt=receipt))
            self.number += 1
        known = len(self.stores.entries(self.channel))
        await self.queues.append(self.channel, events)
        await wait_until(lambda: not self.queues._trimming)
        ids = self.stores.entries(self.channel)
        total = [*self.model.pending, *(("", event) for event in events)]
        kept = total[len(total) - len(ids) :]
        pairs = zip(ids, kept, strict=True)
        over = known + len(events) - len(ids)
        self.model.pending = total
        self.model.remove(over, "queue-full")
        self.model.pending = [(entry, event) for entry, (_, event) in pairs]
        assert self.model.size_bytes <= LIMITS.size_bytes
        if over:
            last = total[over - 1][1]
            assert self.model.size_bytes + size_of(last) > LIMITS.size_bytes, "no more than necessary"

    async def ack(self) -> None:
        if self.model.pending:
            count = self.random.randint(1, len(self.model.pending))
            until = self.model.pending[count - 1][0]
            if self.random.random() < 0.5:
                assert await self.queues.ack_until(self.lease, until=until) == count
            else:
                # The process is killed before it acks the rest.
                reply = await self.queues.begin_ack(self.lease, until=until)
                assert reply == count or 0 < acked_in_part(reply) <= count
                count = reply if reply >= 0 else acked_in_part(reply)
            self.model.remove(count, "acked")

    async def ack_event(self) -> None:
        if self.model.pending:
            count = self.random.randint(1, min(SMALL["READ_LOT"], len(self.model.pending)))
            event = self.model.pending[count - 1][1]
            acked = await self.queues.ack_until_event(self.lease, event.id, count=99, size_bytes=10**6)
            assert acked == count
            self.model.remove(count, "acked")

    async def grow_old(self) -> None:
        """What was queued until some entry is too old for a read, or for the reaper."""
        if not self.model.pending:
            return
        ms = [parse_entry_id(entry)[0] for entry, _ in self.model.pending]
        oldest_ms = self.random.choice(ms) + self.random.choice((0, 0, 1))
        later = AppendingQueues(at_time(self.stores, oldest_ms + LIMITS.lifetime_ms), limits=LIMITS)
        count = sum(each < oldest_ms for each in ms)
        way = self.random.random()
        if way < 0.3:
            # The process is killed before it drops the rest.
            _, dropped, *_ = await later._begin_trim(self.channel)
            assert 0 < dropped <= count if count else dropped == 0
            count = dropped
        elif way < 0.6:
            assert (await later.drop_expired(self.channel)).dropped == count
        else:
            batch = await later.read(self.lease, after="0-0", count=3, size_bytes=10**6)
            expected = [entry for entry, _ in self.model.pending[count:][:3]]
            assert [each.entry_id for each in batch.notifications] == expected
        self.model.remove(count, "too-old")

    def check(self) -> None:
        direct, name = self.stores.direct, keyspace.channel(self.channel)
        assert self.stores.entries(self.channel) == [entry for entry, _ in self.model.pending]
        dropped, first, first_total, total = direct.hmget(name, "dropped", "first", "first_total", "total")
        assert int(dropped or 0) == self.model.dropped
        tracked = [entry.decode() for entry, _ in direct.xrange(keyspace.receipts(self.channel))]
        assert tracked == [entry for entry, event in self.model.pending if event.receipt]
        if self.model.pending:
            assert parse_entry_id(first.decode()) <= parse_entry_id(self.model.pending[0][0])
            assert int(first_total) <= int(total) - self.model.size_bytes

    def check_receipts(self) -> None:
        for event_id, state in self.model.receipts.items():
            receipt = self.stores.direct.hgetall(keyspace.receipt(self.channel, event_id))
            found = receipt.get(b"reason", b"acked" if b"acked" in receipt else b"").decode()
            assert found == state, event_id


@pytest.mark.parametrize("seed", range(12))
async def test_any_order_of_steps_is_as_if_each_were_one(stores: Stores, seed: int) -> None:
    channel = await stores.channel()
    steps = Steps(stores, await stores.claim(channel), seed)
    kinds = (steps.append, steps.append, steps.ack, steps.ack_event, steps.grow_old)

    for _ in range(60):
        await steps.random.choice(kinds)()
        steps.check()

    steps.check_receipts()
