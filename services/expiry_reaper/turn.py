"""What the steps of one round share: its time, its lock, and the instances it has asked about."""

import asyncio
import time
from collections.abc import Iterable, Mapping

from shared.model.channels import instance_of
from shared.store.replicas import InstanceState, Replicas
from shared.store.rounds import Begun, Rounds

_RENEW_S = 2.0


class Turn:
    """One round. `now_ms` is when it began, by the clock of Redis.

    `back_since_ms` is the end of the last absence of Redis: after it clients need time to connect again.
    """

    def __init__(self, rounds: Rounds, replicas: Replicas, begun: Begun, *, token: str) -> None:
        self.now_ms = begun.now_ms
        self.back_since_ms = begun.back_since_ms
        self._steady_since_ms = begun.steady_since_ms
        self._rounds = rounds
        self._replicas = replicas
        self._token = token
        self._began_s = self._renewed_s = time.monotonic()
        self._instances: dict[str, InstanceState] = {}

    @property
    def took_s(self) -> float:
        return time.monotonic() - self._began_s

    def is_steady_for(self, ms: int) -> bool:
        """Whether Redis has been there for so long: every live instance has sent a heartbeat since."""
        return self.now_ms - self._steady_since_ms >= ms

    async def keep(self) -> None:
        """Renews the lock if it is time. Raises RoundLost, StoreUnavailable."""
        if time.monotonic() - self._renewed_s >= _RENEW_S:
            await self._rounds.renew(self._token)
            self._renewed_s = time.monotonic()

    async def note(self, notes: Mapping[str, str | int]) -> None:
        """Leaves notes for the next rounds. Raises RoundLost, StoreUnavailable."""
        await self._rounds.note(self._token, notes)

    async def instances(self, names: Iterable[str]) -> dict[str, InstanceState]:
        """The states of these instances; each is read once in a round."""
        wanted = set(names)
        new = sorted(wanted - self._instances.keys())
        states = await asyncio.gather(*map(self._replicas.state, new))
        self._instances.update(zip(new, states, strict=True))
        return {name: self._instances[name] for name in wanted}

    async def owners(self, owners: Iterable[str]) -> dict[str, InstanceState]:
        """The instances of these owners, by owner."""
        of = {owner: instance_of(owner) for owner in owners if owner}
        states = await self.instances(of.values())
        return {owner: states[instance] for owner, instance in of.items()}


class Pace:
    """Keeps work below a rate by pauses."""

    def __init__(self, *, per_s: float) -> None:
        self._per_s = per_s
        self._free_s = 0.0

    async def spend(self, amount: float) -> None:
        """Waits until the work done so far, with this amount, is within the rate."""
        self._free_s = max(self._free_s, time.monotonic()) + amount / self._per_s
        await asyncio.sleep(self._free_s - time.monotonic())
