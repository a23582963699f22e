"""Bodies of POST /v1/tickets (docs/protocols/tokens.md, section 7)."""

from typing import Annotated

from msgspec import Meta

from shared.wire.models import Closed, Count, rule
from shared.wire.stream_requests import MOST_TOPICS

_TICKET = rule(r"^tkt_[0-9a-f]{80}\Z", "must be a ticket")


class NewTicket(Closed):
    topics: Annotated[list[str], Meta(min_length=1, max_length=MOST_TOPICS, examples=[["news.today"]])]


class MadeTicket(Closed):
    """`url` is below the origin of the edges; `expires_in_s` is until its first use."""

    ticket: Annotated[str, Meta(pattern=_TICKET)]
    url: str
    expires_in_s: Count
