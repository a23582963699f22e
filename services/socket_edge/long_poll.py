"""`/v2/notification/pull`: answered when there is something to tell (docs/protocols/pelion.md, section 9).

A 200 is written whole, but ended only when it has been read and acked: HTTP then keeps the next poll on the
same connection waiting, so that it meets no lease.
"""

import asyncio
import contextlib
import logging

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from services.socket_edge.credential_watcher import Credential
from services.socket_edge.edge import Edge
from services.socket_edge.poll import STALLED_S, Poll
from shared import telemetry
from shared.delivery.loop import Window
from shared.model.api_keys import ApiKey, hash_of
from shared.model.api_keys import Scope as KeyScope
from shared.model.channels import CloseReason, Kind, Lease
from shared.model.errors import HeldByAnother, KeyRevoked, KindConflict, NoLongerOwner, StoreUnavailable
from shared.runtime.clock import now_ms
from shared.runtime.http.protocol import Connection
from shared.runtime.http.responses import Problem, problem_response
from shared.store.wakeups import PollQuery
from shared.wire.pelion import pulling
from shared.wire.pelion.handshake import bearer
from shared.wire.pelion.pulling import Pull, parse_pull

logger = logging.getLogger(__name__)

PULL_PATH = "/v2/notification/pull"

# A release that takes longer does not keep the client waiting.
_RELEASE_S = 0.5
_TRIES = 5
_POLLED = "polled"
_LEASE_IS_GONE = (CloseReason.TAKEN_OVER, CloseReason.CHANNEL_DELETED, CloseReason.KEY_REVOKED)
_KEY_IS_GONE = (CloseReason.KEY_REVOKED, CloseReason.KEY_EXPIRED)


def pull_routes(edge: Edge) -> list[BaseRoute]:
    """A plain ASGI callable: it ends its answers itself. No HEAD: it would take what it does not tell."""
    route = Route(PULL_PATH, _LongPolls(edge), methods=["GET", "DELETE"])
    assert route.methods is not None
    route.methods.discard("HEAD")
    return [route]


class _LongPolls:
    def __init__(self, edge: Edge) -> None:
        self._edge = edge

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        serve = _get if scope["method"] == "GET" else _delete
        try:
            await serve(self._edge, scope, receive, send)
        except StoreUnavailable:
            raise _come_back("the store cannot take this now; try again") from None


async def _delete(edge: Edge, scope: Scope, receive: Receive, send: Send) -> None:
    """200 whether or not it was there: every client's clean-up relies on it."""
    key, _ = await _authenticate(edge, scope)
    was_there = await edge.stores.channels.delete(key.account_id, key.id, kind=Kind.PULL)
    answer = PlainTextResponse(pulling.REMOVED if was_there else pulling.ALREADY_DELETED)
    await answer(scope, receive, send)


async def _get(edge: Edge, scope: Scope, receive: Receive, send: Send) -> None:
    if edge.stopping:
        raise _come_back("this replica is going away; try again")
    asked = parse_pull(scope["query_string"])
    key, credential = await _authenticate(edge, scope)
    connection = scope["extensions"]["http.connection"]
    try:
        lease = await _claimed(edge, key, goes_on=_goes_on(connection, key))
    except _Deleted:
        telemetry.polls_ended.add(1, {"outcome": CloseReason.CHANNEL_DELETED})
        await PlainTextResponse(pulling.CHANNEL_DELETED, 410)(scope, receive, send)
        return
    if lease is None:
        telemetry.polls_ended.add(1, {"outcome": "concurrent"})
        await PlainTextResponse(pulling.CONCURRENT, 409)(scope, receive, send)
        return
    limits = edge.limits
    poll = Poll(
        lease=lease,
        queues=edge.stores.queues,
        connection=connection,
        most=Window(count=limits.frame_count, size_bytes=limits.in_flight_bytes),
        asked=asked,
    )
    try:
        with edge.holding(poll, credential):
            await _serve(edge, poll, asked, scope, receive, send)
    finally:
        telemetry.polls_ended.add(1, {"outcome": poll.outcome})
        logger.debug("poll.closed", extra={"facts": poll.facts})


async def _authenticate(edge: Edge, scope: Scope) -> tuple[ApiKey, Credential]:
    secret = bearer(Request(scope).headers.get("authorization", ""))
    key = await edge.stores.api_keys.authenticate(secret, now_ms=now_ms())
    if secret is None or key is None:
        raise _unauthenticated("the API key is missing or not valid")
    if KeyScope.RECEIVE not in key.scopes:
        fields = [("scopes", f"must include {KeyScope.RECEIVE}")]
        raise Problem(403, f"the API key lacks the scope {KeyScope.RECEIVE}", fields=fields)
    secret_hash = hash_of(secret)
    return key, Credential(key.id, secret_hash, key.valid_until_ms(secret_hash))


class _Deleted(Exception):
    """The channel was deleted after the poll was sent."""


def _goes_on(connection: Connection, key: ApiKey) -> bool:
    """Was the poll sent while the one before it was still being acked?

    Clients send it as soon as they have read an answer, and may delete the channel right after, on another
    connection. That overtakes a poll that has to wait its turn; it must not make the channel anew.
    """
    goes_on = connection["was_queued"] and connection["notes"].get(_POLLED) == key.id
    connection["notes"][_POLLED] = key.id
    return goes_on


