"""The handshake of a native WebSocket, and which handler serves which operation."""

from collections.abc import Mapping

from starlette.datastructures import Headers
from starlette.types import Message, Scope, Send

from services.socket_edge.edge import Edge
from services.socket_edge.handshakes import acceptance
from services.socket_edge.native.callers import NativeCaller, caller_of_handshake
from services.socket_edge.native.channels import CHANNEL_HANDLERS
from services.socket_edge.native.parts import Handler
from services.socket_edge.native.publish import publish
from services.socket_edge.native.session import auth, ping, refresh
from services.socket_edge.native.socket import NativeSocket
from services.socket_edge.native.topics import subscribe, unsubscribe
from services.socket_edge.session_socket import address_of, hold
from shared.model.errors import TokenRefused, Unauthenticated
from shared.runtime.http.client_address import block_of
from shared.runtime.http.origins import may_connect
from shared.runtime.http.responses import Problem
from shared.wire.native.frames import SUBPROTOCOL

NATIVE_PATH = "/v1/socket"
HANDLERS: Mapping[str, Handler] = {
    "auth": auth,
    "refresh": refresh,
    "ping": ping,
    "subscribe": subscribe,
    "unsubscribe": unsubscribe,
    **CHANNEL_HANDLERS,
    "publish": publish,
}


async def open_native_socket(edge: Edge, scope: Scope, send: Send) -> tuple[NativeSocket, Message]:
    """A socket whose client may have authenticated by its handshake, or does by its first request."""
    if SUBPROTOCOL not in scope["subprotocols"]:
        raise Problem(400, f"the subprotocol {SUBPROTOCOL} must be offered in Sec-WebSocket-Protocol")
    headers = Headers(scope=scope)
    if not may_connect(scope["headers"], edge.settings.allowed_origins):
        message = "pages of this origin may not connect: NOTIFY_ALLOWED_ORIGINS does not name it"
        raise Problem(403, message, fields=[_ORIGIN])
    address, caller = address_of(edge, scope), None
    if (authorization := headers.get("authorization")) is None:
        edge.limits.take_handshake(block_of(address))
    else:
        caller = await _caller(edge, scope, authorization)
    socket = NativeSocket(edge, HANDLERS, address=address, scope=scope, send=send)
    if caller is None:
        await hold(edge, socket, is_authenticated=False)
    else:
        async with edge.socket_quota.place(caller.account_id):
            await hold(edge, socket, is_authenticated=True)
        socket.counted_for = caller.account_id
        socket.become(caller.right, caller.credential)
    return socket, acceptance(scope, subprotocol=SUBPROTOCOL)


async def _caller(edge: Edge, scope: Scope, authorization: str) -> NativeCaller:
    """Raises Problem (401, 429), StoreUnavailable."""
    try:
        return await caller_of_handshake(edge, scope, authorization)
    except TokenRefused as error:
        headers = {"www-authenticate": 'Bearer error="invalid_token"'}
        raise Problem(401, str(error), fields=[_AUTHORIZATION], headers=headers) from None
    except Unauthenticated as error:
        headers = {"www-authenticate": "Bearer"}
        raise Problem(401, str(error), fields=[_AUTHORIZATION], headers=headers) from None


_AUTHORIZATION = ("Authorization", "must be Bearer and a token, or the secret of an API key")
_ORIGIN = ("Origin", "must be one of NOTIFY_ALLOWED_ORIGINS, or the host itself")
