"""Hears wakeups and hands each on at once: nothing here waits, so reading awaits nothing but the next wakeup.

Slower work, such as recovering after a restored subscription, runs in tasks of its own.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence, Set
from typing import TYPE_CHECKING

from services.socket_edge.held import HeldConnection, LeaseHolder, in_turns
from services.socket_edge.session_socket import SessionSocket
from services.socket_edge.turns import SMALL, WakeupTurns
from shared.model.channels import EVERY_EDGE, instance_of
from shared.model.errors import StoreUnavailable
from shared.runtime.loops import end
from shared.store.inline_entries import InlineEntries, parse_wakeups
from shared.store.wakeups import (
    listen_to_wakeups,
    parse_key_changed,
)

if TYPE_CHECKING:
    from services.socket_edge.edge import Edge

logger = logging.getLogger(__name__)

# How many sessions are registered again at the same time; each takes a few round trips.
_RECOVERING = 32
_RETRY_S = 1.0


class WakeupReader:
    """Wakeups for one instance, dispatched to its connections."""

    def __init__(self, edge: "Edge", *, on_hearing: Callable[[], None] = lambda: None) -> None:
        self._edge = edge
        self._on_hearing = on_hearing
        self._registry = edge.registry
        self._turns = WakeupTurns()
        self.missed = 0
        """Counts wakeups that reached no connection, and times in which some were lost."""
        self._recoveries: set[asyncio.Task[None]] = set()
        self._recovers_sessions = False
        self._recover_sessions_again = False

    async def run(self) -> None:
        """Reads for ever."""
        names = (self._edge.instance, instance_of(EVERY_EDGE))
        try:
            await listen_to_wakeups(self._edge.stores.redis, *names, listener=self)
        finally:
            await end(*self._recoveries)

    def on_messages(self, messages: Sequence[bytes]) -> None:
        # An edge that lags gets many wakeups at once: together they make larger frames.
        words, appends = parse_wakeups(messages)
        if len(words) + len(appends) > SMALL or self._turns:
            self._handle_in_turns(words, appends)
            return
        for word in words:
            self._dispatch_word(word)
        for entries in appends:
            for connection in self._reached_by(entries.channel):
                if connection.loop is not None:
                    connection.loop.deliver_inline(entries)

    def _handle_in_turns(self, words: Sequence[str], appends: Sequence[InlineEntries]) -> None:
        turns, changed_keys = self._turns, set[str]()
        for word in words:
            if (api_key_id := parse_key_changed(word)) is not None:
                changed_keys.add(api_key_id)
            self._edge.kept_leases.give_up(word)
            for connection in self._reached_by(word):
                turns.wake(connection)
        if changed_keys:
            self._check_credentials(changed_keys)
        for entries in appends:
            for connection in self._reached_by(entries.channel):
                if connection.loop is not None:
                    turns.deliver(connection, entries)

    def _reached_by(self, id: str) -> Sequence[HeldConnection]:
        connections = self._registry.by_id.get(id)
        if connections is None:
            # It may be for a socket whose claim is under way.
            self.missed += 1
            return ()
        return connections

    def on_lost(self) -> None:
        self.missed += 1
        self._require_resync()

    def on_restored(self) -> None:
        self.missed += 1
        self._on_hearing()
        # Not cancelled by the next one: a session that ends meanwhile must be dropped again.
        recovery = asyncio.create_task(self._recover_surely())
        self._recoveries.add(recovery)
        recovery.add_done_callback(self._recoveries.discard)

    async def _recover_surely(self) -> None:
        """Without a recovery nothing is acknowledged, so a bug in one must not end it."""
        while True:
            try:
                await self.recover()
            except Exception:
                logger.exception("recovery.failed")
                await asyncio.sleep(_RETRY_S)
            else:
                return

    async def recover(self) -> None:
        """Makes up for an outage: Redis may have lost writes, and the edge has missed wakeups."""
        # First: without a heartbeat any edge may claim our leases.
        await self._edge.heartbeat.beat()
        self._require_resync()
        async for holder in in_turns(self._lease_holders()):
            holder.wake()
        self._edge.credentials.on_change(self._registry.all())
        # Their tickets may have newer readers.
        self._edge.tokens.check(self._registry.all())
        self._edge.socket_quota.report_all_again()
        await self._recover_sessions()
        await self._drop_unheld_sessions()

    async def _recover_sessions(self) -> None:
        """One pass at a time: while the subscription flaps, concurrent passes would pile up."""
        self._recover_sessions_again = True
        if self._recovers_sessions:
            return
        self._recovers_sessions = True
        try:
            while self._recover_sessions_again:
                self._recover_sessions_again = False
                sessions = (each for each in self._registry.all() if isinstance(each, SessionSocket))
                await asyncio.gather(*(_recover(sessions) for _ in range(_RECOVERING)))
        finally:
            self._recovers_sessions = False

    async def _drop_unheld_sessions(self) -> None:
        # If Redis fails meanwhile, the next restored subscription tries again.
        with contextlib.suppress(StoreUnavailable):
            dropped = await self._edge.stores.sessions.drop_unheld(
                self._edge.instance, is_held=self._registry.by_id.__contains__
            )
            if dropped:
                logger.info("sessions.dropped", extra={"facts": {"unheld": dropped}})

    def _require_resync(self) -> None:
        """Nothing is acknowledged before the queue was read again."""
        self._edge.kept_leases.give_up_all()
        for holder in self._lease_holders():
            holder.loop.require_resync()

    def _lease_holders(self) -> list[LeaseHolder]:
        return [each for each in self._registry.all() if isinstance(each, LeaseHolder)]

    def _dispatch_word(self, word: str) -> None:
        if (api_key_id := parse_key_changed(word)) is not None:
            self._check_credentials({api_key_id})
        else:
            self._edge.kept_leases.give_up(word)
            for connection in self._reached_by(word):
                connection.wake()

    def _check_credentials(self, api_key_ids: Set[str]) -> None:
        self._edge.credentials.on_change(
            connection
            for connection in self._registry.all()
            if connection.credential is not None and connection.credential.api_key_id in api_key_ids
        )


async def _recover(sessions: Iterator[SessionSocket]) -> None:
    """Recovers sessions until none is left of those that several calls share."""
    for session in sessions:
        try:
            if session.is_held:
                await session.recover()
        except StoreUnavailable:
            # The next restored subscription or the sweep tries again.
            continue
        except Exception:
            logger.exception("session.not-recovered", extra={"facts": {"id": session.id}})
