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
from shared.store.wakeups import Asked, Standing, Told, Wakeups

_REPLY_S = 1.0
# By then a response that stalled was aborted; one that is still being read belongs to an open poll.
_ENDING_S = STALLED_S + 3.0


class Questions:
    """The questions that one edge asks, and those that it answers."""

    def __init__(self, wakeups: Wakeups, registry: Registry, *, instance: str) -> None:
        self._wakeups = wakeups
        self._registry = registry
        self._instance = instance
        self._open: dict[str, asyncio.Queue[Standing]] = {}
        self._waiting: dict[Poll, list[str]] = {}

    async def is_held(self, question: Asked) -> bool:
        """Does the owner keep its lease? Waits for a poll that is about to release it."""
        if instance_of(question.owner) == self._instance:
            return await self._is_held_here(question)
        replies = self._open[question.asker] = asyncio.Queue()
        was_ending = False
        try:
            self._wakeups.ask(question)
            while True:
                limit_s = _ENDING_S if was_ending else _REPLY_S
                standing = await asyncio.wait_for(replies.get(), limit_s)
                if standing is not Standing.ENDING:
                    return standing is Standing.OPEN
                was_ending = True
        except TimeoutError:
            return was_ending
        finally:
            del self._open[question.asker]

    async def _is_held_here(self, question: Asked) -> bool:
        poll = self._find(question)
        if poll is not None and not poll.is_live:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(poll.released.wait(), _ENDING_S)
        return poll is not None and not poll.released.is_set()

    def on_reply(self, reply: Told) -> None:
        """Another edge replied; the question may have timed out."""
        if reply.asker in self._open:
            self._open[reply.asker].put_nowait(reply.standing)

    def on_question(self, question: Asked) -> None:
        """Replies to another edge: at once, and again when a poll that is ending was released."""
        poll = self._find(question)
        if poll is None or poll.released.is_set():
            standing = Standing.NONE
        elif poll.is_live:
            standing = Standing.OPEN
        else:
            standing = Standing.ENDING
            self._waiting.setdefault(poll, []).append(question.asker)
        self._wakeups.tell(Told(question.asker, standing))

    def on_released(self, poll: Poll) -> None:
        """The poll has released its lease."""
        poll.released.set()
        for asker in self._waiting.pop(poll, ()):
            self._wakeups.tell(Told(asker, Standing.NONE))

    def _find(self, question: Asked) -> Poll | None:
        polls = (each for each in self._registry.of(question.channel) if isinstance(each, Poll))
        return next((poll for poll in polls if poll.lease.owner == question.owner), None)
