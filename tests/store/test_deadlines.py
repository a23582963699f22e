"""The deadline of a request: after it, by Redis' clock, none of its writes is executed."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from shared.model.errors import DeadlinePassed
from shared.model.events import Event
from shared.model.idempotency import Deadline
from shared.redis.pipeline import RedisCommands
from shared.store.device_types import DeviceTypes
from shared.store.idempotency import CLOCKS_APART_S, LATE, PASSED_MS, RUNNING_S, Idempotency
from shared.store.queues import Appended, QueueLimits, Queues
from shared.store.receipts import Receipts
from shared.store.sessions import Sessions
from shared.wire.sessions import encode_patterns
from tests.harness.overheard import Overheard
from tests.store.stores import NOW_MS, Stores, at_time, events
from tests.store.test_idempotency import REQUEST
from tests.store.test_receipts import receipted
from tests.store.test_sessions import a_session, topic


@dataclass(frozen=True)
class Scene:
    """A channel with an owner, and a session."""

    stores: Stores
    channel: str
    session: str


Write = Callable[[Scene, RedisCommands, Deadline | None], Awaitable[bool]]
"""Writes with these commands; returns whether it was done."""


@pytest.fixture
async def scene(stores: Stores) -> Scene:
    channel = await stores.channel()
    await stores.claim(channel)
    session = a_session(stores)
    await stores.sessions.put(session, [topic(stores.account_id, "orders")])
    return Scene(stores, channel, session.id)


async def append(scene: Scene, calls: RedisCommands, deadline: Deadline | None) -> bool:
    return await _appended(scene, Queues(calls), events(1, 2), deadline)


async def append_with_receipts(scene: Scene, calls: RedisCommands, deadline: Deadline | None) -> bool:
    return await _appended(scene, Queues(calls), receipted(1, 2), deadline)


async def append_above_the_limit(scene: Scene, calls: RedisCommands, deadline: Deadline | None) -> bool:
    """Drops the oldest, with their receipts."""
    queues = Queues(calls, limits=QueueLimits(size_bytes=300))
    return await _appended(scene, queues, receipted(*range(5)), deadline)


async def _appended(scene: Scene, queues: Queues, these: list[Event], deadline: Deadline | None) -> bool:
    appended = queues.end_append(await queues.begin_append(scene.channel, these, deadline=deadline))
    assert appended in (Appended.QUEUED, Appended.LATE)
    return appended is Appended.QUEUED


async def append_to_session(scene: Scene, calls: RedisCommands, deadline: Deadline | None) -> bool:
    stores = scene.stores
    sessions = Sessions(calls, stores.routing, stores.wakeups, encode=encode_patterns)
    reply = await sessions.begin_append(scene.session, stores.account_id, events(1, 2), deadline=deadline)
    try:
        assert sessions.end_append(reply, count=2) == 2
    except DeadlinePassed:
        return False
    return True


async def open_receipt(scene: Scene, calls: RedisCommands, deadline: Deadline | None) -> bool:
    [event] = receipted(7)
    reply = await Receipts(calls).open(
        scene.stores.account_id, event, channels=[scene.channel], now_ms=NOW_MS, deadline=deadline
    )
    return bool(reply != LATE)


async def learn_types(scene: Scene, calls: RedisCommands, deadline: Deadline | None) -> bool:
    grown: list[int] = []
    types = DeviceTypes(calls, on_grown=lambda _, size: grown.append(size))
    known = {"lamp": "light", "gone": None}
    replies = await asyncio.gather(*types.learn(scene.stores.account_id, known, deadline=deadline))
    assert bool(grown) == (replies != [LATE])
    return replies != [LATE]


WRITES = [append, append_with_receipts, append_above_the_limit, append_to_session, open_receipt, learn_types]


def everything(stores: Stores) -> dict[bytes, Any]:
    return {name: stores.direct.dump(name) for name in stores.direct.keys("*")}


@pytest.mark.parametrize("write", WRITES)
async def test_nothing_is_written_after_the_deadline(
    scene: Scene, overheard: Overheard, write: Write
) -> None:
    now_ms = NOW_MS + 12_345
    calls, before = at_time(scene.stores, now_ms), everything(scene.stores)

    for late in (Deadline(now_ms - 1), Deadline(PASSED_MS)):
        assert not await write(scene, calls, late)
    assert everything(scene.stores) == before
    assert overheard.all() == []

    assert await write(scene, calls, Deadline(now_ms))
    assert everything(scene.stores) != before


@pytest.mark.parametrize("write", WRITES)
async def test_without_a_deadline_no_write_is_late(scene: Scene, write: Write) -> None:
    assert await write(scene, scene.stores.calls, None)


@pytest.mark.parametrize("write", WRITES)
async def test_when_the_mark_ends_a_redis_refuses_whose_clock_is_behind(scene: Scene, write: Write) -> None:
    """On a cluster another primary has the mark than the one that is written."""
    deadline = (await Idempotency(at_time(scene.stores, NOW_MS)).begin(REQUEST, runner="a")).deadline
    end_ms, behind_ms = NOW_MS + int(RUNNING_S * 1000), int(CLOCKS_APART_S * 1000)

    assert not await write(scene, at_time(scene.stores, end_ms + 1 - behind_ms), deadline)
    assert await write(scene, at_time(scene.stores, end_ms - behind_ms), deadline)
