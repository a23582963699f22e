"""Visits of channels that are due: drops old notifications, expires idle channels, plans the next visit.

One HMGET shows that nothing is due, which is what most visits find. Otherwise the channel's own scripts
decide, by the clock of Redis.
"""

import asyncio
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from services.composition import Stores
from services.expiry_reaper.turn import Pace, Turn
from shared.model.channels import Kind
from shared.model.errors import StoreUnavailable
from shared.model.webhooks import most_queue_age_ms
from shared.store.account_channels import CREATION_MS
from shared.store.channels import ChannelTimes
from shared.store.due_channels import DueChannel
from shared.store.replicas import InstanceState

logger = logging.getLogger(__name__)

# Of each slot: a lot is some 200 visits.
_LOT_OF_SLOT = 25
_VISITS_PER_S = 2000
_ROUND_S = 10.0
# The clocks of two Redis servers of one cluster.
_CLOCKS_APART_MS = 2000
_RETRY_MS = 60_000
# After an absence, or on a restored copy, channels seem idle that could not be used.
_RETURN_MS = 3600 * 1000


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """How long things last, in ms. A kind of channel without an expiry stays for ever."""

    idle_expiry_ms: Mapping[Kind, int]
    notification_ms: int


@dataclass(slots=True)
class Visited:
    """What the visits of one round did. `pending`: some channels that have pending notifications."""

    channels: int = 0
    expired: list[str] = field(default_factory=list)
    dropped: int = 0
    pending: list[str] = field(default_factory=list)


class Visits:
    """Visits what is due, at most `_VISITS_PER_S`; what a round does not reach is due in the next one."""

    def __init__(self, stores: Stores, lifetimes: Lifetimes) -> None:
        self._stores = stores
        self._lifetimes = lifetimes
        self._pace = Pace(per_s=_VISITS_PER_S)

    async def visit_due(self, turn: Turn) -> Visited:
        """Raises RoundLost, StoreUnavailable."""
        done = Visited()
        began_s = turn.took_s
        while turn.took_s - began_s < _ROUND_S:
            lot = await self._stores.due_channels.due(now_ms=turn.now_ms, count=_LOT_OF_SLOT)
            await self._visit(lot, turn, done)
            await turn.keep()
            if len(lot) < _LOT_OF_SLOT:
                break
            await self._pace.spend(len(lot))
        return done

    async def _visit(self, lot: Sequence[DueChannel], turn: Turn, done: Visited) -> None:
        found = await asyncio.gather(*(self._stores.channels.times(due.id) for due in lot))
        owners = await turn.owners(times.owner for times in found if times is not None)
        next_ms = await asyncio.gather(
            *(
                self._try_to_visit(due.id, times, owners, turn, done)
                for due, times in zip(lot, found, strict=True)
            )
        )
        await self._stores.due_channels.plan(list(zip(lot, next_ms, strict=True)), now_ms=turn.now_ms)
        done.channels += len(lot)
        done.pending += [
            due.id for due, times in zip(lot, found, strict=True) if times and times.pending_since_ms
        ]

    async def _try_to_visit(
        self,
        channel: str,
        times: ChannelTimes | None,
        owners: Mapping[str, InstanceState],
        turn: Turn,
        done: Visited,
    ) -> float | None:
        """`_visit_channel`; a channel whose script fails must not keep the others from their visits."""
        try:
            return await self._visit_channel(channel, times, owners, turn, done)
        except StoreUnavailable:
            raise
        except Exception:
            logger.exception("visit.failed", extra={"facts": {"channel": channel}})
            return turn.now_ms + _RETRY_MS

    async def _visit_channel(
        self,
        channel: str,
        times: ChannelTimes | None,
        owners: Mapping[str, InstanceState],
        turn: Turn,
        done: Visited,
    ) -> float | None:
        """When the channel is due next; None when it is gone."""
        if times is None or await self._has_abandoned(channel, times, turn):
            return None
        bounds = self._bounds(times, owners, turn)
        if min(bounds) <= turn.now_ms:
            idle_ms, too_old_ms = bounds
            if too_old_ms <= turn.now_ms:
                done.dropped += (await self._stores.queues.drop_expired(channel)).dropped
            if idle_ms <= turn.now_ms and await self._expire(channel, times):
                done.expired.append(channel)
                return None
            times = await self._stores.channels.times(channel)
            if times is None:
                return None
            bounds = self._bounds(times, await turn.owners([times.owner]), turn)
        # Later than this round's time: a round visits a channel once.
        return max(min(bounds), turn.now_ms + 1)

    def _bounds(
        self, times: ChannelTimes, owners: Mapping[str, InstanceState], turn: Turn
    ) -> tuple[float, float]:
        owner, now_ms = owners.get(times.owner), turn.now_ms
        idle_ms, too_old_ms = due_bounds(
            times, owner, self._lifetimes, now_ms=now_ms, back_since_ms=turn.back_since_ms
        )
        if times.unfinished_since_ms is not None:
            idle_ms = min(idle_ms, times.unfinished_since_ms + CREATION_MS)
        return idle_ms, too_old_ms

    async def _has_abandoned(self, channel: str, times: ChannelTimes, turn: Turn) -> bool:
        """Whether the channel was unfinished for too long, and is ended now."""
        since_ms = times.unfinished_since_ms
        if since_ms is None or turn.now_ms - since_ms < CREATION_MS:
            return False
        ref = await self._stores.channels.ref(channel)
        if not await self._stores.channels.abandon(ref, channel, after_ms=CREATION_MS):
            return False
        logger.info("channel.abandoned", extra={"facts": {"channel": channel, "account": ref.account}})
        return True

    async def _expire(self, channel: str, times: ChannelTimes) -> bool:
        channels = self._stores.channels
        account = (await channels.ref(channel)).account
        expire = channels.expire_idle_webhook if times.kind is Kind.WEBHOOK else channels.expire
        idle_expiry_ms = times.idle_expiry_ms or self._lifetimes.idle_expiry_ms[times.kind]
        if not await expire(account, channel, generation=times.generation, idle_expiry_ms=idle_expiry_ms):
            return False
        facts = {"channel": channel, "account": account, "kind": times.kind}
        logger.info("channel.expired", extra={"facts": facts})
        return True


