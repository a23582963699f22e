"""The handshake of a Pelion client's WebSocket (docs/protocols/pelion.md, sections 4 to 6)."""

import contextlib

from starlette.datastructures import Headers
from starlette.types import Message, Scope, Send

from services.socket_edge.credential_watcher import authenticate_receiver
from services.socket_edge.edge import Edge
from services.socket_edge.handshakes import acceptance
from services.socket_edge.leased_socket import LeasedSocket
from shared import telemetry
from shared.model.channels import CloseReason
from shared.model.errors import MissingScope, NoLongerOwner, Unauthenticated
from shared.runtime.http.responses import Problem, refuse_handshake, too_many
from shared.wire.close_reasons import CLOSE_ROWS, close_frame
from shared.wire.pelion.handshake import secret_offered, subprotocol_response


async def open_pelion_socket(edge: Edge, scope: Scope, send: Send) -> tuple[LeasedSocket, Message] | None:
    """A socket with its lease, which is claimed before the upgrade, so that HTTP can still refuse it."""
    secret = secret_offered(Headers(scope=scope), scope["subprotocols"])
    if not secret:
        edge.limits.take_handshake(edge.limits.address_of(scope))
    accept = acceptance(scope, subprotocol=subprotocol_response(scope["subprotocols"]))
    with edge.handshakes.begin(secret) as may_proceed:
        if not may_proceed:
            telemetry.handshakes.add(1, {"outcome": "busy"})
            problem = too_many("another handshake with this secret is in progress; try again")
            await refuse_handshake(scope, send, problem)
            return None
        try:
            key, credential = await authenticate_receiver(edge, scope, secret)
            async with edge.place_on_channel(key):
                edge.flush_acks(key.id)
                claimed = await edge.stores.leases.claim(key.id, owner=edge.new_owner())
        except (NoLongerOwner, Unauthenticated, MissingScope) as error:
            await _refuse(edge, error, accept, send)
            return None
        socket = LeasedSocket(edge, claimed, scope=scope, send=send)
        socket.counted_for = key.account_id
        edge.hold(socket, credential)
        return socket, accept


async def _refuse(
    edge: Edge, error: NoLongerOwner | Unauthenticated | MissingScope, accept: Message, send: Send
) -> None:
    """Accepts the handshake and closes the socket, where the year has a close code; else raises Problem."""
    reason = error.close_reason if isinstance(error, NoLongerOwner) else CloseReason.BAD_KEY
    frame = close_frame(reason, dialect="pelion", year=edge.settings.pelion_close_codes)
    if frame is None and isinstance(error, MissingScope):
        raise Problem(403, str(error)) from None
    if frame is None:
        raise Problem(401, CLOSE_ROWS[reason].text, headers={"www-authenticate": "Bearer"}) from None
    telemetry.handshakes.add(1, {"outcome": reason})
    with contextlib.suppress(OSError):
        await send(accept)
        await send({"type": "websocket.close", "code": frame[0], "reason": frame[1]})
