"""All that one process holds, sockets and long polls, and what keeps it right: wakeups, a heartbeat, a slow
sweep, pings.

Redis away is no reason to hang up: leases are fenced, so a socket that may have lost its own can do no harm.
When Redis is back everything held is looked at, and only what somebody else has claimed is closed.
"""

import asyncio
import contextlib
import itertools
import logging
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Protocol

from redis.asyncio import Redis

from services.socket_edge.credential_watcher import Credential, CredentialWatcher
from services.socket_edge.handshakes import Handshakes
from services.socket_edge.keepalive import Keepalive
from services.socket_edge.leased_socket import LeasedSocket, Limits
from services.socket_edge.pacing import paced
from services.socket_edge.poll import Poll
from services.socket_edge.questions import Questions
from services.socket_edge.session_sockets import SessionLimits, SessionSockets
from shared import telemetry
from shared.delivery.loop import AckScheduler, DeliveryLoop
from shared.model.channels import EVERY_EDGE, CloseReason, Kind, Lease, instance_of
from shared.model.errors import StoreUnavailable
from shared.runtime.clock import now_ms
from shared.runtime.loops import end, forever
from shared.store.api_keys import ApiKeys
from shared.store.channels import Channels
from shared.store.inline_entries import InlineEntries, merged
from shared.store.leases import Leases
from shared.store.queues import Queues
from shared.store.replicas import Heartbeat
from shared.store.sessions import Sessions
from shared.store.wakeups import Line, Wakeups, answer_in, changed_key, question_in, subscribe_wakeups
from shared.tokens import Principals

logger = logging.getLogger(__name__)

SWEEP_S = 60.0
_SWEEP_LOTS = 240
# How long a socket that is let go of may take to confirm what is under way.
_DRAIN_ACKS_S = 1.0
# Together with what requests under way are given, less than ten seconds, whatever Redis does.
_SHUTDOWN_S = 3.0
_LET_GO_S = 1.0


@dataclass(frozen=True, slots=True)
class Timing:
    """How often, and how long, in seconds."""

    ping_interval_s: float
    heartbeat_s: float
    redis_outage_limit_s: float
    long_poll_wait_s: float
    drain_delay_s: float = 0
    drain_window_s: float = 0


@dataclass(frozen=True, slots=True)
class Stores:
    """What an edge needs of Redis."""

    redis: Redis
    api_keys: ApiKeys
    channels: Channels
    leases: Leases
    queues: Queues
    wakeups: Wakeups
    principals: Principals
    sessions: Sessions


class LeaseHolder(Protocol):
    """What an edge holds: a socket or a long poll, and the lease of its channel."""

    @property
    def kind(self) -> Kind:
        """The kind of its channel."""

    @property
    def lease(self) -> Lease: ...

    @property
    def loop(self) -> DeliveryLoop: ...

    async def end(self, close_reason: CloseReason) -> None:
        """Says goodbye, and will be over soon."""

    async def abort(self) -> None:
        """Drops the connection, and will be over at once."""


