"""The age of the oldest pending notification, from a sample.

Each second round looks at some channels at random, at those that visits met with something pending, and again
at the oldest that the looks before it found. So a stall that concerns many channels shows within seconds, a
single channel of a small installation within a minute or two, and one of a hundred thousand by chance.
"""

import asyncio
import heapq
from collections.abc import Iterable, Sequence

from services.composition import Stores
from services.expiry_reaper.turn import Turn
from shared.model.channels import Kind

Group = tuple[str, bool]
"""A kind of channel, and whether it has a live owner."""

_SAMPLE_OF_SLOT = 4
_MET = 16
_WATCHED = 4


class OldestPending:
    """Remembers the channels with the oldest pending notifications, a few of each group."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self._watched: list[str] = []
        self._rounds = 0

    async def look(self, turn: Turn, *, met: Sequence[str]) -> dict[Group, int] | None:
        """When the oldest pending notification was queued, by group (now: nothing is); None each second time.

        Raises StoreUnavailable.
        """
        self._rounds += 1
        if self._rounds % 2 == 0:
            return None
        sample = await self._stores.due_channels.sample(of_each_slot=_SAMPLE_OF_SLOT)
        found = await self._read(dict.fromkeys([*self._watched, *met[-_MET:], *sample]), turn)
        oldest: dict[Group, int] = {(kind, owned): turn.now_ms for kind in Kind for owned in (True, False)}
        self._watched = []
        for group, channels in found.items():
            first = heapq.nsmallest(_WATCHED, channels)
            oldest[group] = min(oldest[group], first[0][0])
            self._watched += [channel for _, channel in first]
        return oldest

    async def _read(self, channels: Iterable[str], turn: Turn) -> dict[Group, list[tuple[int, str]]]:
        """Channels with pending notifications, and since when they are pending, by group."""
        ids = list(channels)
        times = await asyncio.gather(*map(self._stores.channels.times, ids))
        pending = {c: t for c, t in zip(ids, times, strict=True) if t is not None and t.pending_since_ms}
        owners = await turn.owners(each.owner for each in pending.values())
        # `pending_since_ms` is a lower bound: acks leave it as it is.
        exact = await asyncio.gather(*map(self._stores.channels.oldest_pending_ms, pending))
        found: dict[Group, list[tuple[int, str]]] = {}
        for (channel, of), since_ms in zip(pending.items(), exact, strict=True):
            if since_ms is not None:
                is_owned = of.owner in owners and owners[of.owner].live
                found.setdefault((of.kind, is_owned), []).append((since_ms, channel))
        return found
