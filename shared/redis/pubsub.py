"""The bytes of a connection that is subscribed: messages, other replies, and a server that falls silent.

What is subscribed, and what the other replies mean, is for the classes that inherit.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Protocol, cast

import hiredis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from shared.redis.connection import INCOMPLETE, pack

_SILENCE_S = 5.0
_PINGS = 2
_MESSAGES_PER_TURN = 256


class Hears(Protocol):
    """Gets the messages. Nothing else is read until it returns, so it may not block."""

    def on_messages(self, messages: Sequence[Any]) -> None:
        """The messages of one read, in the order in which Redis published them."""


class PubSubProtocol(ABC, asyncio.Protocol):
    """One connection, from the end of its handshake to its end."""

    # What a message begins with, and which part of it is handed over.
    kind: ClassVar[bytes]
    content: ClassVar[int | slice]

    def __init__(self, listener: Hears, *, error_of: Callable[[str], Exception] = RedisError) -> None:
        self.closed = asyncio.get_running_loop().create_future()
        """The end of the connection; its exception is what the listener raised, or an error reply."""
        self._hears = listener
        self._transport: asyncio.Transport | None = None
        self._reader = hiredis.Reader(replyError=error_of, notEnoughData=INCOMPLETE)
        self._has_received = False
        self._unanswered = 0
        self._timer: asyncio.TimerHandle | None = None

    @abstractmethod
    def on_open(self) -> None:
        """The connection can be written to."""

    @abstractmethod
    def on_reply(self, reply: Any) -> None:
        """Anything but a message: a confirmation, the reply to a ping, an error. What it raises ends it."""

    def write(self, data: bytes) -> None:
        if self._transport is not None and not self.closed.done():
            self._transport.write(data)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not inherit from asyncio.Transport.
        self._transport = cast(asyncio.Transport, transport)
        self.on_open()
        self._timer = asyncio.get_running_loop().call_later(_SILENCE_S, self._check_silence)

    def data_received(self, data: bytes) -> None:
        self._has_received = True
        messages: list[Any] = []
        kind, content = self.kind, self.content
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not INCOMPLETE:
                if isinstance(reply, list) and reply[0] == kind:
                    messages.append(reply[content])
                else:
                    self.on_reply(reply)
            if messages:
                self._hears.on_messages(messages)
            if len(messages) > _MESSAGES_PER_TURN:
                self._read_on_later()
        except hiredis.ProtocolError as error:
            self._end(RedisConnectionError(f"not the Redis protocol: {error}"))
        except Exception as error:
            self._end(error)

    def _read_on_later(self) -> None:
        """Leaves the rest of this turn of the event loop to others: the loop would read on while it can."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()
            asyncio.get_running_loop().call_soon(self._read_on)

    def _read_on(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._end(RedisConnectionError("the connection was closed"))

    def _end(self, error: Exception) -> None:
        if not self.closed.done():
            self.closed.set_exception(error)
            # Retrieve it here: after a cancellation no task does.
            self.closed.exception()
        self.abort()

    def _check_silence(self) -> None:
        """Pings a silent server; without a reply to two pings the peer may be gone."""
        self._unanswered = 0 if self._has_received else self._unanswered + 1
        self._has_received = False
        if self._unanswered > _PINGS:
            self.abort()
            return
        if self._unanswered:
            self.write(pack(("PING",)))
        self._timer = asyncio.get_running_loop().call_later(_SILENCE_S, self._check_silence)
