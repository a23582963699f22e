"""Tickets: a token's right to read some topics, in a URL for clients that can set no header.

Redis has only their hashes. A ticket is used within 30 s, and then is good for its one reader until the token
ends: a newer reader takes it over.
"""

import hashlib
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import orjson

from shared.model.errors import NoSuchAccount, TooManyTickets
from shared.model.grants import LONGEST_S, SKEW_S, Grant
from shared.redis.pipeline import RedisCommands
from shared.store import keyspace
from shared.store.token_names import subject_hash

FIRST_USE_S = 30
MOST_TICKETS = 10_000
MOST_OF_SUBJECT = 20
_KEPT_MS = (LONGEST_S + 2 * SKEW_S) * 1000
_TICKET = re.compile(r"tkt_([0-9a-f]{32})[0-9a-f]{48}")


@dataclass(frozen=True, slots=True)
class Ticket:
    """What the ticket was made for. `hash` names it."""

    hash: str
    account_id: str
    kid: str
    subject_hash: str
    topics: Sequence[str]
    until_ms: int
    issued_ms: float | None


class Taken(NamedTuple):
    """A ticket, and the reader that had it before; '' without one."""

    ticket: Ticket
    previous: str


class Tickets:
    """Makes tickets, and gives each to its newest reader. Raises StoreUnavailable."""

    def __init__(self, redis: RedisCommands) -> None:
        self._redis = redis

    async def make(self, grant: Grant, topics: Sequence[str]) -> str:
        """A new ticket; of one subject the oldest gives way. Raises NoSuchAccount, TooManyTickets."""
        ticket = f"tkt_{grant.account_id}{secrets.token_hex(24)}"
        record = orjson.dumps([grant.kid, grant.issued_ms, list(topics)])
        names = [keyspace.account(grant.account_id), *_names(grant.account_id)]
        status, *fields = await self._redis.script(
            *("ticket_make", names, _hash_of(ticket), subject_hash(grant.subject), grant.until_ms, record),
            *(FIRST_USE_S * 1000, MOST_OF_SUBJECT, MOST_TICKETS, _KEPT_MS),
        )
        if status == b"absent":
            raise NoSuchAccount
        if status == b"full":
            raise TooManyTickets(until_ms=int(fields[0]))
        return ticket

    async def take(self, given: str, *, reader: str) -> Taken | None:
        """Gives the ticket to this reader; None for one that is unknown, unused for too long, or over."""
        if (match := _TICKET.fullmatch(given)) is None:
            return None
        account_id, name = match[1], _hash_of(given)
        tickets, ends, _ = _names(account_id)
        status, *fields = await self._redis.script("ticket_take", [tickets, ends], name, reader)
        if status == b"gone":
            return None
        record, previous = fields
        subject, until_ms, rest = record.split(b" ", 2)
        kid, issued_ms, topics = orjson.loads(rest)
        found = Ticket(name, account_id, kid, subject.decode(), topics, int(until_ms), issued_ms)
        return Taken(found, previous.decode())

    async def readers(self, account_id: str, hashes: Sequence[str]) -> list[str]:
        """The newest reader of each ticket; '' of one that is over."""
        if not hashes:
            return []
        tickets, *_ = _names(account_id)
        found = await self._redis.command("HMGET", tickets, *(f"{each}:reader" for each in hashes))
        return ["" if reader is None else reader.decode() for reader in found]


def _names(account_id: str) -> list[str]:
    of_tickets = (keyspace.tickets, keyspace.ticket_ends, keyspace.ticket_subjects)
    return [name(account_id) for name in of_tickets]


def _hash_of(ticket: str) -> str:
    # A plain digest is enough: a ticket has 192 random bits.
    return hashlib.sha256(ticket.encode()).hexdigest()
