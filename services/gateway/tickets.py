"""POST /v1/tickets: a token's right to read, for clients that can set no header.

docs/protocols/tokens.md, section 7
"""

from starlette.requests import Request
from starlette.responses import Response

from services.gateway.bodies import model_response
from services.gateway.context import context_of
from services.gateway.openapi import response
from services.gateway.operations import Access, Operation
from shared.clock import now_ms
from shared.model.errors import NoSuchAccount, NotGranted, TooManyTickets
from shared.model.grants import Grant
from shared.runtime.http.responses import Problem
from shared.store.tickets import FIRST_USE_S
from shared.wire.stream_requests import check_topics, no_stream
from shared.wire.tickets import MadeTicket, NewTicket


async def _bearer(request: Request) -> Grant:
    """Raises TokenRefused."""
    return await context_of(request).authenticator.bearer(request)


_BEARER = Access(_bearer, ("token",), (401, 403, 404, 429, 503))


@Operation(
    "POST /v1/tickets",
    _BEARER,
    status=201,
    successes={201: response("The ticket.", MadeTicket, Cache_Control={"const": "no-store"})},
)
async def make_ticket(request: Request, grant: Grant, posted: NewTicket) -> Response:
    """Makes a ticket for an EventSource: it reads these topics until the token ends."""
    check_topics(posted.topics, "topics")
    for topic in posted.topics:
        if not grant.may_read(topic):
            raise NotGranted("read", f"the topic {topic}")
    stores = context_of(request).stores
    rules = await stores.streams.rules(grant.account_id)
    for topic in posted.topics:
        if rules.keep_for(topic) is None:
            raise Problem(404, no_stream(topic), fields=[("topics", f"{topic} must have a rule")])
    try:
        ticket = await stores.tickets.make(grant, posted.topics)
    except NoSuchAccount as error:
        raise Problem(404, str(error)) from None
    except TooManyTickets as error:
        retry_after_s = max(1, (error.until_ms - now_ms()) // 1000)
        message = "the account has too many tickets: retry later, or read with the token in a header"
        raise Problem(429, message, headers={"retry-after": str(retry_after_s)}) from None
    made = MadeTicket(ticket, f"/v1/stream?ticket={ticket}", FIRST_USE_S)
    shown = model_response(made, status=201)
    shown.headers["cache-control"] = "no-store"
    return shown
