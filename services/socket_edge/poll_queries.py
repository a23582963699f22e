"""Asks another edge whether a long poll is still open: a 409 is for the second of two open polls only.

A heartbeat outlives a killed replica by seconds, and a client that lost its connection polls again within
one. So an edge that finds another owner asks that owner's replica. A poll that is about to end is waited for;
one for which no replica replies counts as gone.
"""

import asyncio
import contextlib

from services.socket_edge.poll import STALLED_S, Poll
from services.socket_edge.registry import Registry
from shared.model.channels import instance_of
from shared.store.wakeups import PollQuery, PollReply, PollState, Wakeups

_REPLY_S = 1.0
# By then a response that stalled was aborted; one that is still being read belongs to an open poll.
_ENDING_S = STALLED_S + 3.0


class PollQueries:
    """The queries that one edge sends, and those that it replies to."""

    def __init__(self, wakeups: Wakeups, registry: Registry, *, instance: str) -> None:
        self._wakeups = wakeups
        self._registry = registry
        self._instance = instance
        self._open: dict[str, asyncio.Queue[PollState]] = {}
        self._waiting: dict[Poll, list[str]] = {}

    async def is_held(self, query: PollQuery) -> bool:
        """Does the owner keep its lease? Waits for a poll that is about to release it."""
        if instance_of(query.owner) == self._instance:
            return await self._is_held_here(query)
        replies = self._open[query.asker] = asyncio.Queue()
        was_ending = False
        try:
            self._wakeups.ask(query)
            while True:
                limit_s = _ENDING_S if was_ending else _REPLY_S
                state = await asyncio.wait_for(replies.get(), limit_s)
                if state is not PollState.ENDING:
                    return state is PollState.OPEN
                was_ending = True
        except TimeoutError:
            return was_ending
        finally:
            del self._open[query.asker]

    async def _is_held_here(self, query: PollQuery) -> bool:
        poll = self._find(query)
        if poll is not None and not poll.is_live:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(poll.released.wait(), _ENDING_S)
        return poll is not None and not poll.released.is_set()

    def on_reply(self, reply: PollReply) -> None:
        """Another edge replied; the query may have timed out."""
        if reply.asker in self._open:
            self._open[reply.asker].put_nowait(reply.state)

    def on_query(self, query: PollQuery) -> None:
        """Replies to another edge: at once, and again when a poll that is ending was released."""
        poll = self._find(query)
        if poll is None or poll.released.is_set():
            state = PollState.NONE
        elif poll.is_live:
            state = PollState.OPEN
        else:
            state = PollState.ENDING
            self._waiting.setdefault(poll, []).append(query.asker)
        self._wakeups.reply(PollReply(query.asker, state))

    def on_released(self, poll: Poll) -> None:
        """The poll has released its lease."""
        poll.released.set()
        for asker in self._waiting.pop(poll, ()):
            self._wakeups.reply(PollReply(asker, PollState.NONE))

    def _find(self, query: PollQuery) -> Poll | None:
        polls = (each for each in self._registry.of(query.channel) if isinstance(each, Poll))
        return next((poll for poll in polls if poll.lease.owner == query.owner), None)
