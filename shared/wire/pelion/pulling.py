"""The query of a long poll, and its plain-text response bodies (section 9)."""

from dataclasses import dataclass
from urllib.parse import parse_qs

CONCURRENT = "CONCURRENT_PULL_REQUEST_RECEIVED"
CHANNEL_DELETED = "CHANNEL_DELETED"
REMOVED = "REMOVED"
ALREADY_DELETED = "ALREADY_DELETED"


@dataclass(frozen=True, slots=True)
class Pull:
    """The parameters of a poll.

    `after` is the uid of the last notification that the client has handled, '' for none yet. With None, a
    response that the client has read counts as handled.
    """

    waits: bool = True
    after: str | None = None


def parse_pull(query: bytes) -> Pull:
    """The parameters in the query of a GET; ignores unknown and malformed ones."""
    fields = parse_qs(query.decode("latin-1"), keep_blank_values=True)
    no_wait = fields.get("noWait", [""])[-1].lower() == "true"
    return Pull(waits=not no_wait, after=fields.get("after", [None])[-1])
