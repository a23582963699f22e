"""A session is one Kazoo or Cognism socket: a channel of its own, that dies with it."""

from dataclasses import dataclass
from enum import StrEnum

from shared.model.bindings import Pattern


class Dialect(StrEnum):
    """Whose frames the socket speaks."""

    KAZOO = "kazoo"
    COGNISM = "cognism"


class Pushed(StrEnum):
    """What came of handing data to one session's socket."""

    TAKEN = "taken"
    GONE = "gone"
    UNANSWERED = "unanswered"


@dataclass(frozen=True, slots=True)
class Session:
    """An open socket, as others see it. `bindings` are as the client spelt them, `metadata` is JSON."""

    id: str
    dialect: Dialect
    account_id: str
    owner: str
    source: str
    destination: str
    connected_at_ms: int
    bindings: tuple[str, ...]
    name: str = ""
    metadata: bytes = b""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One binding of a session: of which account ("*": of all), in the client's spelling and in ours."""

    account: str
    requested: str
    pattern: Pattern
