"""What a native socket has beside its requests: topics that it reads, channels that it owns, publishes.

A handler gets the socket and a parsed request:

    def subscribe(socket: NativeSocket, request: Request) -> Handled: ...

It returns what to answer at once, or a coroutine that does, or `None`, and then calls `socket.answer` or
`socket.refuse` later, exactly once. A coroutine that has called `socket.answer` itself returns `None`, too.
Requests are begun in the order of arrival, each when the one before it has no coroutine under way any more;
so one that answers later holds up nothing. What a handler or its coroutine raises becomes the error frame
of its request (refusals.py); `Refusal` is for those that only native sockets have.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeAlias

from shared.wire.native.frames import Request

if TYPE_CHECKING:
    from services.socket_edge.native.socket import NativeSocket

Said: TypeAlias = tuple[str, Any]
"""The name and the value of an answer: `("pong", {})`."""
Handled: TypeAlias = Said | Coroutine[Any, Any, Said | None] | None
Handler: TypeAlias = Callable[["NativeSocket", Request], Handled]


class Part(ABC):
    """One of the things that a socket has: `socket.part(Topics)` makes it with its first use."""

    def __init__(self, socket: "NativeSocket") -> None:
        self.socket = socket

    @abstractmethod
    def on_refreshed(self) -> None:
        """`socket.caller` is another token: ends what it does not name, and tells the client."""

    def wake(self) -> None:  # noqa: B027
        """The edge's sweep, once a minute: looks whether it may still have what it has."""

    @abstractmethod
    async def drain(self) -> None:
        """The replica shuts down: sends nothing more, and returns when the client has acknowledged the rest.

        It is cancelled when the time is over.
        """

    @abstractmethod
    async def end(self) -> None:
        """The socket has ended: gives everything back. Nothing can be written any more."""
