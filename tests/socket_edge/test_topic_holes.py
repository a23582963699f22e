"""Wakeups that are lost, and a Redis that loses what it had: readers are told, or miss nothing."""

import random
from collections.abc import AsyncIterator

import pytest

from shared.model.streams import NotRecovered, Start
from shared.store import stream_names
from shared.store.stream_wakeups import live_name
from tests.harness.waiting import wait_until
from tests.socket_edge.topics import TOPIC, Dropping, Hubs, hears, numbers, running_hub
from tests.store.conftest import _one_slot, backend, redis, shared_valkey, stores
from tests.store.stores import Stores

__all__ = ["_one_slot", "backend", "redis", "shared_valkey", "stores"]


@pytest.fixture
async def hubs(stores: Stores) -> AsyncIterator[Hubs]:
    async with running_hub(stores) as hubs:
        yield hubs


async def test_a_lost_wakeup_is_made_up_for_by_the_next(hubs: Hubs, monkeypatch: pytest.MonkeyPatch) -> None:
    readers = [await hubs.joined() for _ in range(3)]
    dropping = Dropping(hubs, monkeypatch, lambda: random.random() < 0.5)
    for _ in range(60):
        await hubs.publish(random.choice([1, 30]))
    await wait_until(lambda: dropping.dropped > 5)
    monkeypatch.undo()
    await hubs.publish(1)
    for reader in readers:
        await hears(reader, numbers(0, hubs.count))
        assert len(reader.starts) == 1


async def test_the_sweep_finds_what_no_wakeup_told(hubs: Hubs, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = await hubs.joined()
    dropping = Dropping(hubs, monkeypatch, lambda: True)
    await hubs.publish(3)
    await wait_until(lambda: dropping.dropped)
    assert reader.ids == []
    hubs.feed().sweep()
    await hears(reader, ["0", "1", "2"])


async def test_a_message_that_nobody_understands_is_no_wakeup(hubs: Hubs) -> None:
    await hubs.publish(1)
    reader = await hubs.joined()
    for garbage in (b"", b"+", b"?\0\0", b"+a\x000-0\x001-1\0broken"):
        hubs.stores.direct.execute_command("SPUBLISH", live_name(hubs.stores.account_id, TOPIC), garbage)
    await hubs.publish(2)
    await hears(reader, ["1", "2"])
    assert len(reader.starts) == 1


async def test_a_purge_is_told_to_live_readers_and_to_those_who_read(hubs: Hubs) -> None:
    await hubs.publish(150)
    live, reading = await hubs.joined(), hubs.join(Start.EARLIEST)
    reading.room.clear()
    await wait_until(lambda: reading.pages == 1)
    await hubs.stores.streams.purge(hubs.stores.account_id, TOPIC)
    await wait_until(lambda: [each.reason for each in live.starts] == [None, NotRecovered.PURGED])
    reading.room.set()
    await wait_until(lambda: [each.reason for each in reading.starts] == [None, NotRecovered.PURGED])
    await hubs.publish(2)
    await hears(live, ["150", "151"])
    await hears(reading, [*numbers(0, 100), "150", "151"])
    assert live.mark.epoch == reading.mark.epoch != live.starts[0].mark.epoch


class Kept:
    """The stream and its state as they were, to which Redis can be set back."""

    def __init__(self, hubs: Hubs) -> None:
        self._stores = hubs.stores
        names = stream_names.names(hubs.stores.account_id, TOPIC)[:2]
        direct = hubs.stores.direct
        self._dumps = {name: (direct.pttl(name), direct.dump(name)) for name in names}

    def restore(self) -> None:
        for name, (ttl_ms, dump) in self._dumps.items():
            self._stores.direct.restore(name, ttl_ms, dump, replace=True)
        # A restart takes longer than a millisecond: the same offset does not come again.
        self._stores.let_time_pass()


async def test_redis_losing_its_end_is_told(hubs: Hubs) -> None:
    """Readers have had events that Redis no longer has, and others may get their offsets."""
    await hubs.publish(5)
    kept = Kept(hubs)
    reader = await hubs.joined()
    await hubs.publish(2)
    await hears(reader, ["5", "6"])
    lost = reader.mark
    kept.restore()
    await hubs.publish(3)
    await hears(reader, ["5", "6", "7", "8", "9"])
    assert [each.reason for each in reader.starts] == [None, NotRecovered.LOST]
    assert reader.heard.index(reader.starts[1]) == 3, "before what comes behind the loss"
    back = await hubs.joined(lost)
    assert back.starts[0].reason is NotRecovered.LOST


async def test_redis_losing_everything_is_told(hubs: Hubs) -> None:
    await hubs.publish(5)
    reader = await hubs.joined()
    hubs.stores.direct.flushall()
    hubs.feed().sweep()
    await wait_until(lambda: len(reader.starts) == 2)
    await hubs.publish(2)
    await hears(reader, ["5", "6"])
    assert [each.reason for each in reader.starts] == [None, NotRecovered.LOST]
