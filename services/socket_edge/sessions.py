"""What the sockets of both session dialects do alike: limits at the handshake, acceptance, and their end."""

import contextlib
import logging
import math
from collections.abc import Awaitable, Callable, Sequence

from starlette.types import Receive, Scope, Send

from services.socket_edge.edge import Edge
from services.socket_edge.session_socket import Frames, SessionSocket
from shared import telemetry
from shared.model.sessions import Dialect, Session
from shared.runtime.clock import now_ms
from shared.runtime.http.client_address import client_address
from shared.runtime.http.responses import REQUEST_ID, request_id_of, too_many

logger = logging.getLogger(__name__)


def check_limits(edge: Edge, scope: Scope) -> str:
    """The client's address, if another socket may come from it. Raises Problem (429, 503)."""
    edge.check_open()
    limits = edge.session_limits
    address = client_address(scope, trusted=limits.trusted_proxies)
    most = limits.most_per_address
    if most is not None and edge.registry.count_at(address) >= most:
        raise too_many("too many sockets from this address")
    return address


def new_socket(
    edge: Edge, session_id: str, *, dialect: Dialect, address: str, scope: Scope, send: Send, frames: Frames
) -> SessionSocket:
    """A socket that the edge holds; others do not see its session yet."""
    limits = edge.session_limits
    session = Session(
        id=session_id,
        dialect=dialect,
        account_id="",
        owner=edge.new_owner(),
        source=address,
        destination=limits.destination,
        connected_at_ms=now_ms(),
    )
    socket = SessionSocket(
        session,
        control=scope["extensions"]["websocket.control"],
        send=send,
        liveness=edge.liveness,
        year=edge.close_codes,
        sessions=edge.stores.sessions,
        # A trigger only listens: that it answers pings is enough.
        idle_s=limits.idle_s if dialect is Dialect.KAZOO else math.inf,
        frames=frames,
    )
    edge.hold(socket)
    return socket


async def accept(
    edge: Edge,
    socket: SessionSocket,
    scope: Scope,
    send: Send,
    *,
    headers: Sequence[tuple[bytes, bytes]] = (),
    first_frame: bytes = b"",
) -> None:
    """Accepts the handshake. If the client has gone already, its next message says so."""
    telemetry.handshakes.add(1, {"outcome": "accepted"})
    with contextlib.suppress(OSError):
        all_headers = [(REQUEST_ID.encode(), request_id_of(scope).encode()), *headers]
        await send({"type": "websocket.accept", "subprotocol": None, "headers": all_headers})
        if first_frame:
            socket.write(first_frame)
        socket.opened()
        await edge.opened(socket)


async def _ignore(_: str) -> None:
    """What the client says means nothing."""


async def serve(
    edge: Edge,
    socket: SessionSocket,
    receive: Receive,
    on_text: Callable[[str], Awaitable[None]] = _ignore,
) -> None:
    """Reads what the client sends until it has gone, and ends the session."""
    try:
        while (message := await receive())["type"] != "websocket.disconnect":
            socket.on_message()
            if (text := message.get("text")) is not None:
                await on_text(text)
    finally:
        await edge.drop(socket)
        telemetry.sockets_closed.add(1, {"reason": socket.facts["reason"]})
        logger.info("session.closed", extra={"facts": socket.facts})