async def _claimed(edge: Edge, key: ApiKey, *, goes_on: bool) -> Lease | None:
    """The lease of the channel, which is made if there is none; None when another poll is open.

    Raises _Deleted for a poll that goes on with a channel that is gone.
    """
    silent = ""
    for _ in range(_TRIES):
        owner = edge.new_owner()
        try:
            if not goes_on:
                await edge.stores.channels.create(key.account_id, key.id, kind=Kind.PULL, now_ms=now_ms())
            return await edge.stores.leases.claim_unheld(key.id, owner=owner, kind=Kind.PULL, silent=silent)
        except HeldByAnother as held:
            if await edge.questions.is_held(PollQuery(held.owner, key.id, asker=owner)):
                return None
            silent = held.owner
        except KindConflict as conflict:
            raise Problem(400, str(conflict)) from None
        except KeyRevoked:
            raise _unauthenticated("the API key is revoked") from None
        except NoLongerOwner as lost:
            # Without a channel: it was deleted since it was made.
            if lost.close_reason is not CloseReason.NO_CHANNEL:
                raise _unauthenticated("the API key is revoked") from None
            if goes_on:
                raise _Deleted from None
    raise _come_back("the channel does not come to rest; try again")


async def _serve(edge: Edge, poll: Poll, asked: Pull, scope: Scope, receive: Receive, send: Send) -> None:
    watching = asyncio.create_task(_watch(poll, receive))
    try:
        if edge.stopping:
            # The goodbye began while this one was on its way in.
            await poll.end(CloseReason.STOPPING)
        await _decide(edge, poll, asked)
        if poll.message is not None:
            await _write(poll, asked, send)
    except Exception:
        await _let_go(edge, poll)
        raise
    finally:
        watching.cancel()
    letting_go = asyncio.create_task(_let_go(edge, poll))
    await asyncio.wait([letting_go], timeout=_RELEASE_S)
    if poll.message is not None:
        await send({"type": "http.response.body", "body": b"", "more_body": False})
    elif poll.close_reason is not CloseReason.CLIENT_GONE:
        await _answer(poll, scope)(scope, receive, send)
    await letting_go


async def _watch(poll: Poll, receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue
    await poll.end(CloseReason.CLIENT_GONE)


async def _decide(edge: Edge, poll: Poll, asked: Pull) -> None:
    """Waits until there is something to tell, or no time left to wait."""
    if asked.after is not None:
        await _ack_after(edge, poll.lease, asked.after)
        poll.begin()
    if asked.waits:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(poll.decided.wait(), edge.long_poll_wait_s)
    else:
        await poll.loop.wait_idle()
    poll.give_up()


async def _ack_after(edge: Edge, lease: Lease, uid: str) -> None:
    if uid:
        limits = edge.limits
        count = await edge.stores.queues.ack_until_event(
            lease, uid, count=limits.frame_count, size_bytes=limits.in_flight_bytes
        )
        telemetry.acked.add(count or 0)


async def _write(poll: Poll, asked: Pull, send: Send) -> None:
    """Everything of a 200 but its end, which the peer does not need: it was told the length."""
    assert poll.message is not None
    text = poll.message.text
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(text)).encode())]
    if asked.after is not None:
        headers.append((b"x-last-uid", poll.last_uid.encode()))
    try:
        async with asyncio.timeout(STALLED_S):
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": text, "more_body": True})
    except TimeoutError:
        # It asks ahead, and does not read what it was answered before.
        await poll.abort()
    await poll.until_read()


async def _let_go(edge: Edge, poll: Poll) -> None:
    """Acks what was read, and gives the lease back."""
    try:
        await poll.loop.stop()
        if poll.close_reason not in _LEASE_IS_GONE:
            await edge.release(poll.lease)
    except StoreUnavailable:
        edge.release_later(poll.lease)
        logger.warning("poll.not-released", extra={"facts": poll.facts})
    finally:
        edge.questions.over(poll)


def _answer(poll: Poll, scope: Scope) -> Response:
    """What a poll answers that has nothing to tell. Who can poll again is told no error: some count those."""
    if poll.close_reason is CloseReason.CHANNEL_DELETED:
        return PlainTextResponse(pulling.CHANNEL_DELETED, 410)
    if poll.close_reason in _KEY_IS_GONE:
        return problem_response(
            Request(scope), _unauthenticated("the API key or its secret is no longer valid")
        )
    if poll.close_reason is CloseReason.UNEXPECTED:
        return problem_response(Request(scope), Problem(500, "something went wrong here; it was logged"))
    # Its next poll is better off with another replica, behind another connection.
    leaves = poll.close_reason is CloseReason.STOPPING
    return Response(status_code=204, headers={"connection": "close"} if leaves else None)


def _unauthenticated(message: str) -> Problem:
    fields = [("Authorization", "must be Bearer and a valid secret")]
    return Problem(401, message, fields=fields, headers={"www-authenticate": "Bearer"})


def _come_back(message: str) -> Problem:
    return Problem(503, message, headers={"retry-after": "1"})
