"""Purges of streams: what readers are told, and what is left."""

import re

from shared.model.events import Event
from shared.model.streams import BEGINNING, Keep, Mark, NotRecovered
from shared.store import stream_names
from tests.store.stores import Stores, events
from tests.store.test_stream_reads import Snapshot, epoch, read_by, resume
from tests.store.test_streams import DAY_MS, KEEP, TOPIC, append, state


async def test_a_purge_is_told_and_later_events_are_read(stores: Stores) -> None:
    offsets = await append(stores, *events(*range(300)))
    before = epoch(stores)
    mark = await stores.streams.purge(stores.account_id, TOPIC)
    assert mark == Mark(epoch(stores), state(stores)["trimmed"])
    assert mark.offset == offsets[-1]
    assert re.fullmatch(f"{before}-1-[0-9a-f]{{6}}", mark.epoch)
    assert state(stores)["reason"] == "purged"
    assert sorted(name for name in stores.direct.keys("*stream*")) == sorted(
        name.encode() for name in stream_names.names(stores.account_id, TOPIC)[1:]
    )
    for new in ([], ["new"]):
        if new:
            await append(stores, Event("new", TOPIC, b"1"))
        for offset in (offsets[7], offsets[-1], BEGINNING):
            resumed = await resume(stores, Mark(before, offset))
            assert (resumed.reason, resumed.offset, read_by(resumed)) == (
                NotRecovered.PURGED,
                offsets[-1],
                new,
            )
        resumed = await resume(stores, mark)
        assert (resumed.reason, read_by(resumed)) == (None, new)
        assert (await resume(stores, mark._replace(offset=offsets[7]))).reason is NotRecovered.PURGED
    # The purge before is still known, whatever has become of the new events.
    await append(stores, *events(1, 2, 3), keep=Keep(1, DAY_MS))
    assert (await resume(stores, Mark(before, offsets[7]))).reason is NotRecovered.PURGED
    assert (await resume(stores, mark)).reason is NotRecovered.TRIMMED
    second = await stores.streams.purge(stores.account_id, TOPIC)
    assert second is not None
    assert re.fullmatch(f"{before}-2-[0-9a-f]{{6}}", second.epoch)
    for older in (before, mark.epoch):
        assert (await resume(stores, Mark(older, offsets[7]))).reason is NotRecovered.PURGED
    assert await stores.streams.purge(stores.account_id, "another") is None


async def test_a_purge_that_redis_has_lost_doubles_nothing(stores: Stores) -> None:
    offsets = await append(stores, *events(1, 2))
    stores.let_time_pass()
    before = Snapshot(stores)
    mark = await stores.streams.purge(stores.account_id, TOPIC)
    assert mark is not None
    before.restore()
    resumed = await resume(stores, mark)
    assert (resumed.reason, resumed.offset, read_by(resumed)) == (NotRecovered.LOST, offsets[-1], [])
    # Another purge comes instead.
    again = await stores.streams.purge(stores.account_id, TOPIC)
    assert again is not None
    assert again != mark
    assert (await resume(stores, mark)).reason is NotRecovered.LOST
    assert (await resume(stores, again)).reason is None


async def test_a_purge_that_was_cut_off_is_made_good_by_the_next_one_or_the_accounts_end(
    stores: Stores,
) -> None:
    for end in ("purge", "drop"):
        await append(stores, *events(*range(300)))
        [stream, name, _] = stream_names.names(stores.account_id, TOPIC)
        purged = stream_names.purged(stores.account_id, TOPIC)
        assert await stores.calls.script("stream_purge", [stream, name, purged], "0a0b0c")
        assert stores.direct.xlen(purged) == 300
        assert 0 < stores.direct.pttl(purged) <= KEEP.age_ms * 33 // 32
        assert await stores.streams.find(stores.account_id, "7") is None
        if end == "purge":
            await stores.streams.purge(stores.account_id, TOPIC)
        else:
            await stores.streams.drop(stores.account_id)
            assert stores.direct.keys("*stream*") == []
        assert not stores.direct.exists(purged)
