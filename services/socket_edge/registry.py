"""Every connection that this process holds, by the id that wakeups name."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Sequence

from services.socket_edge.held import HeldConnection


class Registry:
    """The connections of one edge. Several have one id for a moment, after a takeover within the edge."""

    def __init__(self) -> None:
        self.by_id: dict[str, tuple[HeldConnection, ...]] = {}
        """Changed by `add` and `remove` only."""
        self._addresses: Counter[str] = Counter()
        self._empty = asyncio.Event()
        self._empty.set()

    def __len__(self) -> int:
        return sum(map(len, self.by_id.values()))

    def add(self, connection: HeldConnection) -> None:
        connection.is_held = True
        self.by_id[connection.id] = (*self.of(connection.id), connection)
        if connection.address is not None:
            self._addresses[connection.address] += 1
        self._empty.clear()

    def remove(self, connection: HeldConnection) -> None:
        connection.is_held = False
        left = tuple(other for other in self.of(connection.id) if other is not connection)
        if left:
            self.by_id[connection.id] = left
        else:
            del self.by_id[connection.id]
        self.release_address(connection)
        if not self.by_id:
            self._empty.set()

    def release_address(self, connection: HeldConnection) -> None:
        """The connection no longer counts at its address."""
        if (address := connection.address) is None:
            return
        connection.address = None
        self._addresses[address] -= 1
        # Addresses that connect once would pile up.
        if not self._addresses[address]:
            del self._addresses[address]

    def of(self, id: str) -> Sequence[HeldConnection]:
        return self.by_id.get(id, ())

    def all(self) -> list[HeldConnection]:
        return [connection for connections in self.by_id.values() for connection in connections]

    def count(self, kind: str) -> int:
        return sum(connection.kind == kind for connection in self.all())

    def count_at(self, address: str) -> int:
        """How many connections come from this address."""
        return self._addresses[address]

    async def wait_empty(self, within_s: float) -> bool:
        """Waits until no connection is left; False when the time is over before."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._empty.wait(), within_s)
        return self._empty.is_set()
