"""A session is one socket of a dialect that promises nothing: a channel of its own, which dies with it."""

from dataclasses import dataclass
from enum import StrEnum

from shared.model.bindings import Pattern

# Stands for every account, where a session asks for the events of all.
EVERY_ACCOUNT = "*"


class Dialect(StrEnum):
    """How a session speaks."""

    KAZOO = "kazoo"
    COGNISM = "cognism"


class Pushed(StrEnum):
    """What became of data that was pushed to one session."""

    TAKEN = "taken"
    GONE = "gone"
    UNANSWERED = "unanswered"


@dataclass(frozen=True, slots=True)
class Session:
    """A session as others see it. `owner` is the edge that holds its socket, as in a lease.

    `bindings` are as the client spelt them; `metadata` is the client's own JSON, or nothing.
    """

    id: str
    dialect: Dialect
    account_id: str
    owner: str
    source: str
    destination: str
    connected_at_ms: int
    bindings: tuple[str, ...] = ()
    name: str = ""
    metadata: bytes = b""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One thing a session asks for: events of an account (or of EVERY_ACCOUNT) that match a pattern.

    `requested` is the client's own spelling. Two of the same spelling for two accounts are two.
    """

    account: str
    requested: str
    pattern: Pattern
