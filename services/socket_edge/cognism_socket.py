"""A Cognism trigger: proven and told its pattern before the upgrade, then events as they were published
(docs/protocols/cognism.md)."""

import logging

from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send

from services.socket_edge.credential_watcher import Credential
from services.socket_edge.edge import Edge
from services.socket_edge.session_socket import SessionSocket
from shared import telemetry
from shared.model.api_keys import ApiKey, hash_of, new_id
from shared.model.api_keys import Scope as KeyScope
from shared.model.errors import Invalid, StoreUnavailable
from shared.model.sessions import Dialect, SessionBinding
from shared.runtime.clock import now_ms
from shared.runtime.http.responses import REQUEST_ID, Problem, refuse_handshake, request_id_of
from shared.store.api_keys import ApiKeys
from shared.wire.cognism.credentials import Credentials, credentials_offered, query_of
from shared.wire.cognism.frames import first_frame, frame
from shared.wire.cognism.patterns import parse_pattern

logger = logging.getLogger(__name__)

_SESSION_HEADER = "x-websocket-session"


async def cognism_socket(edge: Edge, scope: Scope, receive: Receive, send: Send) -> None:
    """Serves one socket; whatever refuses it does so before the upgrade."""
    await receive()
    try:
        query = query_of(scope["query_string"])
        credentials = credentials_offered(Headers(scope=scope), query)
        if edge.stopping:
            raise Problem(503, "this replica is going away; try again", headers={"retry-after": "1"})
        address = edge.sessions.address_of(scope)
        if not edge.sessions.has_room_for(address):
            raise Problem(429, "too many sockets from this address", headers={"retry-after": "1"})
        key, credential = await authenticate(edge.stores.api_keys, credentials)
        text = query.get("pattern", "")
        wanted = [SessionBinding(key.account_id, text, parse_pattern(text))]
    except StoreUnavailable:
        problem = Problem(503, "the service cannot reach its store; try again", headers={"retry-after": "1"})
        await _refuse(scope, send, problem)
        return
    except Invalid as error:
        await _refuse(scope, send, Problem(400, error.message, fields=error.fields, kind="validation_error"))
        return
    except Problem as problem:
        await _refuse(scope, send, problem)
        return
    socket = SessionSocket(
        dialect=Dialect.COGNISM, source=address, scope=scope, send=send, frames=lambda event: [frame(event)]
    )
    with edge.sessions.holding(socket):
        try:
            await _serve(edge, socket, key, credential, wanted, scope, receive, send)
        finally:
            await edge.sessions.forget(socket)


async def authenticate(api_keys: ApiKeys, credentials: Credentials) -> tuple[ApiKey, Credential]:
    """The API key that both credentials belong to. Raises Problem (401, 403), StoreUnavailable."""
    secret = credentials.secret
    key = await api_keys.authenticate(secret, now_ms=now_ms())
    if key is None or secret is None:
        fields = [("accessToken", "must be the id of an API key"), ("secretKey", "must be its secret")]
        raise Problem(401, "access token or secret key is missing or wrong", fields=fields)
    if KeyScope.RECEIVE not in key.scopes:
        raise Problem(403, f"the API key lacks the scope {KeyScope.RECEIVE}")
    secret_hash = hash_of(secret)
    return key, Credential(key.id, secret_hash, key.valid_until_ms(secret_hash))


async def _serve(
    edge: Edge,
    socket: SessionSocket,
    key: ApiKey,
    credential: Credential,
    wanted: list[SessionBinding],
    scope: Scope,
    receive: Receive,
    send: Send,
) -> None:
    session_id = new_id()
    try:
        await edge.sessions.show(
            socket, session_id, account_id=key.account_id, credential=credential, wanted=wanted
        )
    except StoreUnavailable:
        problem = Problem(503, "the service cannot reach its store; try again", headers={"retry-after": "1"})
        await _refuse(scope, send, problem)
        return
    telemetry.handshakes.add(1, {"outcome": "accepted"})
    try:
        await _open(edge, socket, session_id, scope, send)
        while (message := await receive())["type"] != "websocket.disconnect":
            _heard(edge, socket, message)
    except OSError:
        # It went before it was accepted.
        pass
    finally:
        telemetry.sockets_closed.add(1, {"reason": socket.facts["reason"]})
        logger.info("session.closed", extra={"facts": socket.facts})


async def _open(edge: Edge, socket: SessionSocket, session_id: str, scope: Scope, send: Send) -> None:
    headers = [
        (REQUEST_ID.encode(), request_id_of(scope).encode()),
        (_SESSION_HEADER.encode(), session_id.encode()),
    ]
    await send({"type": "websocket.accept", "subprotocol": None, "headers": headers})
    await socket.say(first_frame(session_id))
    edge.sessions.opened(socket)
    if edge.stopping:
        await edge.sessions.end(socket)


def _heard(edge: Edge, socket: SessionSocket, message: Message) -> None:
    """What a client says means nothing; that it answers pings does."""
    if message["type"] == "websocket.pong":
        edge.sessions.heard_pong(socket, message["bytes"])
    else:
        socket.heard()


async def _refuse(scope: Scope, send: Send, problem: Problem) -> None:
    telemetry.handshakes.add(1, {"outcome": "refused" if problem.status_code < 500 else "unavailable"})
    await refuse_handshake(scope, send, problem)
