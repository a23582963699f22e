"""A parser of `text/event-stream` by WHATWG's HTML standard, section 9.2.6, as browsers have it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson


@dataclass(frozen=True)
class Message:
    """An event as a page gets it."""

    data: str
    type: str = "message"
    last_event_id: str = ""

    @property
    def json(self) -> Any:
        return orjson.loads(self.data)


@dataclass
class EventStreamParser:
    """Takes the bytes of a response in any pieces."""

    last_event_id: str = ""
    retry_ms: int | None = None
    comments: int = 0
    messages: list[Message] = field(default_factory=list)
    _rest: bytes = b""
    _has_begun: bool = False
    _data: list[str] = field(default_factory=list)
    _type: str = ""
    _id: str = ""

    def __post_init__(self) -> None:
        self._id = self.last_event_id

    def feed(self, piece: bytes) -> list[Message]:
        """The events that this piece completes."""
        before = len(self.messages)
        for line in self._lines(piece):
            self._take(line.decode(errors="replace"))
        return self.messages[before:]

    def _lines(self, piece: bytes) -> Iterator[bytes]:
        self._rest += piece
        if not self._has_begun:
            if len(self._rest) < 3 and b"\xef\xbb\xbf".startswith(self._rest):
                return
            self._has_begun = True
            self._rest = self._rest.removeprefix(b"\xef\xbb\xbf")
        while True:
            ends = [at for at in (self._rest.find(b"\n"), self._rest.find(b"\r")) if at >= 0]
            if not ends:
                return
            at = min(ends)
            # A carriage return at the end of a piece may be the first half of a line break.
            if self._rest[at : at + 1] == b"\r" and at + 1 == len(self._rest):
                return
            length = 2 if self._rest[at : at + 2] == b"\r\n" else 1
            line, self._rest = self._rest[:at], self._rest[at + length :]
            yield line

    def _take(self, line: str) -> None:
        if not line:
            self._dispatch()
            return
        if line.startswith(":"):
            self.comments += 1
            return
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._type = value
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            self.retry_ms = int(value)

    def _dispatch(self) -> None:
        self.last_event_id = self._id
        data, type_ = "\n".join(self._data), self._type or "message"
        has_data = bool(self._data)
        self._data, self._type = [], ""
        if has_data:
            self.messages.append(Message(data, type_, self.last_event_id))
