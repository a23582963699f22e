"""A Cognism trigger: credentials and pattern come with the handshake (docs/protocols/cognism.md)."""

from collections.abc import Mapping

from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from services.socket_edge import sessions
from services.socket_edge.credential_watcher import Credential, authenticate_receiver
from services.socket_edge.edge import Edge
from services.socket_edge.handshakes import admit
from services.socket_edge.session_socket import SessionSocket
from shared.model.api_keys import ApiKey, new_id
from shared.model.errors import StoreUnavailable, Unauthenticated
from shared.model.sessions import Dialect, Wanted
from shared.runtime.http.responses import Problem
from shared.store.api_keys import ApiKeys
from shared.wire.cognism.frames import first_frame, frame
from shared.wire.cognism.opening import credentials_offered, query_of
from shared.wire.cognism.patterns import parse_pattern

_SESSION_HEADER = b"x-websocket-session"


async def cognism_socket(edge: Edge, scope: Scope, receive: Receive, send: Send) -> None:
    """Serves one socket; a refusal comes before the upgrade."""
    await receive()
    socket = await admit(scope, send, _enter(edge, scope, send))
    if socket is None:
        return
    headers = [(_SESSION_HEADER, socket.id.encode())]
    await sessions.accept(edge, socket, scope, send, headers=headers, first_frame=first_frame(socket.id))
    # An idle socket must not keep its handshake in memory.
    del scope, headers
    await sessions.serve(edge, socket, receive)


async def authenticate(
    api_keys: ApiKeys, headers: Mapping[str, str], query: Mapping[str, str]
) -> tuple[ApiKey, Credential]:
    """The API key of both credentials. Raises Problem (401), MissingScope, StoreUnavailable."""
    try:
        return await authenticate_receiver(api_keys, credentials_offered(headers, query).secret)
    except Unauthenticated:
        fields = [("accessToken", "must be the id of an API key"), ("secretKey", "must be its secret")]
        raise Problem(401, "access token or secret key is missing or wrong", fields=fields) from None


async def _enter(edge: Edge, scope: Scope, send: Send) -> SessionSocket:
    """A socket whose session is registered. Raises what `admit` takes."""
    address = sessions.check_limits(edge, scope)
    query = query_of(scope["query_string"])
    key, credential = await authenticate(edge.stores.api_keys, Headers(scope=scope), query)
    pattern = query.get("pattern", "")
    wanted = [Wanted(key.account_id, pattern, parse_pattern(pattern))]
    socket = sessions.new_socket(
        edge,
        new_id(),
        dialect=Dialect.COGNISM,
        address=address,
        scope=scope,
        send=send,
        frames=lambda event: [frame(event)],
    )
    try:
        await socket.register(wanted, account_id=key.account_id)
    except StoreUnavailable:
        await edge.drop(socket)
        raise
    edge.authenticated(socket, credential)
    return socket
