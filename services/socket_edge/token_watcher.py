"""A connection that a token has opened ends with the token, its key, its subject's sign-out, or its ticket.

The end of the token is one of the connection's deadlines. For the rest each edge reads twice a second which
accounts have changed a token key or signed a subject out, and then looks at the connections of those only. A
sweep looks at all of them, in lots, once a minute: Redis may have lost a note.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Self

from services.socket_edge.held import HeldConnection
from shared.clock import now_ms
from shared.model.channels import CloseReason
from shared.model.errors import StoreUnavailable
from shared.model.grants import Grant, is_cut_off
from shared.store.tickets import Taken, Tickets
from shared.store.token_keys import Standing, TokenKeys
from shared.store.token_names import subject_hash

_READ_S = 0.5
_RETRY_S = 1.0
# So many are looked at in one round trip: a few milliseconds of the event loop.
_A_STEP = 100


@dataclass(frozen=True, slots=True)
class TokenCredential:
    """The token, or the ticket made with one, that opened a connection.

    `changes` are those that the watcher had heard of before it was read. `reader` names the connection as
    that of its `ticket`; both are '' without one.
    """

    account_id: str
    kid: str
    subject_hash: str
    issued_ms: float | None
    until_ms: int
    changes: int
    ticket: str = ""
    reader: str = ""

    @classmethod
    def of(cls, grant: Grant, *, changes: int) -> Self:
        hashed = subject_hash(grant.subject)
        return cls(grant.account_id, grant.kid, hashed, grant.issued_ms, grant.until_ms, changes)

    @classmethod
    def of_ticket(cls, taken: Taken, *, reader: str, changes: int) -> Self:
        ticket = taken.ticket
        return cls(
            *(ticket.account_id, ticket.kid, ticket.subject_hash, ticket.issued_ms, ticket.until_ms),
            changes=changes,
            ticket=ticket.hash,
            reader=reader,
        )


class TokenWatcher:
    """Looks at the tokens of open connections again, and closes those that have ended."""

    def __init__(
        self, keys: TokenKeys, tickets: Tickets, all_held: Callable[[], Iterable[HeldConnection]]
    ) -> None:
        self._keys = keys
        self._tickets = tickets
        self._all_held = all_held
        # By account.
        self._waiting: dict[str, dict[HeldConnection, None]] = {}
        self._any_waiting = asyncio.Event()
        self.changes = 0
        """How often the edge has heard that something changed, or may have missed it."""

    def check_new(self, connection: HeldConnection) -> None:
        """Has a new connection looked at, if something may have changed since its token was read."""
        if connection.token is not None and connection.token.changes != self.changes:
            self.check([connection])

    def check(self, connections: Iterable[HeldConnection]) -> None:
        """Has those of these connections that a token opened looked at again, soon."""
        for connection in connections:
            if (token := connection.token) is not None:
                self._waiting.setdefault(token.account_id, {})[connection] = None
        if self._waiting:
            self._any_waiting.set()

    async def watch(self) -> None:
        """Reads which accounts have changed, for ever. While Redis is away it reads nothing."""
        since_ms, seen = now_ms(), dict[str, float]()
        while True:
            with contextlib.suppress(StoreUnavailable):
                asked_ms = now_ms()
                found = await self._keys.changes(since_ms, now_ms=asked_ms)
                self._on_changes(found, seen)
                since_ms, seen = asked_ms, found or {}
            await asyncio.sleep(_READ_S)

    def _on_changes(self, found: dict[str, float] | None, seen: dict[str, float]) -> None:
        if found is not None and found.items() <= seen.items():
            return
        self.changes += 1
        self.check(
            each
            for each in self._all_held()
            if each.token is not None and (found is None or _is_new(each.token.account_id, found, seen))
        )

    async def run(self) -> None:
        """Looks at the connections that wait, for ever, those of one account after the other."""
        while True:
            await self._any_waiting.wait()
            if not await self._check_some():
                await asyncio.sleep(_RETRY_S)

    async def _check_some(self) -> bool:
        """Looks at some connections of one account; False when Redis could not be read.

        Not a part of `run`, whose variables would keep connections in memory while it waits.
        """
        account_id, waiting = next(iter(self._waiting.items()))
        step = list(islice(waiting, _A_STEP))
        # First: who is to be looked at once more, while Redis is asked, waits again.
        for connection in step:
            del waiting[connection]
        if not waiting:
            del self._waiting[account_id]
        if not self._waiting:
            self._any_waiting.clear()
        try:
            await self._check(account_id, [each for each in step if each.is_held and each.token is not None])
        except StoreUnavailable:
            # Behind the others: those of a dead primary must not hold up the rest.
            self._waiting[account_id] = self._waiting.pop(account_id, {})
            self.check(each for each in step if each.is_held)
            return False
        return True

    async def _check(self, account_id: str, connections: Sequence[HeldConnection]) -> None:
        """Raises StoreUnavailable."""
        tokens = [each.token for each in connections if each.token is not None]
        if not tokens:
            return
        with_tickets = [token for token in tokens if token.ticket]
        standings, readers = await asyncio.gather(
            self._keys.standings(
                account_id, [(token.kid, token.subject_hash) for token in tokens], now_ms=now_ms()
            ),
            self._tickets.readers(account_id, [token.ticket for token in with_tickets]),
        )
        newest = {token.ticket: reader for token, reader in zip(with_tickets, readers, strict=True)}
        for connection, token, standing in zip(connections, tokens, standings, strict=True):
            if not connection.is_held or connection.token is not token:
                # It has ended, or been refreshed: its new token was read after that.
                continue
            if reason := _end_of(token, standing, newest.get(token.ticket)):
                await connection.close(reason)


def _is_new(account_id: str, found: dict[str, float], seen: dict[str, float]) -> bool:
    return account_id in found and seen.get(account_id) != found[account_id]


def _end_of(token: TokenCredential, standing: Standing, reader: str | None) -> CloseReason | None:
    """Why the connection ends; None while it does not."""
    if not standing.has_key:
        return CloseReason.TOKEN_KEY_DELETED
    if is_cut_off(token.issued_ms, standing.cut_off_ms):
        return CloseReason.SIGNED_OUT
    # Redis may have lost the ticket, which then opens nothing more.
    if reader and reader != token.reader:
        return CloseReason.TICKET_TAKEN
    return None
