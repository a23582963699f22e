"""What a client asks of a long poll, and the bare words that answer it (section 9)."""

from dataclasses import dataclass
from urllib.parse import parse_qs

CONCURRENT = "CONCURRENT_PULL_REQUEST_RECEIVED"
CHANNEL_DELETED = "CHANNEL_DELETED"
REMOVED = "REMOVED"
ALREADY_DELETED = "ALREADY_DELETED"


@dataclass(frozen=True, slots=True)
class Pull:
    """How a poll is to be served.

    `after` is the uid of the last notification that the client has handled, '' for none yet. With None it
    says nothing about that, and what it has read counts as handled.
    """

    waits: bool = True
    after: str | None = None


def asked_for(query: bytes) -> Pull:
    """What the query of a GET says; what we do not know of is ignored, and so is a malformed query."""
    fields = parse_qs(query.decode("latin-1"), keep_blank_values=True)
    no_wait = fields.get("noWait", [""])[-1].lower() == "true"
    return Pull(waits=not no_wait, after=fields.get("after", [None])[-1])
