"""One round of the reaper: every channel is looked at, and what is due goes.

Each thing goes by a script that judges it anew, so several reapers at once do no harm, and neither does a
claim, a publish or a deletion in between. A channel with an open socket never expires.
"""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

from shared import telemetry
from shared.model.channels import Kind, instance_of
from shared.model.sessions import Session
from shared.store.channels import ChannelRef, Channels
from shared.store.queues import ExpiryResult, Queues
from shared.store.replicas import Replicas
from shared.store.routing import Routing
from shared.store.sessions import Sessions

logger = logging.getLogger(__name__)

# How long a instance is remembered beyond the time in which its channels expire.
_REMEMBERED_MS = 24 * 3600 * 1000
# After an outage of Redis an edge says that it lives before it writes its sessions again, but only just.
_LEFT_MS = 60 * 1000


@dataclass(slots=True)
class Round:
    """What one round did."""

    channels: int = 0
    expired: list[str] = field(default_factory=list)
    dropped: int = 0
    instances_forgotten: int = 0
    routing_repairs: int = 0
    sessions_dropped: int = 0
    oldest_pending_ms: dict[tuple[str, bool], int] = field(default_factory=dict)
    """By kind of channel, and by whether somebody live holds it: when the oldest notification was queued."""


class Reaper:
    """Looks at everything, now and then. Times are in ms."""

    def __init__(
        self,
        *,
        channels: Channels,
        queues: Queues,
        replicas: Replicas,
        routing: Routing,
        sessions: Sessions,
        idle_expiry_ms: Mapping[Kind, int],
    ) -> None:
        self._channels = channels
        self._queues = queues
        self._replicas = replicas
        self._routing = routing
        self._sessions = sessions
        self._idle_expiry_ms = idle_expiry_ms

    async def round(self, *, now_ms: int) -> Round:
        """Looks at every channel and every account. Raises StoreUnavailable; the next round goes on."""
        done = Round(oldest_pending_ms={(kind, held): now_ms for kind in Kind for held in (True, False)})
        live: dict[str, bool] = {}
        async for lot in self._channels.all():
            done.channels += len(lot)
            pending = await asyncio.gather(*(self._look_at(channel, now_ms, done) for channel in lot))
            await self._note_pending([found for found in pending if found is not None], live, done)
        async for sessions in self._sessions.all():
            left = await asyncio.gather(*(self._drop_if_left(session, now_ms) for session in sessions))
            done.sessions_dropped += sum(left)
        async for accounts in self._routing.accounts():
            for account in accounts:
                done.routing_repairs += await self._mend(account)
        before_ms = now_ms - max(self._idle_expiry_ms.values()) - _REMEMBERED_MS
        done.instances_forgotten = await self._replicas.forget(before_ms=before_ms)
        telemetry.expired.add(len(done.expired))
        facts = {"channels": done.channels, "expired": len(done.expired), "dropped": done.dropped}
        logger.debug("reaper.round", extra={"facts": {**facts, "routing_repairs": done.routing_repairs}})
        return done

    async def _look_at(self, channel: str, now_ms: int, done: Round) -> tuple[Kind, ExpiryResult] | None:
        """What it is pending, if it stays."""
        whose = await self._channels.ref(channel)
        if not whose.account or whose.kind is None:
            return None
        left = await self._queues.drop_expired(channel)
        done.dropped += left.dropped
        account, generation = whose.account, whose.generation
        if await self._expire(channel, whose, now_ms):
            done.expired.append(channel)
            facts = {"channel": channel, "account": account, "kind": whose.kind}
            logger.info("channel.expired", extra={"facts": facts})
            return None
        # Whoever made it may have died before the routes knew; writing what stands there changes nothing.
        await self._routing.add_key(account, channel)
        await self._channels.index(account, channel, kind=whose.kind, generation=generation)
        return whose.kind, left

    async def _note_pending(
        self, pending: list[tuple[Kind, ExpiryResult]], live: dict[str, bool], done: Round
    ) -> None:
        """Remembers the oldest; `live` are the owners' instances that were looked at in this round."""
        new = {instance_of(left.owner) for _, left in pending if left.owner and left.oldest_ms} - live.keys()
        seen = await asyncio.gather(*map(self._replicas.state, new))
        live.update(zip(new, (its.live for its in seen), strict=True))
        oldest = done.oldest_pending_ms
        for kind, left in pending:
            if left.oldest_ms is not None:
                place = (kind, live.get(instance_of(left.owner), False))
                oldest[place] = min(oldest[place], left.oldest_ms)

    async def _drop_if_left(self, session: Session, now_ms: int) -> bool:
        """Forgets a session whose edge was killed; tells whether it did."""
        seen = await self._replicas.state(instance_of(session.owner))
        if seen.live or now_ms - seen.last_heartbeat_ms < _LEFT_MS:
            return False
        await self._sessions.drop(session)
        return True

    async def _expire(self, channel: str, whose: ChannelRef, now_ms: int) -> bool:
        idle_expiry_ms = self._idle_expiry_ms.get(whose.kind) if whose.kind else None
        if idle_expiry_ms is None:
            return False
        # Nobody connects to a webhook: it is idle while nothing comes for it.
        webhook = whose.kind is Kind.WEBHOOK
        expire = self._channels.expire_idle_webhook if webhook else self._channels.expire
        times = {"now_ms": now_ms, "idle_expiry_ms": idle_expiry_ms}
        return await expire(whose.account, channel, generation=whose.generation, **times)

    async def _mend(self, account: str) -> int:
        """Drops from an account's routes what names a channel or a key that is gone; tells how many."""
        keys, channels = await self._routing.entries(account)
        whose = dict(zip(keys, await asyncio.gather(*map(self._channels.ref, keys)), strict=True))
        gone = [key for key, found in whose.items() if not found.account]
        stale = [(key, inc) for key, inc in channels if key not in whose or whose[key].generation != inc]
        for key in gone:
            await self._routing.drop_key(account, key, generation="")
        for key, generation in stale:
            await self._routing.drop_channel(account, key, generation=generation)
        named = await self._routing.session_ids(account)
        known = await asyncio.gather(*map(self._sessions.is_known, named))
        lost = [name for name, is_known in zip(named, known, strict=True) if not is_known]
        for name in lost:
            await self._routing.drop_session(account, name)
        return len(gone) + len(stale) + len(lost)
