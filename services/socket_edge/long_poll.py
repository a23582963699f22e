"""`/v2/notification/pull`: a response when there are notifications (docs/protocols/pelion.md, section 9).

A 200 is written whole, but ended only when it was read and acknowledged. Until then HTTP keeps the next poll
on the same connection waiting, so that it does not find the lease held.
"""

import asyncio
import logging

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from services.socket_edge.credential_watcher import Credential, authenticate_receiver
from services.socket_edge.edge import Edge
from services.socket_edge.poll import STALLED_S, Poll
from shared import telemetry
from shared.model.api_keys import ApiKey
from shared.model.channels import CloseReason, Kind, Lease
from shared.model.errors import (
    HeldByAnother,
    KeyRevoked,
    KindConflict,
    MissingScope,
    NoLongerOwner,
    QuotaExceeded,
    StoreUnavailable,
    Unauthenticated,
)
from shared.runtime.http.client_address import peer_is_trusted
from shared.runtime.http.responses import (
    Problem,
    internal_error,
    problem_response,
    quota_exceeded,
    unavailable,
)
from shared.wire.pelion import pulling
from shared.wire.pelion.handshake import bearer
from shared.wire.pelion.pulling import parse_pull

logger = logging.getLogger(__name__)

PULL_PATH = "/v2/notification/pull"

# The client does not wait longer than this for the release.
_RELEASE_S = 0.5
_CLAIMS = 5
_POLLED = "polled"
_CONCURRENT = ("concurrent", 409, pulling.CONCURRENT)
_DELETED = (CloseReason.CHANNEL_DELETED, 410, pulling.CHANNEL_DELETED)
_KEY_IS_GONE = (CloseReason.KEY_REVOKED, CloseReason.KEY_EXPIRED)


def pull_routes(edge: Edge) -> list[BaseRoute]:
    """A plain ASGI callable, as it ends its responses itself. No HEAD: it would take notifications unseen."""
    route = Route(PULL_PATH, _LongPolls(edge), methods=["GET", "DELETE"])
    assert route.methods is not None
    route.methods.discard("HEAD")
    return [route]


class _Refused(Exception):
    """The response to a poll that does not get the lease."""

    def __init__(self, outcome: str, status: int, text: str) -> None:
        super().__init__(text)
        self.outcome, self.status, self.text = outcome, status, text


class _LongPolls:
    def __init__(self, edge: Edge) -> None:
        self._edge = edge

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        serve = _get if scope["method"] == "GET" else _delete
        try:
            await serve(self._edge, scope, receive, send)
        except StoreUnavailable:
            raise unavailable() from None


async def _delete(edge: Edge, scope: Scope, receive: Receive, send: Send) -> None:
    """200 whether or not the channel was there: every client's clean-up relies on it."""
    key, _ = await _authenticate(edge, scope)
    was_there = await edge.stores.channels.delete(key.account_id, key.id, kind=Kind.PULL)
    response = PlainTextResponse(pulling.REMOVED if was_there else pulling.ALREADY_DELETED)
    await response(scope, receive, send)


async def _get(edge: Edge, scope: Scope, receive: Receive, send: Send) -> None:
    edge.check_open()
    pull = parse_pull(scope["query_string"])
    key, credential = await _authenticate(edge, scope)
    connection = scope["extensions"]["http.connection"]
    has_polled = connection["notes"].get(_POLLED) == key.id
    connection["notes"][_POLLED] = key.id
    is_proxied = peer_is_trusted(scope, trusted=edge.settings.trusted_proxies)
    # Once more with a claim, if the lease of the poll before has gone since.
    for may_be_kept in (True, False):
        try:
            async with edge.place_on_channel(key.account_id, key.id):
                kept = edge.kept_leases.take(key.id) if may_be_kept else None
                # Was it sent while the poll before it was still being acked? Clients send it as soon as they
                # have read a response, and may delete the channel right after, on another connection. The
                # delete overtakes a poll that waits its turn, which must not create the channel again.
                is_follow_up = connection["was_queued"] and has_polled
                lease = kept.lease if kept else await _claimed(edge, key, is_follow_up=is_follow_up)
        except _Refused as refused:
            telemetry.polls_ended.add(1, {"outcome": refused.outcome})
            await PlainTextResponse(refused.text, refused.status)(scope, receive, send)
            return
        except QuotaExceeded as error:
            raise quota_exceeded(error.quota, retry_after_s=error.retry_after_s) from None
        if pull.waits:
            connection["end_with_input"]()
        poll = Poll(edge, lease, connection=connection, pull=pull, is_proxied=is_proxied)
        poll.keeps, poll.kept = has_polled, kept
        poll.counted_for = key.account_id
        if await _held(edge, poll, credential, scope, receive, send):
            return


async def _held(
    edge: Edge, poll: Poll, credential: Credential, scope: Scope, receive: Receive, send: Send
) -> bool:
    """Serves the poll. False without a response: the lease that was kept for it is gone."""
    edge.hold(poll, credential)
    is_in_vain = True
    try:
        await _serve(edge, poll, scope, receive, send)
    finally:
        is_in_vain = poll.is_kept_in_vain
        edge.remove(poll)
        if not is_in_vain:
            telemetry.polls_ended.add(1, {"outcome": poll.outcome})
            logger.debug("poll.closed", extra={"facts": poll.facts})
    return not is_in_vain


