"""What the sockets of both session dialects do alike: limits at the handshake, acceptance, and their end."""

import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence

from starlette.types import Receive, Scope, Send

from services.socket_edge.edge import Edge
from services.socket_edge.handshakes import acceptance
from services.socket_edge.session_socket import SessionSocket
from shared import telemetry
from shared.runtime.http.client_address import client_address
from shared.runtime.http.responses import too_many

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
        await send(acceptance(scope, headers=headers))
        if first_frame:
            socket.write(first_frame)
        socket.opened()
        await edge.opened(socket)


async def serve(
    edge: Edge,
    socket: SessionSocket,
    receive: Receive,
    on_text: Callable[[str], Awaitable[None]] | None = None,
) -> None:
    """Reads what the client sends until it has gone, and ends the session."""
    try:
        while (message := await receive())["type"] != "websocket.disconnect":
            socket.on_message()
            text = message.get("text")
            if on_text is not None and text is not None:
                await on_text(text)
    finally:
        await edge.drop(socket)
        telemetry.sockets_closed.add(1, {"reason": socket.facts["reason"]})
        logger.info("session.closed", extra={"facts": socket.facts})
