"""A Pelion client's WebSocket, from its handshake to its end (docs/protocols/pelion.md, sections 4 to 6)."""

import contextlib
import logging

from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send

from services.socket_edge.credential_watcher import Credential, authenticate_receiver
from services.socket_edge.edge import Edge
from services.socket_edge.handshakes import admit
from services.socket_edge.leased_socket import LeasedSocket
from shared import telemetry
from shared.model.channels import CloseReason
from shared.model.errors import MissingScope, NoLongerOwner, Unauthenticated
from shared.runtime.http.responses import REQUEST_ID, Problem, refuse_handshake, request_id_of, too_many
from shared.store.leases import Claimed
from shared.wire.close_reasons import close_frame, close_text, refuses_at_handshake
from shared.wire.pelion.opening import secret_offered, subprotocol_answer

logger = logging.getLogger(__name__)


async def pelion_socket(edge: Edge, scope: Scope, receive: Receive, send: Send) -> None:
    """Serves one socket."""
    await receive()
    socket = await _open(edge, scope, send)
    # An idle socket must not keep its handshake in memory.
    del scope
    if socket is None:
        return
    try:
        # What a client says is ignored, except the code that it closes with.
        while (message := await receive())["type"] != "websocket.disconnect":
            pass
        socket.client_code = int(message.get("code", 0))
    finally:
        await edge.drop(socket)
        telemetry.sockets_closed.add(1, {"reason": socket.facts["reason"]})
        logger.info("socket.closed", extra={"facts": socket.facts})


async def _open(edge: Edge, scope: Scope, send: Send) -> LeasedSocket | None:
    """A socket that the edge holds; None when it was refused.

    Handshakes with the same secret are let in one at a time; the others get a 429.
    """
    secret = secret_offered(Headers(scope=scope), scope["subprotocols"])
    mark = edge.handshakes.begin(secret)
    if mark is None:
        telemetry.handshakes.add(1, {"outcome": "busy"})
        problem = too_many("another handshake with this secret is in progress; try again")
        await refuse_handshake(scope, send, problem)
        return None
    try:
        claim = await admit(scope, send, _claim(edge, secret))
        match claim:
            case None:
                return None
            case CloseReason():
                telemetry.handshakes.add(1, {"outcome": claim})
                await send(_acceptance(scope))
                code, text = close_frame(claim, dialect="pelion", year=edge.close_codes)
                await send({"type": "websocket.close", "code": code, "reason": text})
                return None
        return await _accept(edge, *claim, scope, send)
    finally:
        mark.over()


async def _claim(edge: Edge, secret: str | None) -> tuple[Claimed, Credential] | CloseReason:
    """The lease, claimed before the handshake is accepted, so that it can still be refused by HTTP.

    A CloseReason where the client is to be accepted, and then closed. Raises what `admit` takes.
    """
    edge.check_open()
    try:
        key, credential = await authenticate_receiver(edge.stores.api_keys, secret)
        return await edge.stores.leases.claim(key.id, owner=edge.new_owner()), credential
    except NoLongerOwner as error:
        return error.close_reason
    except (Unauthenticated, MissingScope) as error:
        if not refuses_at_handshake(edge.close_codes):
            return CloseReason.BAD_KEY
        if isinstance(error, MissingScope):
            raise
        headers = {"www-authenticate": "Bearer"}
        raise Problem(401, close_text(CloseReason.BAD_KEY), headers=headers) from None


async def _accept(
    edge: Edge, claimed: Claimed, credential: Credential, scope: Scope, send: Send
) -> LeasedSocket:
    telemetry.handshakes.add(1, {"outcome": "accepted"})
    socket = LeasedSocket(
        claimed,
        send=send,
        control=scope["extensions"]["websocket.control"],
        queues=edge.stores.queues,
        leases=edge.stores.leases,
        acks=edge.acks,
        limits=edge.limits,
        liveness=edge.liveness,
        year=edge.close_codes,
    )
    edge.hold(socket, credential)
    # If the client has gone already, the next message says so.
    with contextlib.suppress(OSError):
        await send(_acceptance(scope))
        await edge.opened(socket)
    return socket


def _acceptance(scope: Scope) -> Message:
    headers = [(REQUEST_ID.encode(), request_id_of(scope).encode())]
    subprotocol = subprotocol_answer(scope["subprotocols"])
    return {"type": "websocket.accept", "subprotocol": subprotocol, "headers": headers}
