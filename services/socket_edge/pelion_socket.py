"""A Pelion client's WebSocket, from its handshake to its end (docs/protocols/pelion.md, sections 4 to 6)."""

import logging
from collections.abc import Mapping

from starlette.types import Message, Receive, Scope, Send

from services.socket_edge.credential_watcher import Credential
from services.socket_edge.edge import Edge
from services.socket_edge.handshakes import Mark
from services.socket_edge.leased_socket import LeasedSocket
from shared import telemetry
from shared.model.api_keys import Scope as KeyScope
from shared.model.api_keys import hash_of
from shared.model.channels import CloseReason
from shared.model.errors import NoLongerOwner, StoreUnavailable
from shared.runtime.clock import now_ms
from shared.runtime.http.responses import REQUEST_ID, Problem, refuse_handshake, request_id_of
from shared.runtime.websocket.protocol import Control
from shared.store.leases import Claimed
from shared.wire.close_reasons import close_frame, close_text, refuses_at_handshake
from shared.wire.pelion.opening import secret_offered, subprotocol_answer

logger = logging.getLogger(__name__)

_MESSAGE_TOO_BIG = 1009


async def pelion_socket(edge: Edge, scope: Scope, receive: Receive, send: Send) -> None:
    """Serves one socket, from its handshake to its end."""
    await receive()
    entered = await _enter(edge, scope, send)
    if entered is None:
        return
    hold, credential, mark = entered
    try:
        with edge.holding(hold, credential):
            await send(_acceptance(scope))
            mark.over()
            # It may stay for days: what it said at the door need not.
            del entered, scope, credential
            if edge.stopping:
                # The goodbye began while this one was on its way in.
                await hold.end(CloseReason.STOPPING)
            client_code = await _until_gone(receive)
            await _let_go(edge, hold, client_code=client_code)
    except OSError:
        # It went before it was accepted.
        await _let_go(edge, hold, client_code=0)
    finally:
        mark.over()
        edge.keepalive.forget(hold)
        telemetry.sockets_closed.add(1, {"reason": hold.facts["reason"]})
        logger.info("socket.closed", extra={"facts": hold.facts})
        hold.over()


async def _enter(edge: Edge, scope: Scope, send: Send) -> tuple[LeasedSocket, Credential, Mark] | None:
    """A hold with its lease, not yet accepted; None when it was refused.

    Of those with one secret only one at a time is let in, the others get a 429.
    """
    secret = secret_offered(_text_headers(scope), scope["subprotocols"])
    mark = edge.handshakes.begin(secret)
    if mark is None:
        telemetry.handshakes.add(1, {"outcome": "busy"})
        message = "another handshake with this secret is in progress; try again"
        await refuse_handshake(scope, send, Problem(429, message, headers={"retry-after": "1"}))
        return None
    found = None
    try:
        found = await _let_in(edge, secret, scope, send)
    finally:
        if found is None:
            mark.over()
    return (*found, mark) if found else None


async def _let_in(
    edge: Edge, secret: str | None, scope: Scope, send: Send
) -> tuple[LeasedSocket, Credential] | None:
    """Claims before anything is accepted, so that a refusal can still be an HTTP answer; None after one."""
    try:
        if edge.stopping:
            raise Problem(503, "this replica is going away; try again", headers={"retry-after": "1"})
        claimed, credential = await _claim(edge, secret)
    except StoreUnavailable:
        telemetry.handshakes.add(1, {"outcome": "unavailable"})
        problem = Problem(503, "the service cannot reach its store; try again", headers={"retry-after": "1"})
        await refuse_handshake(scope, send, problem)
    except Problem as problem:
        telemetry.handshakes.add(1, {"outcome": "refused"})
        await refuse_handshake(scope, send, problem)
    except NoLongerOwner as error:
        telemetry.handshakes.add(1, {"outcome": error.close_reason})
        await send(_acceptance(scope))
        code, reason = close_frame(error.close_reason, dialect="pelion", year=edge.close_codes)
        await send({"type": "websocket.close", "code": code, "reason": reason})
    except Exception:
        logger.exception("handshake.failed", extra={"facts": {"request_id": request_id_of(scope)}})
        telemetry.handshakes.add(1, {"outcome": "failed"})
        await refuse_handshake(scope, send, Problem(500, "something went wrong here; it was logged"))
    else:
        telemetry.handshakes.add(1, {"outcome": "accepted"})
        return _new_hold(edge, claimed, scope, send), credential
    return None


