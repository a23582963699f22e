"""Reads wakeups and hands each on at once: reading awaits nothing but the next wakeup.

What takes longer, as all that follows a restored subscription, runs in a task of its own meanwhile.
"""

import asyncio
import contextlib
import logging
from collections.abc import Iterator

from redis.asyncio import Redis

from services.socket_edge.credential_watcher import CredentialWatcher
from services.socket_edge.heartbeat import EdgeHeartbeat
from services.socket_edge.held import HeldConnection, LeaseHolder
from services.socket_edge.questions import Questions
from services.socket_edge.registry import Registry
from shared.model.channels import EVERY_EDGE, instance_of
from shared.model.errors import StoreUnavailable
from shared.runtime.loops import end
from shared.store.inline_entries import InlineEntries, merged
from shared.store.wakeups import Line, answer_in, changed_key, question_in, subscribe_wakeups

logger = logging.getLogger(__name__)

# How many sessions are registered again at the same time; each takes a few round trips.
_RECOVERING = 32


class WakeupReader:
    """Wakeups for one instance, dispatched to its connections."""

    def __init__(
        self,
        redis: Redis,
        registry: Registry,
        *,
        instance: str,
        credentials: CredentialWatcher,
        questions: Questions,
        heartbeat: EdgeHeartbeat,
    ) -> None:
        self._redis = redis
        self._registry = registry
        self._instance = instance
        self._credentials = credentials
        self._questions = questions
        self._heartbeat = heartbeat
        self._inline: list[InlineEntries] = []
        self._recoveries: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Reads for ever."""
        names = (self._instance, instance_of(EVERY_EDGE))
        try:
            async with contextlib.aclosing(subscribe_wakeups(self._redis, *names)) as wakeups:
                async for wakeup in wakeups:
                    self.dispatch(wakeup)
        finally:
            await end(*self._recoveries)

    def dispatch(self, wakeup: InlineEntries | list[str] | Line) -> None:
        if isinstance(wakeup, InlineEntries):
            if not self._inline:
                # An edge that lags reads many in one turn: the more, the larger its frames.
                asyncio.get_running_loop().call_soon(self._deliver_inline)
            self._inline.append(wakeup)
        elif wakeup is Line.LOST:
            self._require_resync()
        elif wakeup is Line.BACK:
            # Not cancelled by the next one: a session that ends meanwhile must be dropped again.
            recovery = asyncio.create_task(self.recover())
            self._recoveries.add(recovery)
            recovery.add_done_callback(self._recoveries.discard)
        else:
            for word in wakeup:
                self._dispatch_word(word)

    async def recover(self) -> None:
        """What follows a restored subscription: Redis may have lost writes, and the edge missed wakeups."""
        # Before the queues: without a heartbeat our leases count for nothing.
        await self._heartbeat.beat()
        self._require_resync()
        async for connection in self._registry.in_turns():
            if isinstance(connection, LeaseHolder):
                connection.wake()
        self._credentials.check(self._registry.all())
        others = (each for each in self._registry.all() if not isinstance(each, LeaseHolder))
        await asyncio.gather(*(_recover(others) for _ in range(_RECOVERING)))

    def _require_resync(self) -> None:
        for connection in self._registry.all():
            if isinstance(connection, LeaseHolder):
                connection.require_resync()

    def _deliver_inline(self) -> None:
        entries, self._inline = self._inline, []
        for each in merged(entries):
            for connection in self._registry.of(each.channel):
                if isinstance(connection, LeaseHolder):
                    connection.loop.offer(each)

    def _dispatch_word(self, word: str) -> None:
        if (question := question_in(word)) is not None:
            self._questions.on_question(question)
        elif (reply := answer_in(word)) is not None:
            self._questions.on_reply(reply)
        elif (api_key_id := changed_key(word)) is not None:
            self._credentials.check(
                connection
                for connection in self._registry.all()
                if connection.credential is not None and connection.credential.api_key_id == api_key_id
            )
        else:
            for connection in self._registry.of(word):
                connection.wake()


async def _recover(connections: Iterator[HeldConnection]) -> None:
    """Takes its share of the connections, of which several take."""
    for connection in connections:
        try:
            if connection.is_held:
                await connection.recover()
        except StoreUnavailable:
            # The next restored subscription or the sweep comes back to it.
            continue
        except Exception:
            logger.exception("session.not-recovered", extra={"facts": {"id": connection.id}})
