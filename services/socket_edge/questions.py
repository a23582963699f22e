"""Does whoever holds a lease still poll? A 409 is for the second of two live polls, and for nothing else.

A heartbeat outlives a killed replica by seconds, and a client that was cut off comes back within one. So who
finds a live owner asks its replica: a poll that is about to end is waited for, and one that nobody answers
for is none.
"""

import asyncio
import contextlib
from collections.abc import Callable

from services.socket_edge.poll import STALLED_S, Poll
from shared.model.channels import instance_of
from shared.store.wakeups import PollQuery, PollReply, PollState, Wakeups

_ANSWER_S = 1.0
# By then an answer that nobody reads has been cut; one that is still being read is a poll that lives.
_ENDING_S = STALLED_S + 3.0


class Questions:
    """What one edge asks others, and answers them. `find(owner, channel)` gives a poll of its own."""

    def __init__(self, wakeups: Wakeups, *, instance: str, find: Callable[[str, str], Poll | None]) -> None:
        self._wakeups = wakeups
        self._instance = instance
        self._find = find
        self._open: dict[str, asyncio.Queue[PollState]] = {}
        self._told_at_end: dict[Poll, list[str]] = {}

    async def is_held(self, question: PollQuery) -> bool:
        """Does the owner keep its lease? Waits for one that is about to give it back."""
        if instance_of(question.owner) == self._instance:
            return await self._is_held_here(question)
        answers = self._open[question.asker] = asyncio.Queue()
        was_ending = False
        try:
            self._wakeups.ask(question)
            while True:
                limit_s = _ENDING_S if was_ending else _ANSWER_S
                standing = await asyncio.wait_for(answers.get(), limit_s)
                if standing is not PollState.ENDING:
                    return standing is PollState.OPEN
                was_ending = True
        except TimeoutError:
            return was_ending
        finally:
            del self._open[question.asker]

    async def _is_held_here(self, question: PollQuery) -> bool:
        poll = self._find(question.owner, question.channel)
        if poll is not None and not poll.is_live:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(poll.over.wait(), _ENDING_S)
        return poll is not None and not poll.over.is_set()

    def heard(self, told: PollReply) -> None:
        """An answer came; maybe to a question that nobody waits for any more."""
        if told.asker in self._open:
            self._open[told.asker].put_nowait(told.state)

    def asked(self, question: PollQuery) -> None:
        """Answers another edge: at once, and again when a poll that was close_reason is over."""
        poll = self._find(question.owner, question.channel)
        if poll is None or poll.over.is_set():
            standing = PollState.NONE
        elif poll.is_live:
            standing = PollState.OPEN
        else:
            standing = PollState.ENDING
            self._told_at_end.setdefault(poll, []).append(question.asker)
        self._wakeups.reply(PollReply(question.asker, standing))

    def over(self, poll: Poll) -> None:
        """It has given its lease back."""
        poll.over.set()
        for asker in self._told_at_end.pop(poll, ()):
            self._wakeups.reply(PollReply(asker, PollState.NONE))
