"""A Blackhole client's WebSocket: the shell around its conversation (docs/protocols/kazoo.md)."""

import asyncio

from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from services.socket_edge import sessions
from services.socket_edge.credential_watcher import Credential
from services.socket_edge.edge import Edge
from services.socket_edge.handshakes import admit
from shared.model.api_keys import Principal, new_id
from shared.model.errors import StoreUnavailable
from shared.model.sessions import Dialect
from shared.runtime.clock import now_ms
from shared.runtime.http.responses import Problem
from shared.wire.kazoo.blackhole import Authenticate, Changed, Conversation, Effect, MayListen, Reply


async def blackhole_socket(edge: Edge, scope: Scope, receive: Receive, send: Send) -> None:
    """Serves one socket, on which the client speaks first."""
    await receive()
    talk = await admit(scope, send, _enter(edge, scope, send))
    if talk is None:
        return
    await sessions.accept(edge, talk.socket, scope, send)
    # An idle socket must not keep its handshake in memory.
    del scope
    await sessions.serve(edge, talk.socket, receive, talk.on_text)


async def _enter(edge: Edge, scope: Scope, send: Send) -> "_Talk":
    """Raises what `admit` takes."""
    edge.check_open()
    if scope["subprotocols"]:
        raise Problem(400, "there is no subprotocol here")
    address = sessions.check_limits(edge, scope)
    principal = None
    # A client may also authenticate later, frame by frame.
    if (given := Headers(scope=scope).get("authorization")) is not None:
        token = given.removeprefix("Bearer ").strip()
        principal = await edge.stores.principals.authenticate(token, now_ms=now_ms())
        if principal is None:
            raise Problem(403, "the credentials are not valid")
    return _Talk(edge, address, principal, scope, send)


class _Talk:
    """One socket and its conversation."""

    def __init__(
        self, edge: Edge, address: str, principal: Principal | None, scope: Scope, send: Send
    ) -> None:
        self._edge = edge
        self._conversation = conversation = Conversation(new_id(), now_s=_now_s(), principal=principal)
        self.socket = sessions.new_socket(
            edge,
            conversation.session_id,
            dialect=Dialect.KAZOO,
            address=address,
            scope=scope,
            send=send,
            frames=lambda notification: conversation.events(notification, now_ms=now_ms()),
        )

    async def on_text(self, text: str) -> None:
        """Carries out one frame's effects until it has its reply."""
        effects = self._conversation.text(text, now_s=_now_s())
        while effects:
            try:
                effects = await self._carry_out(effects.pop())
            except StoreUnavailable:
                effects = self._conversation.failed()

    async def _carry_out(self, effect: Effect) -> list[Effect]:
        principals = self._edge.stores.principals
        match effect:
            case Reply(text):
                self.socket.write(text)
            case Authenticate(token):
                principal = await principals.authenticate(token, now_ms=now_ms())
                return self._conversation.authenticated(principal)
            case MayListen(principal, account_id):
                return self._conversation.judged(await principals.may_listen(principal, account_id))
            case Changed():
                await self._register(effect)
                return self._conversation.changed()
        return []

    async def _register(self, state: Changed) -> None:
        await self.socket.register(
            state.wanted,
            account_id=state.principal.account_id,
            name=state.name,
            metadata=state.metadata,
        )
        if self.socket.credential is None:
            self._edge.authenticated(self.socket, Credential(state.principal.api_key_id))


def _now_s() -> float:
    return asyncio.get_running_loop().time()
