"""All session sockets of one edge: registered where others see them, woken by wakeups, and let go."""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from starlette.types import Scope

from services.socket_edge.credential_watcher import Credential, CredentialWatcher
from services.socket_edge.keepalive import Keepalive
from services.socket_edge.pacing import paced
from services.socket_edge.session_socket import SessionSocket
from shared import telemetry
from shared.model.channels import CloseReason
from shared.model.errors import StoreUnavailable
from shared.model.sessions import Dialect, Session, SessionBinding
from shared.runtime.clock import now_ms
from shared.runtime.http.client_address import Network, client_address
from shared.store.api_keys import ApiKeys
from shared.store.sessions import Sessions

logger = logging.getLogger(__name__)

_SWEEP_S = 60.0


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """How sockets of sessions are kept. `most_per_address` None: as many as come."""

    ping_interval_s: float
    ping_timeout_s: float
    idle_s: float
    most_per_address: int | None
    destination: str
    trusted_proxies: Sequence[Network]


class SessionSockets:
    """The session sockets of one process. `new_owner` gives a name in Redis for each."""

    def __init__(
        self,
        store: Sessions,
        api_keys: ApiKeys,
        *,
        limits: SessionLimits,
        close_codes: int,
        new_owner: Callable[[], str],
    ) -> None:
        self._store = store
        self._limits = limits
        self._codes = close_codes
        self._new_owner = new_owner
        self._keepalive: Keepalive[SessionSocket] = Keepalive(
            interval_s=limits.ping_interval_s, timeout_s=limits.ping_timeout_s
        )
        self._credentials: CredentialWatcher[SessionSocket] = CredentialWatcher(api_keys, ends_when_gone=True)
        self._sockets: set[SessionSocket] = set()
        self._by_id: dict[str, SessionSocket] = {}
        self._pumps: dict[SessionSocket, asyncio.Event] = {}
        self._addresses: Counter[str] = Counter()
        self._unreleased: list[Session] = []
        self._none_left = asyncio.Event()
        self._none_left.set()
        self.loops = (self._pace, self._sweep, self._credentials.look_again)
        telemetry.watch_sessions(self._count)

    def address_of(self, scope: Scope) -> str:
        """Where a socket comes from."""
        return client_address(scope, trusted=self._limits.trusted_proxies)

    def has_room_for(self, address: str) -> bool:
        most = self._limits.most_per_address
        return most is None or self._addresses[address] < most

    @contextlib.contextmanager
    def holding(self, socket: SessionSocket) -> Iterator[None]:
        """From here on the socket is pinged, and closed when it is idle or the edge stops."""
        self._sockets.add(socket)
        self._addresses[socket.source] += 1
        self._none_left.clear()
        self._keepalive.rests(socket, now_s=_now_s())
        woken = self._pumps[socket] = asyncio.Event()
        pumping = asyncio.create_task(self._pump(socket, woken))
        try:
            yield
        finally:
            pumping.cancel()
            socket.over()
            self._keepalive.forget(socket)
            self._credentials.forget(socket)
            self._addresses[socket.source] -= 1
            if not self._addresses[socket.source]:
                del self._addresses[socket.source]
            del self._pumps[socket]
            if socket.session is not None:
                self._by_id.pop(socket.session.id, None)
            self._sockets.discard(socket)
            if not self._sockets:
                self._none_left.set()

    async def show(
        self,
        socket: SessionSocket,
        session_id: str,
        *,
        account_id: str,
        credential: Credential,
        wanted: Sequence[SessionBinding],
        name: str = "",
        metadata: bytes = b"",
    ) -> None:
        """Writes the session as it is now: others see it, and publishes honour what it asks for.

        From then on it ends with its API key. Raises StoreUnavailable.
        """
        first = socket.session is None
        session = Session(
            id=session_id,
            dialect=socket.dialect,
            account_id=account_id,
            owner=self._new_owner() if socket.session is None else socket.session.owner,
            source=socket.source,
            destination=self._limits.destination,
            connected_at_ms=socket.connected_at_ms,
            bindings=tuple(dict.fromkeys(one.requested for one in wanted if one.requested)),
            name=name,
            metadata=metadata,
        )
        # Before it is written: wakeups may come before the answer, and what may be written must be forgotten.
        self._by_id[session_id] = socket
        socket.session, socket.wanted = session, wanted
        await self._store.put(session, wanted)
        if first:
            self._credentials.keep(socket, credential)
            self._credentials.doubt([socket])

    async def forget(self, socket: SessionSocket) -> None:
        """Its connection is gone: nobody is to see it any more."""
        if socket.session is None:
            return
        try:
            await self._store.drop(socket.session)
        except StoreUnavailable:
            self._unreleased.append(socket.session)

    def heard_pong(self, socket: SessionSocket, payload: bytes) -> None:
        if socket.answers(payload):
            self._keepalive.rests(socket, now_s=_now_s())

    def opened(self, socket: SessionSocket) -> None:
        """Its handshake is answered: from here on it is written to."""
        socket.is_open = True
        self._pumps[socket].set()

    def wake(self, session_id: str) -> None:
        """There may be something for it."""
        socket = self._by_id.get(session_id)
        if socket is not None:
            self._pumps[socket].set()

    def key_changed(self, api_key_id: str) -> None:
        """The record of an API key is another, or gone."""
        self._credentials.doubt_key(api_key_id)

    async def redis_is_back(self) -> None:
        """Redis may have forgotten sessions, and kept some that are over."""
        pending, self._unreleased = self._unreleased, []
        for session in pending:
            try:
                await self._store.drop(session)
            except StoreUnavailable:
                self._unreleased.append(session)
        for socket in list(self._by_id.values()):
            with contextlib.suppress(StoreUnavailable):
                await self._put_again(socket)
            self._pumps[socket].set()
        self._credentials.doubt(self._by_id.values())

    async def end(self, socket: SessionSocket) -> None:
        """The edge stops: one that was on its way in when the goodbye began."""
        await socket.end(CloseReason.STOPPING, codes=self._codes)

    async def end_all(self, close_reason: CloseReason) -> None:
        for socket in list(self._sockets):
            await socket.end(close_reason, codes=self._codes)

    async def shutdown(self, limit_s: float, *, window_s: float) -> None:
        """Closes every socket, known or not, at an even pace, and waits until all are gone."""
        async for socket in paced(list(self._sockets), over_s=window_s):
            await self.end(socket)
        await self.end_all(CloseReason.STOPPING)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._none_left.wait(), limit_s)
        for socket in list(self._sockets):
            await socket.abort()

    async def _pump(self, socket: SessionSocket, woken: asyncio.Event) -> None:
        while True:
            await woken.wait()
            woken.clear()
            try:
                await self._deliver(socket)
            except StoreUnavailable:
                # Whoever hears that Redis is back wakes us.
                continue
            except Exception:
                logger.exception("session.failed", extra={"facts": socket.facts})
                await socket.end(CloseReason.UNEXPECTED, codes=self._codes)

    async def _deliver(self, socket: SessionSocket) -> None:
        session = socket.session
        if session is None or not socket.is_open:
            return
        if socket.dialect is Dialect.COGNISM:
            for push_id, data in await self._store.pushes(session.id):
                if await socket.say(data):
                    await self._store.mark_pushed(session.id, push_id)
        taken = await self._store.take(session)
        if taken is None:
            await self._put_again(socket)
        for notification in taken or ():
            await socket.offer(notification)

    async def _put_again(self, socket: SessionSocket) -> None:
        if socket.session is not None and socket in self._sockets:
            await self._store.put(socket.session, socket.wanted)
            if socket not in self._sockets:
                # It went meanwhile.
                await self._store.drop(socket.session)

    async def _pace(self) -> None:
        """Pings the quiet, cuts the stalled, closes the idle and those whose API key is over."""
        limits = self._limits
        tick_s = min(1.0, limits.ping_interval_s / 4, limits.ping_timeout_s / 4, limits.idle_s / 4)
        while True:
            await asyncio.sleep(tick_s)
            now_s = _now_s()
            for socket in self._credentials.over(now_ms=now_ms()):
                await socket.end(CloseReason.KEY_EXPIRED, codes=self._codes)
            for socket in self._keepalive.overdue(now_s=now_s):
                if socket.gets_on():
                    self._keepalive.owes(socket, now_s=now_s)
                else:
                    self._keepalive.forget(socket)
                    socket.close_reason = socket.close_reason or CloseReason.STALLED
                    await socket.abort()
            for socket in self._keepalive.to_ping(now_s=now_s):
                self._keepalive.owes(socket, now_s=now_s)
                await socket.ping()
            for socket in [s for s in self._sockets if s.dialect is Dialect.KAZOO]:
                if now_s - socket.last_heard_s > limits.idle_s:
                    await socket.end(CloseReason.IDLE, codes=self._codes)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_S)
            for socket in list(self._by_id.values()):
                self._pumps[socket].set()
            self._credentials.doubt(self._by_id.values())

    def _count(self, dialect: str) -> int:
        return sum(socket.dialect == dialect for socket in self._sockets)


def _now_s() -> float:
    return asyncio.get_running_loop().time()
