"""One round of the reaper: expires channels, drops old notifications, repairs the routing tables.

Each step is a script that checks its conditions again, so several reapers at once do no harm. Neither does a
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

# An instance outlives the channels that expire by its last heartbeat by this much.
_INSTANCE_GRACE_MS = 24 * 3600 * 1000
# After an outage of Redis an edge sends its heartbeat before it writes its sessions again.
_SESSION_GRACE_MS = 60 * 1000


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
    """When the oldest pending notification was queued, by kind of channel and whether it has a live owner."""


class Reaper:
    """Walks through every channel, session and account. Times are in ms."""

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
        """Runs one round. Raises StoreUnavailable; the next round continues the work."""
        done = Round(oldest_pending_ms={(kind, owned): now_ms for kind in Kind for owned in (True, False)})
        live: dict[str, bool] = {}
        async for channels in self._channels.all():
            done.channels += len(channels)
            queues = await asyncio.gather(
                *(self._reap_channel(channel, now_ms, done) for channel in channels)
            )
            await self._note_oldest([queue for queue in queues if queue is not None], live, done)
        async for sessions in self._sessions.all():
            dropped = await asyncio.gather(*(self._drop_orphan(session, now_ms) for session in sessions))
            done.sessions_dropped += sum(dropped)
        async for accounts in self._routing.accounts():
            for account in accounts:
                done.routing_repairs += await self._repair(account)
        before_ms = now_ms - max(self._idle_expiry_ms.values()) - _INSTANCE_GRACE_MS
        done.instances_forgotten = await self._replicas.forget(before_ms=before_ms)
        telemetry.expired.add(len(done.expired))
        facts = {"channels": done.channels, "expired": len(done.expired), "dropped": done.dropped}
        logger.debug("reaper.round", extra={"facts": {**facts, "routing_repairs": done.routing_repairs}})
        return done

    async def _reap_channel(self, channel: str, now_ms: int, done: Round) -> tuple[Kind, ExpiryResult] | None:
        """The channel's kind and queue; None when the channel is gone or expires now."""
        ref = await self._channels.ref(channel)
        if not ref.account or ref.kind is None:
            return None
        queue = await self._queues.drop_expired(channel)
        done.dropped += queue.dropped
        if await self._expire(channel, ref, now_ms):
            done.expired.append(channel)
            facts = {"channel": channel, "account": ref.account, "kind": ref.kind}
            logger.info("channel.expired", extra={"facts": facts})
            return None
        # The gateway that made the channel may have died before it wrote the routing table.
        await self._routing.add_key(ref.account, channel)
        await self._channels.index(ref.account, channel, kind=ref.kind, generation=ref.generation)
        return ref.kind, queue

    async def _note_oldest(
        self, queues: list[tuple[Kind, ExpiryResult]], live: dict[str, bool], done: Round
    ) -> None:
        """Keeps the oldest pending time of each group; `live` caches the heartbeats read in this round."""
        new = {
            instance_of(queue.owner) for _, queue in queues if queue.owner and queue.oldest_ms
        } - live.keys()
        seen = await asyncio.gather(*map(self._replicas.state, new))
        live.update(zip(new, (heartbeat.live for heartbeat in seen), strict=True))
        oldest = done.oldest_pending_ms
        for kind, queue in queues:
            if queue.oldest_ms is not None:
                group = (kind, live.get(instance_of(queue.owner), False))
                oldest[group] = min(oldest[group], queue.oldest_ms)

    async def _drop_orphan(self, session: Session, now_ms: int) -> bool:
        """Drops a session whose edge was killed."""
        seen = await self._replicas.state(instance_of(session.owner))
        if seen.live or now_ms - seen.last_heartbeat_ms < _SESSION_GRACE_MS:
            return False
        await self._sessions.drop(session)
        return True

    async def _expire(self, channel: str, ref: ChannelRef, now_ms: int) -> bool:
        idle_expiry_ms = self._idle_expiry_ms.get(ref.kind) if ref.kind else None
        if idle_expiry_ms is None:
            return False
        # A webhook has no socket: it is idle while nothing is queued for it.
        is_webhook = ref.kind is Kind.WEBHOOK
        expire = self._channels.expire_idle_webhook if is_webhook else self._channels.expire
        times = {"now_ms": now_ms, "idle_expiry_ms": idle_expiry_ms}
        return await expire(ref.account, channel, generation=ref.generation, **times)

    async def _repair(self, account: str) -> int:
        """Drops from the account's routing table what names a missing key, channel or session; how many."""
        keys, channels, session_ids = await self._routing.entries(account)
        refs = dict(zip(keys, await asyncio.gather(*map(self._channels.ref, keys)), strict=True))
        gone = [key for key, ref in refs.items() if not ref.account]
        stale = [(key, gen) for key, gen in channels if key not in refs or refs[key].generation != gen]
        for key in gone:
            await self._routing.drop_key(account, key, generation="")
        for key, generation in stale:
            await self._routing.drop_channel(account, key, generation=generation)
        known = await asyncio.gather(*map(self._sessions.is_known, session_ids))
        lost = [session_id for session_id, is_known in zip(session_ids, known, strict=True) if not is_known]
        for session_id in lost:
            await self._routing.drop_session(account, session_id)
        return len(gone) + len(stale) + len(lost)
