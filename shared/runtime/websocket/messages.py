"""Frames become messages, which the application receives one by one, or hears at once.

`receive` wakes a task for each message, and reading pauses until the application has it. A function that
hears messages gets all that one read has brought in one turn of the event loop; it holds the client when it
can take no more. Then a frame is parsed when it is complete, and a plain text is no work for the library.
"""

import logging
from abc import abstractmethod

from starlette.types import Message
from websockets.protocol import SERVER, Protocol

from shared.runtime.websocket.control import OnMessage
from shared.runtime.websocket.frames import frame_end, text_in
from shared.runtime.websocket.turns import TurnProtocol

_FRAGMENT_LIMIT = 256
# The library logs each connection at INFO and below.
_library_logger = logging.getLogger("uvicorn.error")


class MessageProtocol(TurnProtocol):
    """The messages of one connection."""

    __slots__ = (
        *("_close_sent", "_fragments", "_gathered", "_is_text", "_library", "_max_size", "_needed"),
        *("_on_message", "_partial_bytes", "_reads_frames"),
    )

    def _begin_messages(self, max_size: int) -> None:
        self._max_size = max_size
        # What is not parsed yet, and what the library has of the next frame.
        self._partial_bytes = 0
        self._library: Protocol | None = None
        self._close_sent = False
        self._fragments: list[bytes] | None = None
        self._is_text = False
        self._on_message: OnMessage | None = None
        # The library is given whole frames, so that it is between two of them.
        self._reads_frames = False
        # A frame that has come in part, for a function that hears messages, and its whole size.
        self._gathered: bytearray | None = None
        self._needed = 0

    @property
    def _conn(self) -> Protocol:
        """The library, from the first frame on that needs it: most idle sockets never do."""
        if self._library is None:
            self._library = Protocol(SERVER, max_size=self._max_size, logger=_library_logger)
        return self._library

    @abstractmethod
    def _put(self, message: Message) -> None:
        """Has the application receive it."""

    @abstractmethod
    def _fail_protocol(self) -> None:
        """Sends the close frame that the library has, and hangs up."""

    # For the application

    def _hear_messages(self, on_message: OnMessage, most_bytes: int) -> None:
        self._on_message = on_message
        # A client that did not wait for our handshake may have sent a part of a frame.
        self._reads_frames = self._reads_frames or self._library is None or not self._partial_bytes
        self._max_size = most_bytes
        if self._library is not None:
            self._library.max_message_size = most_bytes

    def _hold_messages(self, holds: bool) -> None:
        self._message_waits = holds
        self._plan_reading()

    # From the peer

    def _parse_in_turns(self, data: bytes) -> None:
        if self._gathered is not None:
            self._gathered += data
            if len(self._gathered) < self._needed:
                return
            data, self._gathered = bytes(self._gathered), None
        super()._parse_in_turns(data)

    def _next_slice(self, data: bytes, at: int) -> bytes:
        if not self._reads_frames:
            return super()._next_slice(data, at)
        end = frame_end(data, at, most_bytes=self._max_size)
        if end > len(data):
            self._gathered, self._needed = bytearray(data[at:]), end - at
            return b""
        return data[at:end]

    def _plain_text_in(self, data: bytes) -> bytes | None:
        """The text, if this slice is a whole one and a function hears it; the library does not know of it."""
        if not self._reads_frames or self._fragments is not None:
            return None
        return text_in(data, most_bytes=self._max_size)

    def _receive_text(self, text: bytes) -> bool:
        """A text that was plain. Returns whether it counts for the rate."""
        self._is_text = True
        return self._receive_message(text)

    def _receive_data(self, data: bytes, *, whole: bool) -> None:
        """The data of a frame, behind those of the same message."""
        assert self._fragments is not None
        if len(self._fragments) >= _FRAGMENT_LIMIT:
            self._conn.fail(1009, "too many fragments")
            self._fail_protocol()
            return
        self._fragments.append(data)
        if whole:
            message, self._fragments = b"".join(self._fragments), None
            self._receive_message(message)

    def _receive_message(self, message: bytes) -> bool:
        """Returns whether it counts for the rate."""
        if self._close_sent:
            # The application has closed; only the peer's close frame matters now.
            return True
        try:
            text = message.decode() if self._is_text else None
        except UnicodeDecodeError:
            self._conn.fail(1007)
            self._fail_protocol()
            return True
        if self._on_message is not None:
            return self._on_message(message, self._is_text)
        content: Message = {"bytes": message} if text is None else {"text": text}
        self._put({**content, "type": "websocket.receive"})
        self._message_waits = True
        return True
