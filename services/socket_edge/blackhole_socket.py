"""A Blackhole client's WebSocket: the shell around its conversation (docs/protocols/kazoo.md)."""

import asyncio

from starlette.datastructures import Headers
from starlette.types import Message, Scope, Send

from services.socket_edge.admission import Budget
from services.socket_edge.credential_watcher import Credential
from services.socket_edge.edge import Edge
from services.socket_edge.handshakes import acceptance
from services.socket_edge.held import now_s
from services.socket_edge.session_socket import SessionSocket, address_of, hold
from shared.clock import now_ms
from shared.model.api_keys import Principal
from shared.model.api_keys import Scope as KeyScope
from shared.model.channels import CloseReason
from shared.model.errors import QuotaExceeded, StoreUnavailable
from shared.model.events import Notification
from shared.model.quotas import Quota
from shared.model.sessions import Dialect
from shared.runtime.http.client_address import block_of
from shared.runtime.http.responses import Problem
from shared.wire.kazoo.blackhole import Authenticate, Authorize, Conversation, Effect, Reply, SaveSession


async def open_blackhole_socket(edge: Edge, scope: Scope, send: Send) -> tuple[SessionSocket, Message]:
    """A socket on which the client speaks first."""
    if scope["subprotocols"]:
        raise Problem(400, "there is no subprotocol here")
    principal, address = None, address_of(edge, scope)
    # A client may also authenticate later, frame by frame.
    if (given := Headers(scope=scope).get("authorization")) is None:
        edge.limits.take_handshake(block_of(address))
    else:
        principal = await _authenticate(edge, given.removeprefix("Bearer ").strip(), address)
        if principal is None:
            raise Problem(403, "the credentials are not valid")
    may_receive = principal is not None and KeyScope.RECEIVE in principal.scopes
    socket = BlackholeSocket(edge, address=address, principal=principal, scope=scope, send=send)
    if principal is None or not may_receive:
        await hold(edge, socket, is_authenticated=False)
    else:
        async with edge.socket_quota.place(principal.account_id):
            await hold(edge, socket, is_authenticated=True)
        socket.counted_for = principal.account_id
    if principal is not None:
        socket.on_principal(principal)
    return socket, acceptance(scope)


async def _authenticate(edge: Edge, token: str, address: str) -> Principal | None:
    """Raises Problem (429) when the address has failed too often, StoreUnavailable."""
    principals = edge.stores.principals
    return await edge.look_up(
        token, block_of(address), lambda: principals.authenticate(token, now_ms=now_ms())
    )


class BlackholeSocket(SessionSocket):
    """One socket and its conversation. The client must send something from time to time."""

    kind = Dialect.KAZOO

    def __init__(
        self, edge: Edge, *, address: str, principal: Principal | None, scope: Scope, send: Send
    ) -> None:
        super().__init__(edge, address=address, scope=scope, send=send)
        self._conversation = Conversation(self.id, now_s=now_s(), principal=principal)
        self._last_ping_s = scope["extensions"]["websocket.control"]["last_ping_s"]
        self._heard_s = now_s()
        # What the client may still send before its first valid credential; None from then on.
        self._budget: Budget | None = Budget(edge.settings)
        self._hear_control_frames = scope["extensions"]["websocket.control"]["hear_control_frames"]
        self._hear_control_frames(self._on_control_frame)
        # Its handshake had no credential.
        self._is_anonymous = principal is None
        self._closing: asyncio.Task[None] | None = None

    def frames(self, notification: Notification) -> list[bytes]:
        return self._conversation.event_frames(notification, now_ms=now_ms())

    def on_principal(self, principal: Principal) -> None:
        """The client has sent a valid credential: the socket ends with it, and is no stranger's any more."""
        if self.credential != (credential := Credential.of(principal)):
            self._edge.authenticated(self, credential)
        # Without the scope it can never receive anything.
        if KeyScope.RECEIVE in principal.scopes and self._budget is not None:
            self._budget = None
            if self._is_anonymous:
                self._edge.limits.give_back_handshake(block_of(self.session.source))
            self._hear_control_frames(None)
            self._edge.admission.forget(self)

    def _on_control_frame(self, size_bytes: int) -> None:
        """A stranger's ping or pong counts like a message. The pongs to our pings are not heard here."""
        if self._budget is not None and not self._budget.take(size_bytes):
            self._hear_control_frames(None)
            self._closing = asyncio.create_task(self.close_at_once(CloseReason.OVER_BUDGET))

    async def on_message(self, content: str | bytes) -> None:
        """Executes the frame's effects until it has its reply."""
        self._heard_s = now_s()
        if self.close_reason is not None:
            # What was read together with the frame that closed the socket.
            return
        if self._budget is not None and not self._budget.take(_size_bytes(content)):
            await self.close_at_once(CloseReason.OVER_BUDGET)
            return
        if isinstance(content, bytes):
            return
        effect = self._conversation.receive(content, now_s=self._heard_s)
        while not isinstance(effect, Reply):
            try:
                effect = await self._execute(effect)
            except StoreUnavailable:
                effect = self._conversation.fail("temporarily unavailable, try again")
            except QuotaExceeded as error:
                self.write(self._conversation.fail(str(error)).text)
                if error.quota is Quota.SOCKETS:
                    await self.close(CloseReason.OVER_QUOTA)
                return
            except Problem as refusal:
                # Its address has failed to authenticate too often.
                self.write(self._conversation.fail(refusal.detail).text)
                await self.close_at_once(CloseReason.TOO_MANY_FAILURES)
                return
        self.write(effect.text)

    async def _execute(self, effect: Authenticate | Authorize | SaveSession) -> Effect:
        principals = self._edge.stores.principals
        match effect:
            case Authenticate(token):
                found = await _authenticate(self._edge, token, self.session.source)
                if found is not None:
                    await self._count(found)
                    self.on_principal(found)
                return self._conversation.resume(found)
            case Authorize(principal, account_id):
                return self._conversation.resume(await principals.may_listen(principal, account_id))
            case SaveSession(principal, bindings, name, metadata):
                await self._count(principal)
                await self.check_bindings(bindings)
                # First: also a write that failed may have been done, and events come from then on.
                self.on_principal(principal)
                await self.register(bindings, account_id=principal.account_id, name=name, metadata=metadata)
                return self._conversation.resume(None)

    async def _count(self, principal: Principal) -> None:
        """Counts the socket in the quota of the account that it has authenticated for first."""
        if self.counted_for is None and KeyScope.RECEIVE in principal.scopes:
            await self._edge.socket_quota.admit(principal.account_id)
            self.counted_for = principal.account_id
            if not self.is_held:
                # It has ended meanwhile.
                self._edge.socket_quota.release(self)

    # Liveness

    @property
    def _idle_at_s(self) -> float:
        """Pings from the client count, pongs do not."""
        heard_s: float = max(self._heard_s, self._last_ping_s())
        return heard_s + self._edge.settings.blackhole_idle_s

    @property
    def next_check_s(self) -> float:
        due_s = super().next_check_s
        return due_s if self.close_reason is not None else min(due_s, self._idle_at_s)

    async def check(self, now_s: float) -> None:
        await super().check(now_s)
        if now_s > self._idle_at_s:
            await self.close(CloseReason.IDLE)


def _size_bytes(content: str | bytes) -> int:
    return len(content.encode() if isinstance(content, str) else content)
