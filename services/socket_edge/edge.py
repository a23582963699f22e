"""The connections of one process, and the loops that serve them."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import TypeVar

from services.composition import Stores, publishing_of
from services.serving import Readiness
from services.socket_edge.admission import Admission
from services.socket_edge.credential_watcher import Credential, CredentialWatcher
from services.socket_edge.handshakes import Handshakes
from services.socket_edge.heartbeat import STOP_S, EdgeHeartbeat
from services.socket_edge.held import HeldConnection, LeaseHolder
from services.socket_edge.kept_leases import KeptLeases
from services.socket_edge.leased_socket import LeasedSocket
from services.socket_edge.liveness import Liveness
from services.socket_edge.registry import Registry
from services.socket_edge.shutdown import close_all
from services.socket_edge.socket_quota import SocketQuota
from services.socket_edge.spare_pings import SparePings
from services.socket_edge.streams.stream_rights import StreamRights
from services.socket_edge.streams.topic_hub import TopicHub
from services.socket_edge.token_watcher import TokenCredential, TokenWatcher
from services.socket_edge.turns import ReadingPlaces
from services.socket_edge.wakeup_reader import WakeupReader
from shared import telemetry
from shared.delivery.acks import AckScheduler
from shared.model.channels import CloseReason, Kind, Lease, instance_of
from shared.model.errors import StoreUnavailable
from shared.publish.publishing import Publishing
from shared.runtime.http.responses import draining
from shared.runtime.loops import in_background
from shared.runtime.settings import Settings
from shared.runtime.stranger_limits import StrangerLimits

SWEEP_S = 60.0
_SWEEP_LOTS = 240
AUTHENTICATION_S = 10.0
"""A client waits no longer, however many reads its credential takes."""
PING_SPACING_S = 0.2
"""On an edge without pings to spare. Long enough for a busy socket to confirm several frames with one ping,
short enough to repeat little."""

Found = TypeVar("Found")


class Edge:
    """One process's connections. `stores.instance` names it in leases: the replica, and this run of it."""

    def __init__(
        self,
        stores: Stores,
        settings: Settings,
        readiness: Readiness | None = None,
        *,
        publishing: Publishing | None = None,
    ) -> None:
        """`publishing` is that of a gateway in the same process."""
        readiness = readiness or Readiness(asyncio.Event())
        self.stores = stores
        self.publishing = publishing or publishing_of(stores)
        self.instance = stores.instance
        self.settings = settings
        # Kept: `asyncio.get_running_loop()` is a system call on Python 3.11.
        self.event_loop = asyncio.get_running_loop()
        self.acks = AckScheduler()
        self.ping_spacing_s = PING_SPACING_S
        self.spare_pings = SparePings()
        # Sockets with frames for which no ping stands; a timer pings them all.
        self.unconfirmed: dict[LeasedSocket, None] = {}
        self.handshakes = Handshakes()
        self.limits = StrangerLimits(settings)
        self.reading_places = ReadingPlaces()
        self.registry = registry = Registry()
        self.admission = Admission(registry, settings)
        self.liveness = Liveness(
            ping_interval_s=settings.ping_interval_s,
            ping_timeout_s=settings.ping_timeout_s,
            idle_s=settings.blackhole_idle_s,
        )
        self.credentials = CredentialWatcher(stores.api_keys, self.liveness, registry.all)
        self.tokens = TokenWatcher(stores.native_tokens.keys, stores.tickets, registry.all)
        self.heartbeat = EdgeHeartbeat(
            stores.heartbeat,
            registry,
            every_s=settings.heartbeat_s,
            outage_limit_s=settings.redis_outage_limit_s,
            awaited=readiness.awaiting("the heartbeat of the edge"),
        )
        self.kept_leases = KeptLeases(
            lambda lease: self.heartbeat.release_by(partial(stores.leases.release, lease))
        )
        self.socket_quota = SocketQuota(stores.quotas, instance=stores.instance)
        self.stream_rights = StreamRights(stores.routing, stores.streams)
        self.wakeups = WakeupReader(
            self, on_hearing=readiness.awaiting("the subscription of the edge").has_come
        )
        self.topics = TopicHub(stores.stream_reads, stores.redis, instance=stores.instance)
        self._claims = itertools.count(1)
        self._is_draining = False
        self._refuses = False
        telemetry.watch_sockets(lambda: registry.count(Kind.WEBSOCKET))
        telemetry.watch_polls(lambda: registry.count(Kind.PULL))
        telemetry.watch_sessions(registry.count)
        telemetry.watch_strangers(lambda: len(self.admission))
        telemetry.watch_draining(lambda: self._is_draining)

    def new_owner(self) -> str:
        """The name of one claim: no other claim ever has it."""
        return f"{self.instance}/{next(self._claims)}"

    async def look_up(
        self, given: str, address: str, find: Callable[[], Awaitable[Found | None]]
    ) -> Found | None:
        """What `find` reads for a credential from this address; None if it is not valid.

        Raises Problem (429) when the address has failed too often, StoreUnavailable also after 10 s.
        """
        try:
            async with asyncio.timeout(AUTHENTICATION_S):
                return await self.limits.look_up(given, address, find)
        except TimeoutError:
            raise StoreUnavailable(why="no reply within the time for authentication") from None

    def check_open(self) -> None:
        """Raises Problem (503) when the shutdown no longer lets connections in."""
        if self._refuses:
            raise draining()

    def place_on_channel(self, account_id: str, channel: str) -> AbstractAsyncContextManager[None]:
        """Counts a connection to a channel in the quota of its account. Raises QuotaExceeded."""

        async def is_connected() -> bool:
            state = await self.stores.channels.state(channel)
            return state is not None and state.connected

        return self.socket_quota.place_on_channel(account_id, is_connected)

    def hold(
        self,
        connection: HeldConnection,
        credential: Credential | TokenCredential | None = None,
        *,
        wakes: bool = True,
    ) -> None:
        """From now on wakeups reach the connection, and it ends with its credential.

        `wakes` unless nothing can wait for it in Redis.
        """
        self.registry.add(connection)
        if credential is None:
            self.liveness.watch(connection)
        else:
            self.authenticated(connection, credential)
        if isinstance(connection, LeaseHolder):
            self.wake_previous(connection.lease)
        if wakes:
            connection.wake()

    def wake_previous(self, lease: Lease) -> None:
        """The owner that a claim has replaced, if any, finds out."""
        if not (previous := lease.previous):
            return
        telemetry.takeovers.add(1)
        if instance_of(previous) == self.instance:
            # The new one too: a wakeup behind its claim may have reached the older one.
            for each in self.registry.of(lease.channel):
                each.wake()
        else:
            self.stores.wakeups.send(previous, lease.channel)

    def authenticated(self, connection: HeldConnection, credential: Credential | TokenCredential) -> None:
        """The connection ends with this credential."""
        connection.account_id = credential.account_id
        connection.expires_at_ms = credential.until_ms
        if isinstance(credential, TokenCredential):
            connection.token = credential
            self.tokens.check_new(connection)
        else:
            connection.credential = credential
            self.credentials.check_new(connection, credential)
        self.liveness.watch(connection)

    def flush_acks(self, channel: str) -> None:
        """Acks what the channel's socket here has confirmed, ahead of the claim that takes its lease."""
        for other in self.registry.of(channel):
            if other.loop is not None:
                other.loop.flush_acks()

    async def close_if_stopping(self, connection: HeldConnection) -> None:
        """Closes a new connection if the shutdown closed all others meanwhile."""
        if self._refuses:
            await connection.close(CloseReason.STOPPING)

    async def drop(self, connection: HeldConnection) -> None:
        """The connection has ended: releases its lease or session, and forgets it."""
        task = asyncio.current_task()
        try:
            # A cancelled task must not wait for Redis: the process ends, and its heartbeat with it.
            if task is None or not task.cancelling():
                await self.heartbeat.release(connection)
        finally:
            self.remove(connection)

    def remove(self, connection: HeldConnection) -> None:
        """The connection has ended, and was released."""
        self.liveness.forget(connection)
        self.socket_quota.release(connection)
        self.registry.remove(connection)
        connection.on_removed()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Reads wakeups and runs the other loops for as long as it is entered."""
        runners = (
            *(self.wakeups, self.heartbeat, self.liveness, self.credentials, self.socket_quota),
            *(self.topics, self.stream_rights, self.tokens),
        )
        runs = (runner.run for runner in runners)
        try:
            loops = (self.sweep, self.credentials.watch_version, self.tokens.watch, *runs)
            async with in_background(*loops):
                yield
        finally:
            await self.kept_leases.close(within_s=STOP_S)
            await self.heartbeat.stop()

    async def shutdown(self) -> None:
        """Closes all connections; first the replica only is unready, until load balancers know."""
        self._is_draining = True
        await asyncio.sleep(self.settings.drain_delay_s)
        self._refuses = True
        await self.kept_leases.close(within_s=STOP_S)
        await close_all(self.registry, over_s=self.settings.drain_window_s)

    async def sweep(self) -> None:
        """Wakes every connection and checks its credential once in SWEEP_S, since a wakeup may be lost.

        In lots: all at once would block the event loop.
        """
        for lot in itertools.cycle(range(_SWEEP_LOTS)):
            await asyncio.sleep(SWEEP_S / _SWEEP_LOTS)
            connections = [each for each in self.registry.all() if hash(each.id) % _SWEEP_LOTS == lot]
            for connection in connections:
                connection.wake()
            self.credentials.check(connections)
            self.tokens.check(connections)
