"""One append for several requests: what they publish while the pipeline to Redis waits.

Redis runs the script once instead of once for each request. Events are added in the order of arrival, and
only to the last append of a channel, or to streams of an account, while it is not sent: so none overtakes
another. The script appends all or none, and each request gets the reply.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, TypeAlias

from shared.redis.connection import Argument, Command, OnReply

QUEUED = b"queued"
EVENT_PARTS = 6
"""Arguments of an event in an append to streams."""
SHARED_ARGUMENTS = 2
"""Arguments of such an append before those of its first topic."""
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


class StreamLog:
    """What an append adds to one topic: its names, the epoch of a new log with the topic and what is kept of
    it, and the events, as the script takes them. `waiting` are the requests, with the number of their events.
    """

    __slots__ = ("events", "head", "names", "waiting")

    def __init__(self, names: Sequence[str], head: tuple[Argument, ...], events: list[Argument]) -> None:
        self.names = names
        self.head = head
        self.events = events
        self.waiting: list[tuple[OnReply, int]]

    @property
    def arguments(self) -> tuple[Argument, ...]:
        return (*self.head, len(self.events) // EVENT_PARTS, *self.events)


class SharedStreamAppend:
    """An append to streams of one account that waits to be sent, and what it still has room for."""

    __slots__ = ("_command", "_events", "_logs", "_size_bytes")

    def __init__(self, command: Command, log: StreamLog, *, events: int, size_bytes: int) -> None:
        assert command.on_reply is not None
        log.waiting = [(command.on_reply, len(log.events) // EVENT_PARTS)]
        self._command = command
        self._logs = {log.head[1]: log}
        self._events = events
        self._size_bytes = size_bytes

    def add(self, on_reply: OnReply, log: StreamLog, *, events: int, size_bytes: int) -> bool:
        """Adds the events of another request; False if they need an append of their own: it is sent or full,
        or another rule keeps what it has of their topic."""
        command = self._command
        if events > self._events or size_bytes > self._size_bytes or command.is_closed:
            return False
        known = self._logs.get(log.head[1])
        if known is None:
            self._logs[log.head[1]] = log
            log.waiting = [(on_reply, events)]
        elif known.head[2:] == log.head[2:]:
            known.events += log.events
            known.waiting.append((on_reply, events))
        else:
            return False
        self._events -= events
        self._size_bytes -= size_bytes
        if command.finish is None:
            command.finish, command.on_reply = self._finish, self._on_reply
        return True

    def _finish(self) -> tuple[Argument, ...]:
        """The names of all come before their other arguments."""
        evalsha, sha, count, *rest = self._command.arguments
        names, logs = list[Argument](), list[Argument]()
        for log in self._logs.values():
            names += log.names
            logs += log.arguments
        of_all = rest[int(count) :][:SHARED_ARGUMENTS]
        return (evalsha, sha, len(names), *names, *of_all, *logs)

    def _on_reply(self, reply: Any) -> None:
        """Hands each request the offsets of its own events."""
        at = 2
        for log in self._logs.values():
            for on_reply, count in log.waiting:
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
