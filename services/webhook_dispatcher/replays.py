"""Works at replays: each by one dispatcher at a time, whichever finds it, in short steps at its rate.

A dispatcher that dies leaves the record with its cursor; another one goes on when the lease has ended.
"""

import asyncio
import contextlib
import logging
import secrets

from services.composition import Stores
from shared import telemetry
from shared.clock import now_ms
from shared.model import topics
from shared.model.account_channels import shown_id
from shared.model.errors import StoreUnavailable
from shared.model.replays import REPLAY, Replay, ReplayState
from shared.model.routing_table import RoutingTable
from shared.model.streams import Retained
from shared.runtime.loops import end
from shared.store.merged_streams import MOST_TOPICS, MergedStreams, TooManyTopics
from shared.store.replays import Step
from shared.wire.replays import once_more

logger = logging.getLogger(__name__)

# How often a dispatcher looks for replays without a runner, and at how many it works at once.
_LOOK_S = 1.0
_MOST_AT_ONCE = 50
_STEP_EVENTS = 50
_STEP_BYTES = 256 * 1024
_STEPS_A_SECOND = 4
# Behind a step that queues nothing: others have their turns.
_PAUSE_S = 0.005
_FULL_PAUSE_S = 0.5
# Then others have its place here: a full queue would keep it for ever.
_MOST_PAUSES = 10
# A place among the account's replays is kept by claiming it again.
_CLAIMS_S = 600.0


class ReplayRunner:
    """The replays that one process works at."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self._runner = secrets.token_hex(8)
        self._running: dict[str, asyncio.Task[None]] = {}
        telemetry.watch_replays(lambda: len(self._running))

    async def run(self) -> None:
        """Until it is cancelled: then others have its replays at once."""
        try:
            while True:
                with contextlib.suppress(StoreUnavailable):
                    for channel in await self._stores.replays.listed():
                        self._begin(channel)
                await asyncio.sleep(_LOOK_S)
        finally:
            await end(*self._running.values())

    def _begin(self, channel: str) -> None:
        if channel not in self._running and len(self._running) < _MOST_AT_ONCE:
            self._running[channel] = task = asyncio.create_task(self._work_at(channel))
            task.add_done_callback(lambda _: self._running.pop(channel, None))

    async def _work_at(self, channel: str) -> None:
        replays = self._stores.replays
        try:
            while (replay := await replays.claim(channel, self._runner, now_ms=now_ms())) is not None:
                if not await self._replay(replay):
                    return
        except StoreUnavailable as error:
            logger.debug("replay.cut-short", extra={"facts": {"channel": channel, "why": str(error)}})
        except Exception:
            # Another process must not take it up at once: the lease holds for a while.
            logger.exception("replay.stopped", extra={"facts": {"channel": channel}})
        except asyncio.CancelledError:
            with contextlib.suppress(StoreUnavailable, TimeoutError):
                await asyncio.wait_for(replays.give_back(channel, self._runner), 1.0)
            raise

    async def _replay(self, replay: Replay) -> bool:
        """Whether it has to be claimed again, to go on from its cursor. Raises StoreUnavailable."""
        stores, new = self._stores, replay.new
        if replay.waits and not await stores.replays.has_room(replay):
            await stores.replays.put_off(replay, self._runner, now_ms=now_ms())
            return False
        wanted = [
            topic
            async for some in stores.streams.topics(new.account_id)
            for topic in some
            if not new.topics or any(topics.matches(pattern, topic) for pattern in new.topics)
        ]
        until = f"{new.until_ms - 1}-{2**64 - 1}"
        merged = MergedStreams(stores.streams, new.account_id, wanted, cursor=replay.cursor, until=until)
        try:
            await merged.begin()
        except TooManyTopics:
            error = f"over {MOST_TOPICS} topics have events since then: name the topics of the replay"
            await self._end(replay, ReplayState.FAILED, error)
            return False
        cursor, again_s = replay.cursor, _now_s() + _CLAIMS_S
        while passed := await self._some(replay, merged):
            after = passed[-1][0]
            step = await self._step(replay, [each for _, each in passed], before=cursor, after=after)
            if step is Step.FULL:
                await stores.replays.put_off(replay, self._runner, now_ms=now_ms())
            if step is not Step.MADE:
                return step is Step.MOVED
            cursor = after
            if _now_s() > again_s:
                return True
        await self._end(replay, ReplayState.DONE, "")
        return False

    async def _some(self, replay: Replay, merged: MergedStreams) -> list[tuple[str, Retained]]:
        """What one step passes, each event with the cursor behind it; nothing at the end."""
        most, size = max(1, min(_STEP_EVENTS, replay.new.per_s // _STEPS_A_SECOND)), 0
        some: list[tuple[str, Retained]] = []
        while len(some) < most and size < _STEP_BYTES and (found := await merged.next()) is not None:
            some.append(found)
            size += len(found[1].event.data)
        return some

    async def _step(self, replay: Replay, passed: list[Retained], *, before: str, after: str) -> Step:
        """Queues what the channel wants of these, at the rate of the replay; FULL if that takes too long."""
        step = Step.FULL
        for _ in range(_MOST_PAUSES):
            table = await self._stores.routing.table_of_channel(replay.new.account_id, replay.new.channel)
            events = [] if table is None else [once_more(each) for each in passed if _is_wanted(each, table)]
            step = await self._stores.replays.step(
                replay, self._runner, events, before=before, after=after, passed=len(passed)
            )
            if step is Step.MADE:
                telemetry.queued_again.add(len(events), {"why": REPLAY})
                await asyncio.sleep(len(events) / replay.new.per_s or _PAUSE_S)
            if step is not Step.FULL:
                break
            await asyncio.sleep(_FULL_PAUSE_S)
        return step

    async def _end(self, replay: Replay, state: ReplayState, error: str) -> None:
        if await self._stores.replays.end(replay, self._runner, state, error=error):
            facts = {"channel": replay.new.channel, "state": state, "why": error}
            logger.info("replay.ended", extra={"facts": facts})


def _is_wanted(retained: Retained, table: RoutingTable) -> bool:
    """Whether the one channel of the table receives the event, by its bindings as they are now."""
    event = retained.event
    if event.to is not None:
        event = event._replace(to=shown_id(event.to))
    return bool(table.channels_for(event))


def _now_s() -> float:
    return asyncio.get_running_loop().time()
