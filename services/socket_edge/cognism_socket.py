"""A Cognism trigger: credentials and pattern come with the handshake (docs/protocols/cognism.md)."""

from starlette.datastructures import Headers
from starlette.types import Message, Scope, Send

from services.socket_edge.credential_watcher import Credential, authenticate_receiver
from services.socket_edge.edge import Edge
from services.socket_edge.handshakes import acceptance
from services.socket_edge.session_socket import SessionSocket, address_of, hold
from shared.model.api_keys import ApiKey
from shared.model.errors import MissingScope, Unauthenticated
from shared.model.events import Notification
from shared.model.sessions import Dialect, SessionBinding
from shared.runtime.http.responses import Problem
from shared.wire.cognism.credentials import credentials_offered, query_of
from shared.wire.cognism.frames import first_frame
from shared.wire.cognism.patterns import parse_pattern


async def open_cognism_socket(edge: Edge, scope: Scope, send: Send) -> tuple[SessionSocket, Message]:
    """A socket whose session is registered."""
    query = query_of(scope["query_string"])
    key, credential = await authenticate(edge, scope)
    pattern = query.get("pattern", "")
    bindings = [SessionBinding(key.account_id, pattern, parse_pattern(pattern))]
    socket = CognismSocket(edge, address=address_of(edge, scope), scope=scope, send=send)
    async with edge.socket_quota.place(key.account_id):
        await hold(edge, socket, is_authenticated=True)
    socket.counted_for = key.account_id
    try:
        await socket.check_bindings(bindings)
        await socket.register(bindings, account_id=key.account_id)
    except BaseException:
        # Also after a bug or a cancellation: nothing else would drop it.
        await edge.drop(socket)
        raise
    edge.authenticated(socket, credential)
    return socket, acceptance(scope, headers=[(b"x-websocket-session", socket.id.encode())])


async def authenticate(edge: Edge, scope: Scope) -> tuple[ApiKey, Credential]:
    """The API key of both credentials. Raises Problem (401, 403, 429), StoreUnavailable."""
    secret = credentials_offered(Headers(scope=scope), query_of(scope["query_string"])).secret
    if not secret:
        edge.limits.take_handshake(edge.limits.address_of(scope))
    try:
        return await authenticate_receiver(edge, scope, secret)
    except MissingScope as error:
        raise Problem(403, str(error)) from None
    except Unauthenticated:
        fields = [("accessToken", "must be the id of an API key"), ("secretKey", "must be its secret")]
        raise Problem(401, "access token or secret key is missing or wrong", fields=fields) from None


class CognismSocket(SessionSocket):
    """A trigger's socket, which only listens, and to which back ends can push."""

    kind = Dialect.COGNISM

    def on_accepted(self) -> None:
        self.write(first_frame(self.id))
        super().on_accepted()

    def frames(self, notification: Notification) -> list[bytes]:
        """The data as it was posted, without an envelope."""
        return [notification.data]

    async def _deliver(self) -> None:
        for push_id, data in await self._sessions.pushes(self.id):
            if self.write(data):
                await self._sessions.mark_pushed(self.id, push_id)
        await super()._deliver()
