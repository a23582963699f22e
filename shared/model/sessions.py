"""A session is one socket with at-most-once delivery: a channel that ends with its socket."""

from dataclasses import dataclass
from enum import StrEnum

from shared.model.bindings import Pattern

# The account of a binding to the events of all accounts.
EVERY_ACCOUNT = "*"


class Dialect(StrEnum):
    """The dialect of a session."""

    KAZOO = "kazoo"
    COGNISM = "cognism"


class Pushed(StrEnum):
    """The outcome of a push to one session."""

    TAKEN = "taken"
    GONE = "gone"
    UNANSWERED = "unanswered"


@dataclass(frozen=True, slots=True)
class Session:
    """A session as it is listed. `owner` is the edge that holds its socket, as in a lease.

    `bindings` are in the client's own spelling; `metadata` is the client's JSON, or empty.
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
class SessionBinding:
    """What a session binds to: a pattern, in an account or EVERY_ACCOUNT, as `requested` by the client."""

    account: str
    requested: str
    pattern: Pattern
