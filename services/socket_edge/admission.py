"""How many sockets of strangers an edge holds, and which one makes room for a new one.

A socket that has not authenticated never keeps another out. When a bound is reached the oldest such socket is
closed, so a client has the time in which as many others arrive to authenticate. An authenticated socket is
never closed for another.
"""

from typing import TYPE_CHECKING

from services.socket_edge.registry import Registry
from shared.runtime.http.responses import too_many
from shared.runtime.settings import Settings

if TYPE_CHECKING:
    from services.socket_edge.held import HeldSocket

    _Sockets = dict[HeldSocket, None]


class Budget:
    """What a stranger may send on one socket."""

    __slots__ = ("_frames", "_size_bytes")

    def __init__(self, settings: Settings) -> None:
        self._frames = settings.unauthenticated_frames
        self._size_bytes = settings.unauthenticated_bytes

    def take(self, size_bytes: int) -> bool:
        """Whether the frame is within the budget, which has less from now on."""
        self._frames -= 1
        self._size_bytes -= size_bytes
        return self._frames >= 0 and self._size_bytes >= 0


class Admission:
    """Counts the sockets of strangers, per address and in all. It forgets an address with its last one."""

    def __init__(self, registry: Registry, settings: Settings) -> None:
        self._registry = registry
        self._settings = settings
        # The oldest first.
        self._strangers: dict[HeldSocket, str] = {}
        self._strangers_at: dict[str, _Sockets] = {}

    def __len__(self) -> int:
        return len(self._strangers)

    @property
    def addresses(self) -> int:
        """How many addresses it keeps in memory."""
        return len(self._strangers_at)

    def make_room(self, address: str, *, for_stranger: bool) -> "list[HeldSocket]":
        """Takes out the sockets to close before another from this address is held.

        Raises Problem (429) when the address has as many authenticated sockets as it may have.
        """
        settings = self._settings
        leaving: list[HeldSocket] = []
        at_address = self._strangers_at.get(address, {})
        most = settings.max_sockets_per_address
        if most is not None and self._registry.count_at(address) >= most:
            if not at_address:
                raise too_many("too many sockets from this address")
            leaving.append(self._take_out(next(iter(at_address))))
        if for_stranger:
            if len(at_address) >= settings.max_unauthenticated_sockets_per_address:
                leaving.append(self._take_out(next(iter(at_address))))
            if len(self._strangers) >= settings.max_unauthenticated_sockets:
                leaving.append(self._take_out(next(iter(self._strangers))))
        return leaving

    def add_stranger(self, socket: "HeldSocket", address: str) -> None:
        """The socket is held, and has not authenticated."""
        self._strangers[socket] = address
        self._strangers_at.setdefault(address, {})[socket] = None

    def forget(self, socket: "HeldSocket") -> None:
        """The socket has authenticated, or it has ended."""
        if (address := self._strangers.pop(socket, None)) is None:
            return
        at_address = self._strangers_at[address]
        del at_address[socket]
        if not at_address:
            del self._strangers_at[address]

    def _take_out(self, socket: "HeldSocket") -> "HeldSocket":
        self.forget(socket)
        # Now and not with its end: until then it would count beside its successor.
        self._registry.release_address(socket)
        return socket
