"""All that one process holds, sockets and long polls, and what keeps it right: nudges, a heartbeat, a slow
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

from services.socket_edge.handshakes import Handshakes
from services.socket_edge.hold import Hold, Limits
from services.socket_edge.keepalive import Keepalive
from services.socket_edge.pacing import paced
from services.socket_edge.poll import Poll
from services.socket_edge.proofs import Proof, Proofs
from services.socket_edge.questions import Questions
from services.socket_edge.session_sockets import SessionLimits, SessionSockets
from shared import telemetry
from shared.drain import Drain, Settling
from shared.model.channels import EVERY_EDGE, Ending, Kind, Lease, boot_of
from shared.model.errors import StoreUnavailable
from shared.runtime.clock import now_ms
from shared.runtime.loops import end, forever
from shared.store.api_keys import ApiKeys
from shared.store.carried import Carried, merged
from shared.store.channels import Channels
from shared.store.leases import Leases
from shared.store.nudges import Line, Nudges, answer_in, changed_key, heard_nudges, question_in
from shared.store.queues import Queues
from shared.store.replicas import Heartbeat
from shared.store.sessions import Sessions
from shared.tokens import Principals

logger = logging.getLogger(__name__)

SWEEP_S = 60.0
_SWEEP_LOTS = 240
# How long a socket that is let go of may take to confirm what is under way.
_CONFIRM_S = 1.0
# Together with what requests under way are given, less than ten seconds, whatever Redis does.
_GOODBYE_S = 3.0
_LET_GO_S = 1.0


@dataclass(frozen=True, slots=True)
class Timing:
    """How often, and how long, in seconds."""

    ping_interval_s: float
    heartbeat_s: float
    redis_away_limit_s: float
    long_poll_wait_s: float
    drain_settle_s: float = 0
    drain_window_s: float = 0


@dataclass(frozen=True, slots=True)
class Stores:
    """What an edge needs of Redis."""

    redis: Redis
    api_keys: ApiKeys
    channels: Channels
    leases: Leases
    queues: Queues
    nudges: Nudges
    principals: Principals
    sessions: Sessions


class Held(Protocol):
    """What an edge holds: a socket or a long poll, and the lease of its channel."""

    @property
    def kind(self) -> Kind:
        """The kind of its channel."""

    @property
    def lease(self) -> Lease: ...

    @property
    def drain(self) -> Drain: ...

    async def end(self, ending: Ending) -> None:
        """Says goodbye, and will be over soon."""

    async def abort(self) -> None:
        """Drops the connection, and will be over at once."""


class Edge:
    """All that one process holds. `boot` names it in leases: the replica, and this run of it."""

    def __init__(
        self,
        stores: Stores,
        heartbeat: Heartbeat,
        *,
        boot: str,
        limits: Limits,
        timing: Timing,
        session_limits: SessionLimits,
        close_codes: int,
    ) -> None:
        self.stores = stores
        self.limits = limits
        self.close_codes = close_codes
        self.keepalive: Keepalive[Hold] = Keepalive(
            interval_s=timing.ping_interval_s, timeout_s=limits.ping_timeout_s
        )
        self.settling = Settling()
        self.handshakes = Handshakes()
        self.stopping = False
        self.long_poll_wait_s = timing.long_poll_wait_s
        self.questions = Questions(stores.nudges, boot=boot, find=self._poll)
        self.sessions = SessionSockets(
            stores.sessions,
            stores.api_keys,
            limits=session_limits,
            close_codes=close_codes,
            new_owner=self.new_owner,
        )
        self._proofs: Proofs[Held] = Proofs(stores.api_keys)
        self._heartbeat = heartbeat
        self._boot = boot
        self._draining = False
        self._timing = timing
        self._holds: dict[str, list[Held]] = {}
        self._owed: list[Lease] = []
        self._carried: list[Carried] = []
        self._claims = itertools.count(1)
        self._none_left = asyncio.Event()
        self._none_left.set()
        telemetry.watch_sockets(lambda: self._count(Kind.WEBSOCKET))
        telemetry.watch_polls(lambda: self._count(Kind.PULL))
        telemetry.watch_draining(lambda: self._draining)

    def new_owner(self) -> str:
        """The name of one claim: no other claim ever has it."""
        return f"{self._boot}/{next(self._claims)}"

    @contextlib.contextmanager
    def holding(self, hold: Held, proof: Proof) -> Iterator[None]:
        """From here on nudges for the channel reach the hold, and it ends with its proof.

        Whoever it took over from is told to look.
        """
        channel = hold.lease.channel
        self._holds.setdefault(channel, []).append(hold)
        self._none_left.clear()
        if hold.lease.previous:
            telemetry.takeovers.add(1)
            if boot_of(hold.lease.previous) == self._boot:
                self._look_at(channel)
            else:
                self.stores.nudges.send(hold.lease.previous, channel)
        try:
            hold.drain.wake()
            self._proofs.keep(hold, proof)
            # What happened to the key before a nudge could reach us.
            self._proofs.doubt([hold])
            yield
        finally:
            self._proofs.forget(hold)
            self._holds[channel].remove(hold)
            if not self._holds[channel]:
                del self._holds[channel]
            if not self._holds:
                self._none_left.set()

    def release_later(self, lease: Lease) -> None:
        """Redis was away when its socket or poll ended: until then the channel would count as connected."""
        self._owed.append(lease)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Hears nudges and beats for as long as it is entered."""
        own = (self._hear, self._beat, self._sweep, self._pace, self._proofs.look_again)
        loops = (*own, *self.sessions.loops)
        tasks = [asyncio.create_task(forever(loop)) for loop in loops]
        try:
            yield
        finally:
            await end(*tasks)
            with contextlib.suppress(StoreUnavailable, TimeoutError):
                await asyncio.wait_for(self._heartbeat.stop(), _LET_GO_S)

    async def goodbye(self) -> None:
        """Lets go of all it holds, and waits until each lease is given back, but not long.

        First it only is unready, so that nobody is sent here any more. Then sockets are closed at an even
        pace, or all clients would come back elsewhere in the same moment, each when it has confirmed what is
        under way; who comes now is refused. Polls are answered at once: their clients come again anyhow.
        """
        timing = self._timing
        self._draining = True
        await asyncio.sleep(timing.drain_settle_s)
        self.stopping = True
        letting_go = asyncio.create_task(self.sessions.goodbye(_GOODBYE_S, window_s=timing.drain_window_s))
        held = self._all()
        sockets = [hold for hold in held if isinstance(hold, Hold)]
        for poll in [hold for hold in held if not isinstance(hold, Hold)]:
            await poll.end(Ending.STOPPING)
        parting = [
            asyncio.create_task(socket.part(within_s=_CONFIRM_S))
            async for socket in paced(sockets, over_s=timing.drain_window_s)
        ]
        await asyncio.gather(*parting)
        # Whoever came in while the others went.
        for hold in self._all():
            await hold.end(Ending.STOPPING)
        if not await self._emptied_within(_GOODBYE_S):
            logger.warning("goodbye.cut-short", extra={"facts": {"held": len(self._all())}})
            for hold in self._all():
                await hold.abort()
            await self._emptied_within(_LET_GO_S)
        await letting_go

    async def _emptied_within(self, limit_s: float) -> bool:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._none_left.wait(), limit_s)
        return self._none_left.is_set()

    async def _hear(self) -> None:
        names = (self._boot, boot_of(EVERY_EDGE))
        async with contextlib.aclosing(heard_nudges(self.stores.redis, *names)) as heard:
            async for nudge in heard:
                if isinstance(nudge, Carried):
                    if not self._carried:
                        # An edge that lags has many to read in one turn: the more, the larger its frames.
                        asyncio.get_running_loop().call_soon(self._pass_on)
                    self._carried.append(nudge)
                elif nudge is Line.LOST:
                    for hold in self._all():
                        hold.drain.doubt()
                elif nudge is Line.BACK:
                    await self._try_to_beat()
                    for hold in self._all():
                        hold.drain.doubt()
                        hold.drain.wake()
                    self._proofs.doubt(self._all())
                    await self.sessions.redis_is_back()
                else:
                    for word in nudge:
                        self._heard(word)

    def _pass_on(self) -> None:
        carried, self._carried = self._carried, []
        for each in merged(carried):
            for hold in self._holds.get(each.channel, ()):
                hold.drain.offer(each)

    async def _beat(self) -> None:
        answered_s = time.monotonic()
        while True:
            if await self._try_to_beat():
                answered_s = time.monotonic()
            elif time.monotonic() - answered_s > self._timing.redis_away_limit_s and self._holds:
                logger.warning("redis.away-too-long", extra={"facts": {"held": len(self._all())}})
                for hold in self._all():
                    await hold.end(Ending.REDIS_AWAY)
                await self.sessions.end_all(Ending.REDIS_AWAY)
            await asyncio.sleep(min(self._timing.heartbeat_s, self._timing.redis_away_limit_s / 2))

    async def _try_to_beat(self) -> bool:
        try:
            await self._heartbeat.beat(now_ms=now_ms())
        except StoreUnavailable:
            return False
        owed, self._owed = self._owed, []
        await asyncio.gather(*map(self._release_owed, owed))
        return True

    async def release(self, lease: Lease) -> None:
        """Gives a lease back. Raises StoreUnavailable."""
        await self.stores.leases.release(lease, now_ms=now_ms())

    async def _release_owed(self, lease: Lease) -> None:
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
                self._proofs.doubt(self._holds[channel])

    async def _pace(self) -> None:
        """Pings the quiet, cuts the stalled, and closes those whose key or secret has ended."""
        tick_s = min(1.0, self._timing.ping_interval_s / 4, self.limits.ping_timeout_s / 4)
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(tick_s)
            for hold in self._proofs.over(now_ms=now_ms()):
                await hold.end(Ending.KEY_EXPIRED)
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
            self._proofs.doubt(self._holds.get(api_key_id, ()))
            self.sessions.key_changed(api_key_id)
        elif word in self._holds:
            self._look_at(word)
        else:
            self.sessions.wake(word)

    def _look_at(self, channel: str) -> None:
        for hold in self._holds.get(channel, ()):
            hold.drain.wake()

    def _poll(self, owner: str, channel: str) -> Poll | None:
        """The poll that has this owner's name."""
        polls = (hold for hold in self._holds.get(channel, ()) if isinstance(hold, Poll))
        return next((poll for poll in polls if poll.lease.owner == owner), None)

    def _all(self) -> list[Held]:
        return [hold for holds in self._holds.values() for hold in holds]

    def _count(self, kind: Kind) -> int:
        return sum(hold.kind is kind for hold in self._all())
