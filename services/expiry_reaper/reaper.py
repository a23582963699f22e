"""One round of the reaper: sessions of dead edges, channels that are due, a part of the reconciliation.

A round costs what is due, not what exists. One round runs at a time, across replicas; a second one would do
no harm, since each step is a script that checks its conditions again. Neither does a claim, a publish or a
deletion in between. A channel with an open socket never expires.
"""

import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

from services.composition import Stores
from services.expiry_reaper.oldest import Group, OldestPending
from services.expiry_reaper.orphans import Orphans
from services.expiry_reaper.turn import Turn
from services.expiry_reaper.visits import Lifetimes, Visited, Visits
from services.expiry_reaper.walk import Walk, Walked
from shared import telemetry
from shared.model.channels import Kind
from shared.model.errors import StoreUnavailable

logger = logging.getLogger(__name__)

# An instance outlives the channels that expire by its last heartbeat by this much.
_INSTANCE_GRACE_MS = 24 * 3600 * 1000
# A part of each interval is left free: the next round must not find this one under way.
_PART_OF_INTERVAL = 0.7
_GAP_INTERVALS = 2.5
_FOREVER = 0


@dataclass(frozen=True, slots=True)
class Schedule:
    """`every_s`: the interval of rounds; the others are settings of the same names."""

    every_s: float
    heartbeat_s: float
    heartbeat_ttl_s: float
    reconcile_every_s: float
    reconcile_commands_per_s: float


@dataclass(slots=True)
class Round:
    """What one round did. `oldest_pending_ms`: when the oldest pending notification was queued, by group."""

    now_ms: int
    sessions_dropped: int = 0
    visited: Visited = field(default_factory=Visited)
    walked: Walked = field(default_factory=Walked)
    oldest_pending_ms: dict[Group, int] | None = None


class Reaper:
    """Runs rounds."""

    def __init__(self, stores: Stores, lifetimes: Lifetimes, schedule: Schedule) -> None:
        self._stores = stores
        self._lifetimes = lifetimes
        self._schedule = schedule
        ttl_ms = round(schedule.heartbeat_ttl_s * 1000)
        gap_s = max(schedule.heartbeat_ttl_s - schedule.heartbeat_s, _GAP_INTERVALS * schedule.every_s)
        self._longest_gap_ms = round(gap_s * 1000)
        self._orphans = Orphans(stores, heartbeat_ttl_ms=ttl_ms)
        self._visits = Visits(stores, lifetimes)
        self._oldest = OldestPending(stores)
        self._walk = Walk(
            stores,
            self._orphans,
            every_ms=round(schedule.reconcile_every_s * 1000),
            commands_per_s=schedule.reconcile_commands_per_s,
            heartbeat_ttl_ms=ttl_ms,
            instances_kept_ms=max(lifetimes.idle_expiry_ms.values()) + _INSTANCE_GRACE_MS,
        )

    async def round(self) -> Round | None:
        """Runs one round; None while another reaper runs one.

        Raises RoundLost, StoreUnavailable; the next round continues the work. The round's lock then ends by
        its own time: a round that was cut short says nothing about who is live.
        """
        token = secrets.token_hex(8)
        begun = await self._stores.rounds.begin(token, longest_gap_ms=self._longest_gap_ms)
        if begun is None:
            return None
        turn = Turn(self._stores.rounds, self._stores.replicas, begun, token=token)
        done = Round(begun.now_ms)
        notes = await self._stores.rounds.notes()
        done.sessions_dropped = await self._orphans.drop_all(turn, notes)
        await self._follow_settings(turn, notes)
        done.visited = await self._visits.visit_due(turn)
        done.oldest_pending_ms = await self._oldest.look(turn, met=done.visited.pending)
        until_s = max(turn.took_s, _PART_OF_INTERVAL * self._schedule.every_s)
        try:
            done.walked = await self._walk.walk_on(turn, notes, until_s=until_s)
        except StoreUnavailable as error:
            # A full Redis refuses repairs. What frees memory goes on.
            logger.warning("reconciliation.cut-short", extra={"facts": {"why": str(error)}})
        await self._stores.rounds.end(token)
        _report(done)
        return done

    async def _follow_settings(self, turn: Turn, notes: Mapping[str, str]) -> None:
        """Makes every channel due when a lifetime is shorter than the one by which due times were written.

        Noted at the end: a reaper that dies before begins again.
        """
        ours = {f"expiry:{kind}": ms for kind, ms in self._lifetimes.idle_expiry_ms.items()}
        ours["lifetime"] = self._lifetimes.notification_ms
        theirs = {name: int(notes.get(name, _FOREVER)) for name in _NAMES}
        mine = {name: ours.get(name, _FOREVER) for name in _NAMES}
        if mine == theirs:
            return
        if any(_is_shorter(mine[name], theirs[name]) for name in _NAMES):
            await self._stores.due_channels.bring_all_forward(turn.keep)
        await turn.note(mine)


_NAMES = (*(f"expiry:{kind}" for kind in Kind), "lifetime")


def _is_shorter(mine_ms: int, theirs_ms: int) -> bool:
    return mine_ms != _FOREVER and (theirs_ms == _FOREVER or mine_ms < theirs_ms)


def _report(done: Round) -> None:
    telemetry.expired.add(len(done.visited.expired))
    facts = {
        "visited": done.visited.channels,
        "expired": len(done.visited.expired),
        "dropped": done.visited.dropped,
        "sessions_dropped": done.sessions_dropped,
        "reconciled": done.walked.channels,
    }
    logger.debug("reaper.round", extra={"facts": facts})
