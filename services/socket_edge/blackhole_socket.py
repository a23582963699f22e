"""A Blackhole client's WebSocket: the shell around its conversation (docs/protocols/kazoo.md)."""

import asyncio
import logging
import math

from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from services.socket_edge.credential_watcher import Credential
from services.socket_edge.edge import Edge
from services.socket_edge.session_socket import SessionSocket
from shared import telemetry
from shared.model.api_keys import Principal, new_id
from shared.model.errors import StoreUnavailable
from shared.model.sessions import Dialect
from shared.runtime.clock import now_ms
from shared.runtime.http.responses import REQUEST_ID, Problem, refuse_handshake, request_id_of
from shared.wire.kazoo.blackhole import Authenticate, Authorize, Conversation, Effect, Reply, SaveSession

logger = logging.getLogger(__name__)


async def blackhole_socket(edge: Edge, scope: Scope, receive: Receive, send: Send) -> None:
    """Serves one socket. It says nothing until it is spoken to."""
    await receive()
    try:
        if edge.stopping:
            raise Problem(503, "this replica is going away; try again", headers={"retry-after": "1"})
        if scope["subprotocols"]:
            raise Problem(400, "there is no subprotocol here")
        address = edge.sessions.address_of(scope)
        if not edge.sessions.has_room_for(address):
            raise Problem(429, "too many sockets from this address", headers={"retry-after": "1"})
        principal = await _authenticate_handshake(edge, scope)
    except StoreUnavailable:
        telemetry.handshakes.add(1, {"outcome": "unavailable"})
        problem = Problem(503, "the service cannot reach its store; try again", headers={"retry-after": "1"})
        await refuse_handshake(scope, send, problem)
    except Problem as problem:
        telemetry.handshakes.add(1, {"outcome": "refused"})
        await refuse_handshake(scope, send, problem)
    else:
        await _Talk(edge, address, principal, scope, send).go_on(receive)


async def _authenticate_handshake(edge: Edge, scope: Scope) -> Principal | None:
    """Whom the handshake itself proves: nobody has to."""
    given = Headers(scope=scope).get("authorization")
    if given is None:
        return None
    principal = await edge.stores.principals.authenticate(
        given.removeprefix("Bearer ").strip(), now_ms=now_ms()
    )
    if principal is None:
        raise Problem(403, "the credentials are not valid")
    return principal


class _Talk:
    """One socket and its conversation."""

    def __init__(
        self, edge: Edge, address: str, principal: Principal | None, scope: Scope, send: Send
    ) -> None:
        now_s = asyncio.get_running_loop().time()
        self._edge = edge
        self._scope = scope
        self._send = send
        self._conversation = Conversation(new_id(), now_s=now_s, principal=principal)
        self._socket = SessionSocket(
            dialect=Dialect.KAZOO,
            source=address,
            scope=scope,
            send=send,
            frames=lambda notification: self._conversation.event_frames(notification, now_ms=now_ms()),
        )

    async def go_on(self, receive: Receive) -> None:
        """From the upgrade to the end."""
        edge, socket = self._edge, self._socket
        with edge.sessions.holding(socket):
            try:
                headers = [(REQUEST_ID.encode(), request_id_of(self._scope).encode())]
                await self._send({"type": "websocket.accept", "subprotocol": None, "headers": headers})
                telemetry.handshakes.add(1, {"outcome": "accepted"})
                edge.sessions.opened(socket)
                if edge.stopping:
                    await edge.sessions.end(socket)
                await self._listen(receive)
            except OSError:
                # It went before it was accepted.
                pass
            finally:
                await edge.sessions.forget(socket)
                telemetry.sockets_closed.add(1, {"reason": socket.facts["reason"]})
                logger.info("session.closed", extra={"facts": socket.facts})

    async def _listen(self, receive: Receive) -> None:
        while (message := await receive())["type"] != "websocket.disconnect":
            if message["type"] == "websocket.pong":
                self._edge.sessions.heard_pong(self._socket, message["bytes"])
                continue
            self._socket.heard()
            text = message.get("text")
            if text is not None:
                now_s = asyncio.get_running_loop().time()
                await self._carry_out(self._conversation.receive(text, now_s=now_s))

    async def _carry_out(self, effects: list[Effect]) -> None:
        """One frame's effects, until it has its reply."""
        while effects:
            effect = effects.pop()
            try:
                effects = await self._answer(effect)
            except StoreUnavailable:
                effects = self._conversation.failed()

    async def _answer(self, effect: Effect) -> list[Effect]:
        principals = self._edge.stores.principals
        match effect:
            case Reply(text):
                await self._socket.say(text)
            case Authenticate(token):
                principal = await principals.authenticate(token, now_ms=now_ms())
                return self._conversation.authenticated(principal)
            case Authorize(principal, account_id):
                return self._conversation.authorized(await principals.may_listen(principal, account_id))
            case SaveSession():
                await self._write(effect)
                return self._conversation.saved()
        return []

    async def _write(self, state: SaveSession) -> None:
        await self._edge.sessions.show(
            self._socket,
            self._conversation.session_id,
            account_id=state.principal.account_id,
            credential=Credential(state.principal.api_key_id, None, math.inf),
            wanted=state.bindings,
            name=state.name,
            metadata=state.metadata,
        )
