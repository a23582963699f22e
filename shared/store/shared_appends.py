"""One append for several requests: what they publish to one channel or topic while the pipeline waits.

Redis runs the script once instead of once for each request. Events are added in the order of arrival, and
only to the last append of a channel or of a stream, while it is not sent: so none overtakes another. The
script appends all or none, and each request gets the reply.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, TypeAlias

from shared.model.streams import Keep
from shared.redis.connection import Argument, Command, OnReply

QUEUED = b"queued"
AppendReply: TypeAlias = bytes | list[Any]
"""`QUEUED`, or a list: a status, and what goes with it (queue_append.lua)."""


def status_of(reply: AppendReply) -> bytes:
    status: bytes = reply if isinstance(reply, bytes) else reply[0]
    return status


def reply_beside(reply: Any) -> Any:
    """For all but the first of the requests that share an append: that one has what the append dropped."""
    return QUEUED if isinstance(reply, list) and reply[0] == QUEUED else reply


class SharedAppend:
    """An append that waits to be sent, and what it still has room for."""

    __slots__ = ("_command", "_events", "_size_bytes", "_traceparent", "_version")

    def __init__(
        self, command: Command, *, version: str, traceparent: str, events: int, size_bytes: int
    ) -> None:
        self._command = command
        self._version = version
        self._traceparent = traceparent
        self._events = events
        self._size_bytes = size_bytes

    def add(
        self,
        on_reply: OnReply,
        groups: Sequence[Argument],
        *,
        version: str,
        traceparent: str,
        events: int,
        size_bytes: int,
    ) -> bool:
        """Adds the events of another request, as the script takes them; False if they need an append of
        their own: it is sent or full, or they have another version of the bindings or another trace."""
        command = self._command
        if (
            events > self._events
            or size_bytes > self._size_bytes
            or version != self._version
            or traceparent != self._traceparent
            or command.is_closed
        ):
            return False
        command.arguments += tuple(groups)
        self._events -= events
        self._size_bytes -= size_bytes
        first = command.on_reply
        if isinstance(first, _Replies):
            first.others.append(on_reply)
        else:
            assert first is not None
            command.on_reply = _Replies(first, on_reply)
        return True


class _Replies:
    """Hands one reply to each request."""

    __slots__ = ("_first", "others")

    def __init__(self, first: OnReply, second: OnReply) -> None:
        self._first = first
        self.others = [second]

    def __call__(self, reply: Any) -> None:
        others = reply_beside(reply)
        _hand_over(self._first, reply)
        for each in self.others:
            _hand_over(each, others)


class SharedStreamAppend:
    """An append to a topic that waits to be sent, and what it still has room for."""

    __slots__ = ("_command", "_count", "_keep", "_room", "_size_bytes", "_waiting")

    def __init__(self, command: Command, keep: Keep, *, count: int, room: int, size_bytes: int) -> None:
        self._command = command
        self._keep = keep
        self._count = count
        self._room = room
        self._size_bytes = size_bytes
        # The requests, with the number of their events; empty while there is one.
        self._waiting: list[tuple[OnReply, int]] = []

    def add(
        self, on_reply: OnReply, groups: Sequence[Argument], *, keep: Keep, count: int, size_bytes: int
    ) -> bool:
        """Adds the events of another request; False if they need an append of their own: it is sent or full,
        or another rule keeps what it has."""
        command = self._command
        if count > self._room or size_bytes > self._size_bytes or keep != self._keep or command.is_closed:
            return False
        if not self._waiting:
            assert command.on_reply is not None
            self._waiting.append((command.on_reply, self._count))
            command.on_reply = self._on_reply
        self._waiting.append((on_reply, count))
        command.arguments += tuple(groups)
        self._room -= count
        self._size_bytes -= size_bytes
        return True

    def _on_reply(self, reply: Any) -> None:
        """Hands each request the offsets of its own events."""
        at = 2
        for on_reply, count in self._waiting:
            if isinstance(reply, list):
                _hand_over(on_reply, [*reply[:2], *reply[at : at + count]])
                at += count
            else:
                _hand_over(on_reply, reply)


def _hand_over(on_reply: OnReply, reply: Any) -> None:
    try:
        on_reply(reply)
    except Exception as error:
        loop = asyncio.get_running_loop()
        loop.call_exception_handler({"message": "the callback of an append failed", "exception": error})
