"""Who reads streams: an API key by its bindings, a token by its patterns, or a ticket by its topics.

docs/protocols/sse.md, section 1
"""

from dataclasses import dataclass

from starlette.requests import Request
from starlette.types import Scope

from services.socket_edge.credential_watcher import Credential, authenticate_receiver
from services.socket_edge.edge import Edge
from services.socket_edge.long_poll import unauthenticated
from services.socket_edge.token_watcher import TokenCredential
from shared.clock import now_ms
from shared.model.channels import instance_of
from shared.model.errors import Invalid, MissingScope, NotGranted, TokenRefused, Unauthenticated
from shared.model.grants import is_cut_off
from shared.runtime.http.responses import Problem
from shared.wire.native_tokens import is_token_like
from shared.wire.pelion.handshake import bearer
from shared.wire.stream_requests import StreamRequest, stream_request, ticket_in


@dataclass(frozen=True, slots=True)
class StreamCaller:
    """`reader` names the reader. That of a ticket has the ticket's name, and takes it from `previous`."""

    credential: Credential | TokenCredential
    wanted: StreamRequest
    reader: str
    previous: str = ""

    @property
    def account_id(self) -> str:
        return self.credential.account_id


async def stream_caller(edge: Edge, scope: Scope) -> StreamCaller:
    """The caller, who may read what it asks for. Raises Problem, StoreUnavailable."""
    try:
        if ticket := ticket_in(scope["query_string"]):
            caller = await _by_ticket(edge, scope, ticket)
        else:
            caller = await _by_header(edge, scope)
    except Invalid as error:
        raise Problem(400, error.message, fields=error.fields, kind="validation_error") from None
    except TokenRefused as error:
        raise _refused(str(error)) from None
    except Unauthenticated as error:
        raise unauthenticated(str(error)) from None
    except MissingScope as error:
        raise Problem(403, str(error), fields=[("scopes", f"must include {error.scope}")]) from None
    except NotGranted as error:
        raise Problem(403, str(error), fields=[(error.claim, "must name it")]) from None
    await edge.stream_rights.check_streams(caller.account_id, caller.wanted.topics)
    return caller


def wake_previous(edge: Edge, caller: StreamCaller) -> None:
    """The reader that had the ticket before ends at once, wherever it is."""
    if not caller.previous:
        return
    if instance_of(caller.previous) == edge.instance:
        edge.tokens.check(edge.registry.of(caller.reader))
    else:
        edge.stores.wakeups.send(caller.previous, caller.reader)


async def _by_header(edge: Edge, scope: Scope) -> StreamCaller:
    wanted = stream_request(scope["query_string"], last_event_id=_last_event_id(scope))
    given = bearer(Request(scope).headers.get("authorization", "")) or ""
    if is_token_like(given):
        return await _by_token(edge, scope, given, wanted)
    key, credential = await authenticate_receiver(edge, scope, given)
    await edge.stream_rights.check_bound(key.account_id, key.id, wanted.topics)
    # A name of its own: many readers have one API key, and no wakeup is for one of them.
    return StreamCaller(credential, wanted, edge.new_owner())


async def _by_token(edge: Edge, scope: Scope, token: str, wanted: StreamRequest) -> StreamCaller:
    address, changes = edge.limits.address_of(scope), edge.tokens.changes
    grant = await edge.stores.native_tokens.look_up(
        token, lambda find: edge.look_up(token, address, find), now_ms=now_ms()
    )
    for topic in wanted.topics:
        if not grant.may_read(topic):
            raise NotGranted("read", f"the topic {topic}")
    return StreamCaller(TokenCredential.of(grant, changes=changes), wanted, edge.new_owner())


async def _by_ticket(edge: Edge, scope: Scope, ticket: str) -> StreamCaller:
    stores, address = edge.stores, edge.limits.address_of(scope)
    # Before it is taken: a malformed request must not end the reader that has it.
    stream_request(scope["query_string"], last_event_id="", topics=[""])
    claim, changes = edge.new_owner(), edge.tokens.changes
    taken = await edge.look_up(ticket, address, lambda: stores.tickets.take(ticket, reader=claim))
    if taken is None:
        raise _refused("the ticket is unknown, was not used within 30 s, or its token has expired")
    credential = TokenCredential.of_ticket(taken, reader=claim, changes=changes)
    [standing] = await stores.native_tokens.keys.standings(
        credential.account_id, [(credential.kid, credential.subject_hash)], now_ms=now_ms()
    )
    if not standing.has_key or is_cut_off(credential.issued_ms, standing.cut_off_ms):
        raise _refused("the key of the ticket's token was deleted, or its subject was signed out")
    wanted = stream_request(
        scope["query_string"], last_event_id=_last_event_id(scope), topics=taken.ticket.topics
    )
    return StreamCaller(credential, wanted, credential.ticket, taken.previous)


def _last_event_id(scope: Scope) -> str:
    return Request(scope).headers.get("last-event-id", "")


def _refused(message: str) -> Problem:
    """A token or a ticket that opens nothing."""
    fields = [("Authorization", "must be Bearer and a token that is valid now, or a ticket in the URL")]
    headers = {"www-authenticate": 'Bearer error="invalid_token"'}
    return Problem(401, message, fields=fields, headers=headers)
