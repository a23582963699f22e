"""Replays: one process at a time, no event twice, and no room taken from what comes live."""

import itertools
from typing import Any

import pytest

from shared.model.api_keys import Account, new_id
from shared.model.errors import NoSuchChannel
from shared.model.events import Event
from shared.model.replays import NewReplay, Replay, ReplayState, before_all
from shared.model.streams import Keep
from shared.store import keyspace
from shared.store.merged_streams import MergedStreams
from shared.store.queues import QueueLimits
from shared.store.replays import MOST_PENDING, MOST_REPLAYS, ReplayRuns, Replays, Step, TooManyReplays
from tests.store.native import create
from tests.store.stores import HOUR_MS, AppendingQueues, Stores, at_time, events

RUNNER, OTHER = "a" * 16, "b" * 16


def a_replay(stores: Stores, channel: str, **more: Any) -> NewReplay:
    now_ms = stores.now_ms()
    usual = {"since_ms": 1, "until_ms": now_ms, "topics": [], "per_s": 100, "total": 0, "created_ms": now_ms}
    return NewReplay(id=new_id(), channel=channel, account_id=stores.account_id, **{**usual, **more})


async def begun(stores: Stores, **more: Any) -> Replay:
    """A replay of a new channel, claimed."""
    channel = await create(stores, **more)
    await stores.replays.begin(a_replay(stores, channel))
    return await claimed(stores, channel)


async def claimed(stores: Stores, channel: str, runner: str = RUNNER) -> Replay:
    replay = await stores.replays.claim(channel, runner, now_ms=stores.now_ms())
    assert replay is not None
    return replay


async def step(stores: Stores, replay: Replay, *numbers: int, runner: str = RUNNER, **more: Any) -> Step:
    given = {"before": before_all(1), "after": "1-1:x", "passed": len(numbers), **more}
    return await stores.replays.step(replay, runner, events(*numbers), **given)


def queued(stores: Stores, channel: str) -> list[str]:
    return [values[b"id"].decode() for _, values in stores.direct.xrange(keyspace.queue(channel))]


async def test_a_step_queues_marked_events_and_moves_the_cursor(stores: Stores) -> None:
    replay = await begun(stores)
    channel = replay.new.channel
    lease = await stores.claim(channel)
    assert await step(stores, replay, 1, 2, passed=5) is Step.MADE
    pending = await stores.pending(lease)
    assert [(each.event_id, each.again, each.trail) for each in pending] == [
        ("1", "replay", None),
        ("2", "replay", None),
    ]
    found = await stores.replays.find(channel)
    assert found is not None
    assert (found.cursor, found.passed, found.done, found.state) == ("1-1:x", 5, 2, ReplayState.RUNNING)


async def test_a_step_that_is_repeated_queues_nothing(stores: Stores) -> None:
    replay = await begun(stores)
    assert [await step(stores, replay, 1), await step(stores, replay, 1)] == [Step.MADE, Step.MOVED]
    assert await step(stores, replay, before="1-1:x", after="2-0:x", passed=3) is Step.MADE
    assert await step(stores, replay, before="1-1:x", after="2-0:x", passed=3) is Step.MOVED
    assert queued(stores, replay.new.channel) == ["1"]
    found = await stores.replays.find(replay.new.channel)
    assert found is not None
    assert (found.passed, found.done) == (4, 1)


async def test_only_one_process_makes_steps(stores: Stores) -> None:
    replay = await begun(stores)
    channel = replay.new.channel
    assert await stores.replays.claim(channel, OTHER, now_ms=stores.now_ms()) is None
    assert await step(stores, replay, 1, runner=OTHER) is Step.FENCED

    # The first one is silent for longer than its lease.
    later = Replays(at_time(stores, stores.now_ms() + 16_000), stores.queues, limits=QueueLimits())
    assert await later.claim(channel, OTHER, now_ms=stores.now_ms()) is not None
    assert await step(stores, replay, 1) is Step.FENCED
    assert await step(stores, replay, runner=RUNNER) is Step.FENCED
    assert not await stores.replays.end(replay, RUNNER, ReplayState.DONE)
    assert await step(stores, replay, 1, runner=OTHER) is Step.MADE

    await stores.replays.give_back(channel, OTHER)
    await claimed(stores, channel, RUNNER)


async def test_a_cancelled_replay_makes_no_steps(stores: Stores) -> None:
    replay = await begun(stores)
    channel = replay.new.channel
    assert await stores.replays.cancel(stores.account_id, channel)
    assert not await stores.replays.cancel(stores.account_id, channel)
    assert await step(stores, replay, 1) is Step.FENCED
    assert not await stores.replays.end(replay, RUNNER, ReplayState.DONE)
    found = await stores.replays.find(channel)
    assert found is not None
    assert (found.state, found.ended_ms is not None) == (ReplayState.CANCELLED, True)
    assert await stores.replays.listed() == []
    await stores.replays.begin(a_replay(stores, channel))
    found = await stores.replays.find(channel)
    assert found is not None
    assert (found.state, found.passed) == (ReplayState.RUNNING, 0)


async def test_a_channel_has_one_replay_and_an_account_few(stores: Stores) -> None:
    replay = await begun(stores)
    with pytest.raises(ReplayRuns):
        await stores.replays.begin(a_replay(stores, replay.new.channel))
    others = [(await begun(stores)) for _ in range(MOST_REPLAYS - 1)]
    channel = await create(stores)
    with pytest.raises(TooManyReplays):
        await stores.replays.begin(a_replay(stores, channel))
    assert await stores.replays.end(others[0], RUNNER, ReplayState.DONE)
    await stores.replays.begin(a_replay(stores, channel))
    await stores.replays.end(others[1], RUNNER, ReplayState.DONE)
    with pytest.raises(NoSuchChannel):
        await stores.replays.begin(a_replay(stores, new_id()))
    # The one that failed left its place.
    await stores.replays.begin(a_replay(stores, others[1].new.channel))


