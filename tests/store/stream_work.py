"""The largest legal requests of streams and replays, for `test_short_steps.py`."""

from shared.model.api_keys import Account, new_id
from shared.model.replays import NewReplay, ReplayState
from shared.model.streams import Keep, Start
from shared.store.queues import APPEND_LOT
from shared.store.quotas import AccountQuotas
from shared.store.replays import MOST_REPLAYS, Step
from shared.store.stored_bytes import StoredBytes
from shared.store.stream_reads import StreamReads
from shared.store.streams import READ_LOT, STREAM_LOT, StreamLimits, Streams
from tests.store.stores import HOUR_MS, Stores, events

LARGEST = 10_000
DAY_MS = 24 * HOUR_MS


async def streams_of_topics(stores: Stores) -> None:
    account = stores.account_id
    await stores.api_keys.create_account(Account(id=account, name="a"))
    some = StreamLimits(Keep(LARGEST, DAY_MS), topics=16)
    streams = Streams(stores.calls, stores.routing, limits=some)
    for number in range(200):
        await streams.begin_append(account, f"t{number}", events(1), keep=Keep(LARGEST, DAY_MS))
    for start in range(0, LARGEST, STREAM_LOT):
        lot = events(*range(start, start + STREAM_LOT))
        await streams.begin_append(account, "orders", lot, keep=Keep(LARGEST, DAY_MS))
    read = await streams.read(account, "orders", after="0-0", count=LARGEST, size_bytes=10**9)
    assert len(read) == READ_LOT
    reads = StreamReads(stores.calls)
    resumed = await reads.resume(account, "orders", Start.EARLIEST, count=LARGEST, size_bytes=10**9)
    assert len(resumed.events) == READ_LOT
    resumed = await reads.resume(account, "orders", resumed.mark, count=LARGEST, size_bytes=10**9)
    assert (resumed.reason, len(resumed.events)) == (None, READ_LOT)
    assert await reads.state(account, "orders") is not None
    for edge in range(100):
        await reads.note_readers(account, {"orders": 1}, instance=f"edge-{edge}/x")
    assert await reads.readers(account, "orders") == 100
    await streams.begin_append(account, "orders", lot, keep=Keep(1, DAY_MS))
    assert await streams.purge(account, "orders") is not None
    await streams.begin_append(account, "orders", lot, keep=Keep(LARGEST, DAY_MS))
    await StoredBytes(stores.calls, quotas=AccountQuotas(stores.calls)).used(account)
    await streams.drop(account)


async def replays_of_channels(stores: Stores) -> None:
    channel = await stores.channel()
    await stores.queues.append(channel, events(*range(300)))
    now_ms = stores.now_ms()
    for number in range(MOST_REPLAYS):
        each = channel if number == 0 else await stores.channel()
        new = NewReplay(new_id(), each, stores.account_id, 1, now_ms, ["#"] * 100, 100, 0, now_ms)
        await stores.replays.begin(new)
    replay = await stores.replays.claim(each, "r", now_ms=now_ms)
    assert replay is not None
    cursor = replay.cursor
    for after, some in (("1-1:x", events(*range(APPEND_LOT))), ("2-1:x", [])):
        made = await stores.replays.step(replay, "r", some, before=cursor, after=after, passed=1)
        assert made is Step.MADE
        cursor = after
    await stores.replays.end(replay, "r", ReplayState.DONE)
