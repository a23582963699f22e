"""Sessions of dead edges: dropped within seconds of the lost heartbeat, found by the edge that held them."""

import logging
from collections.abc import Mapping

from services.composition import Stores
from services.expiry_reaper.turn import Turn

logger = logging.getLogger(__name__)

_INSTANCES = 100
_SESSIONS = 50
_ROUND_S = 20.0
_CLEANED = "cleaned_until_ms"


class Orphans:
    """Drops what dead edges held. An edge has `heartbeat_ttl_ms` after an outage of Redis to beat again."""

    def __init__(self, stores: Stores, *, heartbeat_ttl_ms: int) -> None:
        self._stores = stores
        self._ttl_ms = heartbeat_ttl_ms

    async def drop_all(self, turn: Turn, notes: Mapping[str, str]) -> int:
        """Drops sessions, for a while at most; the number of them. Raises RoundLost, StoreUnavailable.

        Reads only instances whose last heartbeat came after that of the last one cleaned: a round without a
        dead edge costs one command.
        """
        if not turn.is_steady_for(self._ttl_ms):
            return 0
        cleaned_ms, began_s, dropped = float(notes.get(_CLEANED, 0)), turn.took_s, 0
        until_ms = turn.now_ms - self._ttl_ms
        seen = await self._stores.replicas.seen_between(cleaned_ms, until_ms, count=_INSTANCES)
        states = await turn.instances(instance for instance, _ in seen)
        for instance, last_ms in seen:
            if states[instance].live:
                # It has a longer TTL, or has come back. Those behind it wait for the next round.
                break
            dropped += await self.drop_of(instance, turn, until_s=began_s + _ROUND_S)
            if turn.took_s > began_s + _ROUND_S:
                break
            cleaned_ms = last_ms
        if len(seen) == _INSTANCES:
            # More of them may have been seen in the same millisecond.
            cleaned_ms -= 1
        if cleaned_ms > float(notes.get(_CLEANED, 0)):
            await turn.note({_CLEANED: round(cleaned_ms)})
        return dropped

    async def drop_of(self, instance: str, turn: Turn, *, until_s: float) -> int:
        """Drops the sessions of one dead instance, until `took_s` of the turn; the number of them."""
        dropped = 0
        while turn.took_s <= until_s:
            if (await self._stores.replicas.state(instance)).live:
                # It was frozen, and writes its sessions again.
                break
            lot = await self._stores.sessions.drop_some_of(instance, count=_SESSIONS)
            dropped += lot
            await turn.keep()
            if lot < _SESSIONS:
                break
        if dropped:
            facts = {"instance": instance, "sessions": dropped}
            logger.info("sessions.dropped", extra={"facts": facts})
        return dropped
