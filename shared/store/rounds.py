"""The reaper's rounds: one at a time across replicas, and what they leave for the next one.

Time is that of the Redis that has the round's record. A round that is not renewed ends by itself, so one of a
killed reaper blocks the others for seconds. What a round notes for the next ones is refused after another one
has begun. The other steps need no fencing: each checks again, in the channel's own script, what it has read.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from shared.redis.pipeline import RedisCommands
from shared.store import keyspace

# A step of a round takes less. The round of a killed reaper is over by then.
ROUND_TTL_MS = 10_000
ABSENCE_MS = 2 * 60 * 1000
"""A gap between rounds in which clients may have been unable to connect."""


@dataclass(frozen=True, slots=True)
class Begun:
    """A round that has begun, and since when rounds have followed each other without a gap (ms).

    `back_since_ms` is the end of the last absence, 0 before the first.
    """

    now_ms: int
    steady_since_ms: int
    back_since_ms: int = 0


class RoundLost(Exception):
    """Another reaper's round has begun: this one took too long."""


class Rounds:
    """The lock of rounds, and the notes in `keyspace.REAPER_NOTES`."""

    def __init__(self, redis: RedisCommands) -> None:
        self._redis = redis

    async def begin(self, token: str, *, longest_gap_ms: int) -> Begun | None:
        """Begins a round under a name that no other has; None while another one is under way."""
        status, *times = await self._redis.script(
            "round_begin", [keyspace.REAPER_ROUND], token, ROUND_TTL_MS, longest_gap_ms, ABSENCE_MS
        )
        return Begun(*map(int, times)) if status == b"begun" else None

    async def renew(self, token: str) -> None:
        """Gives the round another `ROUND_TTL_MS`. Raises RoundLost."""
        if not await self._redis.script("round_renew", [keyspace.REAPER_ROUND], token, ROUND_TTL_MS):
            raise RoundLost

    async def end(self, token: str) -> None:
        """Lets the next round begin."""
        await self._redis.script("round_renew", [keyspace.REAPER_ROUND], token, "")

    async def notes(self) -> dict[str, str]:
        """What earlier rounds have noted."""
        stored = await self._redis.command("HGETALL", keyspace.REAPER_NOTES)
        return {name.decode(): value.decode() for name, value in zip(stored[::2], stored[1::2], strict=True)}

    async def note(self, token: str, notes: Mapping[str, str | int]) -> None:
        """Writes these notes beside the others. Raises RoundLost."""
        names = [keyspace.REAPER_ROUND, keyspace.REAPER_NOTES]
        fields = [part for pair in notes.items() for part in pair]
        if not await self._redis.script("round_note", names, token, *fields):
            raise RoundLost