async def _claim(edge: Edge, secret: str | None) -> tuple[Claimed, Credential]:
    key = await edge.stores.api_keys.authenticate(secret, now_ms=now_ms())
    at_once = refuses_at_handshake(edge.close_codes)
    if secret is None or key is None:
        if at_once:
            raise Problem(401, close_text(CloseReason.BAD_KEY), headers={"www-authenticate": "Bearer"})
        raise NoLongerOwner(close_reason=CloseReason.BAD_KEY)
    if KeyScope.RECEIVE not in key.scopes:
        if at_once:
            raise Problem(403, "the API key lacks the scope receive")
        raise NoLongerOwner(close_reason=CloseReason.BAD_KEY)
    credential = Credential(key.id, secret_hash := hash_of(secret), key.valid_until_ms(secret_hash))
    return await edge.stores.leases.claim(key.id, owner=edge.new_owner()), credential


def _acceptance(scope: Scope) -> Message:
    headers = [(REQUEST_ID.encode(), request_id_of(scope).encode())]
    subprotocol = subprotocol_answer(scope["subprotocols"])
    return {"type": "websocket.accept", "subprotocol": subprotocol, "headers": headers}


def _new_hold(edge: Edge, claimed: Claimed, scope: Scope, send: Send) -> LeasedSocket:
    control: Control = scope["extensions"]["websocket.control"]
    hold = LeasedSocket(
        send=send,
        control=control,
        claimed=claimed,
        queues=edge.stores.queues,
        acks=edge.acks,
        limits=edge.limits,
        keepalive=edge.keepalive,
        close_codes=edge.close_codes,
    )
    control["hear_pongs"](hold.heard_pong)
    return hold


async def _until_gone(receive: Receive) -> int:
    """Reads all the time; what a client says is ignored, but the code that it closes with."""
    while (message := await receive())["type"] != "websocket.disconnect":
        pass
    return int(message.get("code", 0))


async def _let_go(edge: Edge, hold: LeasedSocket, *, client_code: int) -> None:
    """Acks what was confirmed, remembers a frame that was too long, gives the lease back."""
    try:
        await hold.loop.stop()
        if client_code == _MESSAGE_TOO_BIG and hold.close_reason in (None, CloseReason.CLIENT_GONE):
            await _remember_refusal(edge, hold)
        if hold.close_reason not in (
            CloseReason.TAKEN_OVER,
            CloseReason.CHANNEL_DELETED,
            CloseReason.KEY_REVOKED,
        ):
            await edge.release(hold.lease)
    except StoreUnavailable:
        edge.release_later(hold.lease)
        logger.warning("socket.not-released", extra={"facts": hold.facts})


async def _remember_refusal(edge: Edge, hold: LeasedSocket) -> None:
    refused = hold.refused
    if refused is None:
        return
    limit, until, single = refused
    outcome = await edge.stores.queues.refuse(
        hold.lease, frame_limit_bytes=limit, until=until, single_entry=single
    )
    facts = {**hold.facts, "frame_limit_bytes": limit, "entry": single, "outcome": outcome}
    logger.warning("frame.refused", extra={"facts": facts})
    if outcome == "dropped":
        telemetry.dropped.add(1, {"reason": "too-long-for-client"})


def _text_headers(scope: Scope) -> Mapping[str, str]:
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
