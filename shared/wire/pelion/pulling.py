"""The query of a long poll, and its plain-text response bodies (section 9)."""

from dataclasses import dataclass
from urllib.parse import parse_qs, quote, unquote

CONCURRENT = "CONCURRENT_PULL_REQUEST_RECEIVED"
CHANNEL_DELETED = "CHANNEL_DELETED"
REMOVED = "REMOVED"
ALREADY_DELETED = "ALREADY_DELETED"
# A header keeps them, and so does a query in which they are not encoded.
_PLAIN = "/:@!$'()*,;=?~"


@dataclass(frozen=True, slots=True)
class Pull:
    """The parameters of a poll.

    `after` is the uid of the last notification that the client has handled, '' for none yet. With None, a
    response that the client has read counts as handled.
    """

    waits: bool = True
    after: str | None = None

    @property
    def uids(self) -> list[str]:
        """What `after` may mean: the uid of an item, or X-Last-Uid, perhaps encoded again."""
        return list(dict.fromkeys((self.after, unquote(self.after)))) if self.after else []


def last_uid_header(uid: str) -> bytes:
    """X-Last-Uid, without what an HTTP library reads in its own way, or a URL loses."""
    return quote(uid, safe=_PLAIN).encode()


def parse_pull(query: bytes) -> Pull:
    """The parameters in the query of a GET; ignores unknown and malformed ones."""
    fields = parse_qs(query.decode(errors="replace"), keep_blank_values=True)
    no_wait = fields.get("noWait", [""])[-1].lower() == "true"
    return Pull(waits=not no_wait, after=fields.get("after", [None])[-1])