class Edge:
    """All that one process holds. `instance` names it in leases: the replica, and this run of it."""

    def __init__(
        self,
        stores: Stores,
        heartbeat: Heartbeat,
        *,
        instance: str,
        limits: Limits,
        timing: Timing,
        session_limits: SessionLimits,
        close_codes: int,
    ) -> None:
        self.stores = stores
        self.limits = limits
        self.close_codes = close_codes
        self.keepalive: Keepalive[LeasedSocket] = Keepalive(
            interval_s=timing.ping_interval_s, timeout_s=limits.ping_timeout_s
        )
        self.acks = AckScheduler()
        self.handshakes = Handshakes()
        self.stopping = False
        self.long_poll_wait_s = timing.long_poll_wait_s
        self.questions = Questions(stores.wakeups, instance=instance, find=self._poll)
        self.sessions = SessionSockets(
            stores.sessions,
            stores.api_keys,
            limits=session_limits,
            close_codes=close_codes,
            new_owner=self.new_owner,
        )
        self._credentials: CredentialWatcher[LeaseHolder] = CredentialWatcher(stores.api_keys)
        self._heartbeat = heartbeat
        self._instance = instance
        self._draining = False
        self._timing = timing
        self._holds: dict[str, list[LeaseHolder]] = {}
        self._unreleased: list[Lease] = []
        self._inline: list[InlineEntries] = []
        self._claims = itertools.count(1)
        self._none_left = asyncio.Event()
        self._none_left.set()
        telemetry.watch_sockets(lambda: self._count(Kind.WEBSOCKET))
        telemetry.watch_polls(lambda: self._count(Kind.PULL))
        telemetry.watch_draining(lambda: self._draining)

    def new_owner(self) -> str:
        """The name of one claim: no other claim ever has it."""
        return f"{self._instance}/{next(self._claims)}"

    @contextlib.contextmanager
    def holding(self, hold: LeaseHolder, credential: Credential) -> Iterator[None]:
        """From here on wakeups for the channel reach the hold, and it ends with its credential.

        Whoever it took over from is told to look.
        """
        channel = hold.lease.channel
        self._holds.setdefault(channel, []).append(hold)
        self._none_left.clear()
        if hold.lease.previous:
            telemetry.takeovers.add(1)
            if instance_of(hold.lease.previous) == self._instance:
                self._look_at(channel)
            else:
                self.stores.wakeups.send(hold.lease.previous, channel)
        try:
            hold.loop.wake()
            self._credentials.keep(hold, credential)
            # What happened to the key before a wakeup could reach us.
            self._credentials.doubt([hold])
            yield
        finally:
            self._credentials.forget(hold)
            self._holds[channel].remove(hold)
            if not self._holds[channel]:
                del self._holds[channel]
            if not self._holds:
                self._none_left.set()

    def release_later(self, lease: Lease) -> None:
        """Redis was away when its socket or poll ended: until then the channel would count as connected."""
        self._unreleased.append(lease)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Hears wakeups and beats for as long as it is entered."""
        own = (self._hear, self._beat, self._sweep, self._pace, self._credentials.look_again)
        loops = (*own, *self.sessions.loops)
        tasks = [asyncio.create_task(forever(loop)) for loop in loops]
        try:
            yield
        finally:
            await end(*tasks)
            with contextlib.suppress(StoreUnavailable, TimeoutError):
                await asyncio.wait_for(self._heartbeat.stop(), _LET_GO_S)

    async def shutdown(self) -> None:
        """Lets go of all it holds, and waits until each lease is given back, but not long.

        First it only is unready, so that nobody is sent here any more. Then sockets are closed at an even
        pace, or all clients would come back elsewhere in the same moment, each when it has confirmed what is
        under way; who comes now is refused. Polls are answered at once: their clients come again anyhow.
        """
        timing = self._timing
        self._draining = True
        await asyncio.sleep(timing.drain_delay_s)
        self.stopping = True
        letting_go = asyncio.create_task(self.sessions.shutdown(_SHUTDOWN_S, window_s=timing.drain_window_s))
        held = self._all()
        sockets = [hold for hold in held if isinstance(hold, LeasedSocket)]
        for poll in [hold for hold in held if not isinstance(hold, LeasedSocket)]:
            await poll.end(CloseReason.STOPPING)
        parting = [
            asyncio.create_task(socket.part(within_s=_DRAIN_ACKS_S))
            async for socket in paced(sockets, over_s=timing.drain_window_s)
        ]
        await asyncio.gather(*parting)
        # Whoever came in while the others went.
        for hold in self._all():
            await hold.end(CloseReason.STOPPING)
        if not await self._emptied_within(_SHUTDOWN_S):
            logger.warning("shutdown.cut-short", extra={"facts": {"held": len(self._all())}})
            for hold in self._all():
                await hold.abort()
            await self._emptied_within(_LET_GO_S)
        await letting_go

    async def _emptied_within(self, limit_s: float) -> bool:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._none_left.wait(), limit_s)
        return self._none_left.is_set()

    async def _hear(self) -> None:
        names = (self._instance, instance_of(EVERY_EDGE))
        async with contextlib.aclosing(subscribe_wakeups(self.stores.redis, *names)) as heard:
            async for wakeup in heard:
                if isinstance(wakeup, InlineEntries):
                    if not self._inline:
                        # An edge that lags has many to read in one turn: the more, the larger its frames.
                        asyncio.get_running_loop().call_soon(self._pass_on)
                    self._inline.append(wakeup)
                elif wakeup is Line.LOST:
                    for hold in self._all():
                        hold.loop.doubt()
                elif wakeup is Line.BACK:
                    await self._try_to_beat()
                    for hold in self._all():
                        hold.loop.doubt()
                        hold.loop.wake()
                    self._credentials.doubt(self._all())
                    await self.sessions.redis_is_back()
                else:
                    for word in wakeup:
                        self._heard(word)

    def _pass_on(self) -> None:
        carried, self._inline = self._inline, []
        for each in merged(carried):
            for hold in self._holds.get(each.channel, ()):
                hold.loop.offer(each)

    async def _beat(self) -> None:
        answered_s = time.monotonic()
        while True:
            if await self._try_to_beat():
                answered_s = time.monotonic()
            elif time.monotonic() - answered_s > self._timing.redis_outage_limit_s and self._holds:
                logger.warning("redis.outage-limit-reached", extra={"facts": {"held": len(self._all())}})
                for hold in self._all():
                    await hold.end(CloseReason.REDIS_UNAVAILABLE)
                await self.sessions.end_all(CloseReason.REDIS_UNAVAILABLE)
            await asyncio.sleep(min(self._timing.heartbeat_s, self._timing.redis_outage_limit_s / 2))

    async def _try_to_beat(self) -> bool:
        try:
            await self._heartbeat.beat(now_ms=now_ms())
        except StoreUnavailable:
            return False
        pending, self._unreleased = self._unreleased, []
        await asyncio.gather(*map(self._release_pending, pending))
        return True

    async def release(self, lease: Lease) -> None:
        """Gives a lease back. Raises StoreUnavailable."""
        await self.stores.leases.release(lease, now_ms=now_ms())

    async def _release_pending(self, lease: Lease) -> None:
        try:
            await self.release(lease)
        except StoreUnavailable:
            self.release_later(lease)

    async def _sweep(self) -> None:
        """Looks at every channel once in SWEEP_S, at some each time.

        All in one go would stop everything else meanwhile, and leave the memory that it took behind.
        """
        for lot in itertools.cycle(range(_SWEEP_LOTS)):
            await asyncio.sleep(SWEEP_S / _SWEEP_LOTS)
            for channel in [each for each in self._holds if hash(each) % _SWEEP_LOTS == lot]:
                self._look_at(channel)
                self._credentials.doubt(self._holds[channel])

    async def _pace(self) -> None:
        """Pings the quiet, cuts the stalled, and closes those whose key or secret has ended."""
        tick_s = min(1.0, self._timing.ping_interval_s / 4, self.limits.ping_timeout_s / 4)
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(tick_s)
            for hold in self._credentials.over(now_ms=now_ms()):
                await hold.end(CloseReason.KEY_EXPIRED)
            for hold in self.keepalive.overdue(now_s=loop.time()):
                await hold.abort_if_stalled()
            for hold in self.keepalive.to_ping(now_s=loop.time()):
                try:
                    hold.ping()
                except OSError:
                    self.keepalive.forget(hold)

    def _heard(self, word: str) -> None:
        if (question := question_in(word)) is not None:
            self.questions.asked(question)
        elif (answer := answer_in(word)) is not None:
            self.questions.heard(answer)
        elif (api_key_id := changed_key(word)) is not None:
            self._credentials.doubt(self._holds.get(api_key_id, ()))
            self.sessions.key_changed(api_key_id)
        elif word in self._holds:
            self._look_at(word)
        else:
            self.sessions.wake(word)

    def _look_at(self, channel: str) -> None:
        for hold in self._holds.get(channel, ()):
            hold.loop.wake()

    def _poll(self, owner: str, channel: str) -> Poll | None:
        """The poll that has this owner's name."""
        polls = (hold for hold in self._holds.get(channel, ()) if isinstance(hold, Poll))
        return next((poll for poll in polls if poll.lease.owner == owner), None)

    def _all(self) -> list[LeaseHolder]:
        return [hold for holds in self._holds.values() for hold in holds]

    def _count(self, kind: Kind) -> int:
        return sum(hold.kind is kind for hold in self._all())
