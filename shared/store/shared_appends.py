"""One append for several requests: what they publish while the pipeline to Redis waits.

Redis runs the script once instead of once for each request. Events are added in the order of arrival, and
only to the last append of a channel, or to streams of an account, while it is not sent: so none overtakes
another. The script appends all or none, and each request gets the reply.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from shared.redis.connection import Argument, Command, OnReply

QUEUED = b"queued"
AppendReply: TypeAlias = bytes | list[Any]
"""`QUEUED`, or a list: a status, and what goes with it (queue_append.lua)."""


def status_of(reply: AppendReply) -> bytes:
    status: bytes = reply if isinstance(reply, bytes) else reply[0]
    return status


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
        # The first one has what the append dropped.
        others = QUEUED if isinstance(reply, list) and reply[0] == QUEUED else reply
        _hand_over(self._first, reply)
        for each in self.others:
            _hand_over(each, others)


@dataclass(slots=True, eq=False)
class AppendedLog:
    """What an append adds to one topic, as the script takes it: the epoch of a new log, the topic, and what
    is kept of it; then the events. `waiting` are the requests, with the number of their events."""

    names: Sequence[str]
    head: tuple[Argument, ...]
    count: int
    events: list[Argument]
    waiting: list[tuple[OnReply, int]] = field(default_factory=list)

    @property
    def arguments(self) -> tuple[Argument, ...]:
        return (*self.head, self.count, *self.events)

    def join(self, other: "AppendedLog") -> None:
        self.count += other.count
        self.events += other.events


class SharedStreamAppend:
    """An append to streams of one account that waits to be sent, and what it still has room for."""

    __slots__ = ("_events", "_logs", "_size_bytes", "command")

    def __init__(self, on_reply: OnReply, log: AppendedLog, *, events: int, size_bytes: int) -> None:
        log.waiting.append((on_reply, log.count))
        self._logs = {log.head[1]: log}
        self._events = events - log.count
        self._size_bytes = size_bytes
        self.command: Command | None = None

    def add(self, on_reply: OnReply, log: AppendedLog, *, size_bytes: int) -> bool:
        """Adds the events of another request; False if they need an append of their own: it is sent or full,
        or another rule keeps what it has of their topic."""
        command, topic = self.command, log.head[1]
        known = self._logs.get(topic)
        if (
            command is None
            or command.is_closed
            or log.count > self._events
            or size_bytes > self._size_bytes
            or (known is not None and known.head[2:] != log.head[2:])
        ):
            return False
        if known is None:
            known = self._logs[topic] = log
        else:
            known.join(log)
        known.waiting.append((on_reply, log.count))
        self._events -= log.count
        self._size_bytes -= size_bytes
        self._write(command)
        return True

    def _write(self, command: Command) -> None:
        """Names come before all other arguments."""
        script, names, rest = command.arguments[:2], list[Argument](), list[Argument]()
        for log in self._logs.values():
            names += log.names
            rest += log.arguments
        given = command.arguments[3 + int(command.arguments[2]) :][:2]
        command.arguments = (*script, len(names), *names, *given, *rest)

    def on_reply(self, reply: Any) -> None:
        """Hands each request the offsets of its own events."""
        at = 2
        for log in self._logs.values():
            for on_reply, count in log.waiting:
                if isinstance(reply, Exception):
                    _hand_over(on_reply, reply)
                else:
                    _hand_over(on_reply, [*reply[:2], *reply[at : at + count]])
                    at += count


def _hand_over(on_reply: OnReply, reply: Any) -> None:
    try:
        on_reply(reply)
    except Exception as error:
        loop = asyncio.get_running_loop()
        loop.call_exception_handler({"message": "the callback of an append failed", "exception": error})