async def test_places_of_replays_without_a_runner_end(stores: Stores) -> None:
    for _ in range(MOST_REPLAYS):
        await begun(stores)
    later = Replays(at_time(stores, stores.now_ms() + HOUR_MS + 1), stores.queues, limits=QueueLimits())
    await later.begin(a_replay(stores, await create(stores)))


async def test_a_replay_waits_while_the_queue_has_too_much(stores: Stores) -> None:
    replay = await begun(stores)
    channel = replay.new.channel
    await stores.queued(channel, MOST_PENDING)
    assert await step(stores, replay, 1001) is Step.FULL
    found = await stores.replays.find(channel)
    assert found is not None
    assert (found.waits, found.done) == (True, 0)

    assert not await stores.replays.has_room(replay)
    other = await begun(stores)
    await stores.replays.put_off(replay, RUNNER, now_ms=stores.now_ms() + 1)
    assert await stores.replays.listed() == [other.new.channel, channel]
    replay = await claimed(stores, channel, OTHER)
    assert replay.waits

    lease = await stores.claim(channel)
    await stores.queues.ack_until(lease, until=stores.entries(channel)[0])
    assert await step(stores, replay, 1001, runner=OTHER) is Step.MADE
    assert queued(stores, channel)[-1] == "1001"
    found = await stores.replays.find(channel)
    assert found is not None
    assert not found.waits


@pytest.mark.parametrize("own", [False, True])
async def test_a_replay_drops_nothing_that_came_live(stores: Stores, own: bool) -> None:
    """Also when one step alone would go beyond the limit of the queue."""
    limits = QueueLimits(size_bytes=100_000)
    queues = AppendingQueues(stores.calls, limits=QueueLimits() if own else limits)
    replays = Replays(stores.calls, queues, limits=QueueLimits() if own else limits)
    replay = await begun(stores)
    channel = replay.new.channel
    if own:
        stores.direct.hset(keyspace.channel(channel), "limits", "100000 ")
    await queues.append(channel, events(*range(60), size_bytes=1000))
    some = events(1000, size_bytes=1000)
    made = await replays.step(replay, RUNNER, some, before=before_all(1), after="1-1:x", passed=1)
    assert made is Step.FULL
    assert int(stores.direct.hget(keyspace.channel(channel), "dropped") or 0) == 0
    lease = await stores.claim(channel)
    await queues.ack_until(lease, until=stores.entries(channel)[-10])
    made = await replays.step(replay, RUNNER, some, before=before_all(1), after="1-1:x", passed=1)
    assert made is Step.MADE


async def test_a_replay_ends_with_its_channel(stores: Stores) -> None:
    replay = await begun(stores)
    channel = await stores.account_channels.read(replay.new.channel)
    assert channel is not None
    await stores.account_channels.delete(channel)
    assert await stores.replays.find(replay.new.channel) is None
    assert await step(stores, replay, 1) is Step.FENCED
    assert not stores.direct.exists(keyspace.queue(replay.new.channel))
    # Its name in the list goes when a dispatcher finds it, but not at once: a replay may be about to begin.
    assert await stores.replays.claim(replay.new.channel, RUNNER, now_ms=stores.now_ms()) is None
    assert await stores.replays.listed() == [replay.new.channel]
    later_ms = stores.now_ms() + 61_000
    assert await stores.replays.claim(replay.new.channel, RUNNER, now_ms=later_ms) is None
    assert await stores.replays.listed() == []


async def test_topics_are_merged_in_the_order_of_time_from_any_cursor(stores: Stores) -> None:
    await stores.api_keys.create_account(Account(id=stores.account_id, name="a"))
    given: list[tuple[str, str]] = []
    keep = Keep(1000, 10**9)
    for number in range(300):
        topic = f"t{number * number % 7}"
        lot = [Event(f"{number}.{n}", topic, b"1") for n in range(1 + number % 3)]
        reply = await stores.streams.begin_append(stores.account_id, topic, lot, keep=keep)
        offsets = stores.streams.end_append(reply) or []
        given += zip(offsets, (each.id for each in lot), strict=True)
    topics = [topic async for some in stores.streams.topics(stores.account_id) for topic in some]

    async def merged(cursor: str, until: str = "+") -> list[tuple[str, str]]:
        reading = MergedStreams(stores.streams, stores.account_id, topics, cursor=cursor, until=until)
        await reading.begin()
        found = []
        while (each := await reading.next()) is not None:
            found.append((each[0], each[1].event.id))
        return found

    whole = await merged(before_all(1))
    assert sorted(event_id for _, event_id in whole) == sorted(event_id for _, event_id in given)
    times = [cursor.partition("-")[0] for cursor, _ in whole]
    assert times == sorted(times)
    for at in range(0, len(whole), 37):
        assert await merged(whole[at][0]) == whole[at + 1 :]
    middle = whole[len(whole) // 2][0].partition("-")[0]
    assert await merged(before_all(1), until=middle) == [
        each for each, ms in zip(whole, times, strict=True) if int(ms) <= int(middle)
    ]
    of_topic = {
        topic: [cursor for cursor, _ in whole if cursor.endswith(keyspace.hash_of(topic))] for topic in topics
    }
    for cursors in of_topic.values():
        places = [tuple(map(int, cursor.partition(":")[0].split("-"))) for cursor in cursors]
        assert all(one < other for one, other in itertools.pairwise(places))