def due_bounds(
    times: ChannelTimes,
    owner: InstanceState | None,
    lifetimes: Lifetimes,
    *,
    now_ms: int,
    back_since_ms: int = 0,
) -> tuple[float, float]:
    """Lower bounds, whatever happens next, of when the channel may expire and a notification be too old.

    `owner`: the instance that has the lease. A lease may be released right now, and the next notification
    queued right now, by a clock that is a little behind. After an absence nothing expires for its expiry,
    or for an hour if that is less: the clients must have connected again.
    """
    now_there_ms = now_ms - _CLOCKS_APART_MS
    pending_since_ms = now_there_ms if times.pending_since_ms is None else times.pending_since_ms
    lifetime_ms = lifetimes.notification_ms
    if times.is_native_webhook:
        lifetime_ms = most_queue_age_ms(lifetime_ms)
    too_old_ms = pending_since_ms + min(lifetime_ms, times.lifetime_ms or lifetime_ms)
    own_ms = times.idle_expiry_ms
    expiry_ms = lifetimes.idle_expiry_ms.get(times.kind) if own_ms is None else own_ms
    if not expiry_ms:
        return math.inf, too_old_ms
    idle_since_ms = times.idle_since_ms
    # A webhook's owner comes and goes: it is idle while nothing is queued for it.
    if owner is not None and times.kind is not Kind.WEBHOOK:
        # A live owner may release the lease now, or have sent its last heartbeat.
        last_ms = owner.last_heartbeat_ms + _CLOCKS_APART_MS
        idle_since_ms = max(idle_since_ms, min(last_ms, now_there_ms) if owner.live else last_ms)
    returned_ms = back_since_ms + min(expiry_ms, _RETURN_MS) if back_since_ms else 0
    return max(idle_since_ms + expiry_ms, returned_ms), too_old_ms