async def _authenticate(edge: Edge, scope: Scope) -> tuple[ApiKey, Credential]:
    secret = bearer(Request(scope).headers.get("authorization", ""))
    try:
        return await authenticate_receiver(edge, scope, secret)
    except Unauthenticated as error:
        raise unauthenticated(str(error)) from None
    except MissingScope as error:
        raise Problem(403, str(error), fields=[("scopes", f"must include {error.scope}")]) from None


async def _claimed(edge: Edge, key: ApiKey, *, is_follow_up: bool) -> Lease:
    """The lease of the channel. Raises _Refused."""
    lease = await _claim(edge, key, is_follow_up=is_follow_up)
    if isinstance(lease, Lease):
        return lease
    raise _Refused(*lease)


async def _claim(edge: Edge, key: ApiKey, *, is_follow_up: bool) -> Lease | tuple[str, int, str]:
    """The lease of the channel, which is created if need be; or outcome, status and text of the response."""
    for attempt in range(_CLAIMS):
        try:
            # Nearly always it is there.
            if attempt and not is_follow_up:
                await edge.stores.channels.create(key.account_id, key.id, kind=Kind.PULL)
            return await edge.stores.leases.claim_poll(key.id, owner=edge.new_owner())
        except HeldByAnother:
            return _CONCURRENT
        except KindConflict as conflict:
            raise Problem(400, str(conflict)) from None
        except KeyRevoked:
            raise unauthenticated("the API key is revoked") from None
        except NoLongerOwner as lost:
            if lost.close_reason is CloseReason.PAUSED:
                raise unavailable("the channel is paused; poll again later") from None
            # NO_CHANNEL: there is none yet, or it was deleted since it was created.
            if lost.close_reason is not CloseReason.NO_CHANNEL:
                raise unauthenticated("the API key is revoked") from None
            if is_follow_up:
                return _DELETED
    raise unavailable("the channel keeps changing; retry")


async def _serve(edge: Edge, poll: Poll, scope: Scope, receive: Receive, send: Send) -> None:
    watching = asyncio.create_task(_watch(poll, receive))
    try:
        await edge.close_if_stopping(poll)
        await _decide(edge, poll)
        if poll.is_kept_in_vain:
            # A paused channel's lease may still be ours.
            await edge.heartbeat.release(poll)
            return
        if poll.message is not None:
            await _write(poll, send)
    except Exception:
        await edge.heartbeat.release(poll)
        raise
    finally:
        watching.cancel()
    # The client waits for the release, but not for long. No task for it: nearly always it takes a round trip.
    late: list[asyncio.Task[None]] = []
    timer = edge.event_loop.call_later(
        _RELEASE_S, lambda: late.append(asyncio.create_task(_end(poll, scope, receive, send)))
    )
    try:
        await edge.heartbeat.release(poll)
    finally:
        timer.cancel()
    await (late[0] if late else _end(poll, scope, receive, send))


async def _end(poll: Poll, scope: Scope, receive: Receive, send: Send) -> None:
    if poll.message is not None:
        await send({"type": "http.response.body", "body": b"", "more_body": False})
    elif poll.close_reason is not CloseReason.CLIENT_GONE:
        await _response(poll, scope)(scope, receive, send)


async def _watch(poll: Poll, receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue
    await poll.close(CloseReason.CLIENT_GONE)


async def _decide(edge: Edge, poll: Poll) -> None:
    """Waits until there are notifications, the poll ends, or the time is over."""
    pull = poll.pull
    for uid in pull.uids:
        count = await edge.stores.queues.ack_until_event(
            poll.lease,
            uid,
            count=edge.settings.batch_limit,
            size_bytes=edge.settings.in_flight_bytes,
        )
        telemetry.acked.add(count or 0)
        if count:
            break
    if pull.after is not None:
        poll.begin()
    if pull.waits:
        await poll.until_decided(within_s=edge.settings.long_poll_wait_s)
    else:
        await poll.loop.wait_idle()
    poll.decided.set()


async def _write(poll: Poll, send: Send) -> None:
    """Writes a 200 without ending it: the client has its length, and needs no end."""
    assert poll.message is not None
    text = poll.message.text
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(text)).encode())]
    if poll.pull.after is not None:
        headers.append((b"x-last-uid", pulling.last_uid_header(poll.last_uid)))
    try:
        async with asyncio.timeout(STALLED_S):
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            # The head goes alone. Linux acks a lone short segment up to 40 ms after it was read, but a second
            # one with the read. A proxy that reads the response and then resets would have acked nothing.
            await asyncio.sleep(0)
            await send({"type": "http.response.body", "body": text, "more_body": True})
    except TimeoutError:
        # The client pipelines requests and does not read the responses.
        await poll.abort()
    await poll.until_read()


def _response(poll: Poll, scope: Scope) -> Response:
    """The response without notifications. No error while the client may poll again: some count errors."""
    if poll.close_reason is CloseReason.CHANNEL_DELETED:
        return PlainTextResponse(pulling.CHANNEL_DELETED, 410)
    if poll.close_reason in _KEY_IS_GONE:
        problem = unauthenticated("the API key or its secret is no longer valid")
        return problem_response(Request(scope), problem)
    if poll.close_reason is CloseReason.UNEXPECTED:
        return problem_response(Request(scope), internal_error())
    # The next poll is better served by another replica, over another connection.
    leaves = poll.close_reason is CloseReason.STOPPING
    return Response(status_code=204, headers={"connection": "close"} if leaves else None)


def unauthenticated(message: str) -> Problem:
    """A request without a valid secret."""
    fields = [("Authorization", "must be Bearer and a valid secret")]
    return Problem(401, message, fields=fields, headers={"www-authenticate": "Bearer"})
