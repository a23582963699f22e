"""Connections whose request head has not arrived: bounded in number, and parsed in lots.

A client that connects and sends nothing costs an open file for 10 seconds. When there are too many of them,
the oldest is closed, so none keeps a client out that sends its request at once.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from shared import telemetry
from shared.runtime.http.client_address import Network, block_of, is_within
from shared.runtime.round_robin import RoundRobin
from shared.runtime.send_queue import has_unread

# A head and the handshake that follows take half a millisecond.
HEADS_PER_TURN = 16
# So many of the oldest are asked for one that has sent nothing.
_CANDIDATES = 64


class Arriving(Protocol):
    """A connection."""

    transport: asyncio.Transport
    client: tuple[str, int] | None


class Arrivals:
    """Those of one server. Connections of trusted proxies have no bound of their address."""

    def __init__(self, *, most: int, most_per_address: int, trusted: Sequence[Network]) -> None:
        self._most = most
        self._most_per_address = most_per_address
        self._trusted = trusted
        # The oldest first.
        self._addresses: dict[Arriving, str] = {}
        self._at: dict[str, dict[Arriving, None]] = {}
        # Heads that were parsed in this turn, and those that wait for a later one.
        self._heads = 0
        self._waiting: RoundRobin[Callable[[], None]] = RoundRobin()

    def __len__(self) -> int:
        return len(self._addresses)

    def add(self, connection: Arriving) -> None:
        """Its next head is awaited. Another connection may be closed for it."""
        address = self._address_of(connection)
        self._make_room(self._at.get(address, {}), self._most_per_address)
        self._make_room(self._addresses, self._most)
        self._addresses[connection] = address
        if address:
            self._at.setdefault(address, {})[connection] = None

    def forget(self, connection: Arriving) -> None:
        """Its head has arrived, or it has ended."""
        if not (address := self._addresses.pop(connection, "")):
            return
        at_address = self._at[address]
        at_address.pop(connection, None)
        if not at_address:
            del self._at[address]

    def parse(self, connection: Arriving, on_turn: Callable[[], None]) -> bool:
        """Whether a head may be parsed now. If not, `on_turn` is called in a later turn of the event loop.

        Thousands of clients that connect at once would otherwise have all of a turn.
        """
        if self._heads < HEADS_PER_TURN and not self._waiting:
            if self._heads == 0:
                asyncio.get_running_loop().call_soon(self._end_turn)
            self._heads += 1
            return True
        self._waiting.add(self._address_of(connection), on_turn)
        return False

    def _end_turn(self) -> None:
        self._heads = 0
        while self._waiting and self._heads < HEADS_PER_TURN:
            self._heads += 1
            self._waiting.pop()()
        if self._heads:
            asyncio.get_running_loop().call_soon(self._end_turn)

    def _address_of(self, connection: Arriving) -> str:
        """By what it is counted; "" for a trusted proxy's, and where the address is unknown."""
        address = connection.client[0] if connection.client else ""
        return "" if self._trusted and is_within(address, self._trusted) else block_of(address)

    def _make_room(self, connections: dict[Arriving, str] | dict[Arriving, None], most: int) -> None:
        if len(connections) < most:
            return
        # What a client has sent may wait in the kernel while many connect. Beyond twice the bound all count.
        is_spared = len(connections) < 2 * most
        for connection, _ in zip(connections, range(_CANDIDATES), strict=False):
            if not (is_spared and has_unread(connection.transport)):
                break
        else:
            return
        self.forget(connection)
        telemetry.refusals.add(1, {"reason": "connections"})
        connection.transport.abort()
