"""What a client has sent is parsed in shares, one in each turn of the event loop.

Reading pauses until the rest had its turns, and for longer beyond the rate: TCP slows the client down.
"""

import asyncio
from abc import abstractmethod

# One connection's share of a turn. A slice has at most 21 frames, since the shortest has 6 bytes.
_FRAMES_PER_TURN = 32
_BYTES_PER_TURN = 16 * 1024
_SLICE_BYTES = 128
_SLICES_PER_TURN = _BYTES_PER_TURN // _SLICE_BYTES
# The rate of a client's frames, without its pongs to our pings.
_FRAMES_PER_S = 100
_BURST_FRAMES = 1000
# A client beyond its rate is read this often, and not for each frame.
_RATE_PAUSE_S = 0.2


class TurnProtocol(asyncio.Protocol):
    """A connection whose flood delays others by no more than a share of each turn."""

    __slots__ = (
        "_frames_until_s",
        "_loop",
        "_lost",
        "_message_waits",
        "_reading_paused",
        "_transport",
        "_turn_is_due",
        "_unparsed",
    )

    def __init__(self, transport: asyncio.Transport) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport = transport
        self._lost = False
        # What has arrived and is not parsed yet.
        self._unparsed = b""
        # A message waits for the application.
        self._message_waits = False
        # A callback of the event loop will parse the next share.
        self._turn_is_due = False
        self._reading_paused = False
        # When the frames so far would all have come, if they came at the rate.
        self._frames_until_s = 0.0

    @abstractmethod
    def _parse(self, data: bytes) -> int:
        """Parses a slice. Returns the number of frames that count for the rate."""

    def _next_slice(self, data: bytes, at: int) -> bytes:
        """What is parsed next. b"": the rest has been taken, and comes again when more has arrived."""
        return data[at : at + _SLICE_BYTES]

    @abstractmethod
    def _end_share(self) -> None:
        """Writes what the share is responded with."""

    def _parse_in_turns(self, data: bytes) -> None:
        self._unparsed += data
        if not self._message_waits and not self._turn_is_due:
            self._parse_share()

    def _parse_share(self) -> None:
        """Parses what one turn of the event loop may spend on this connection, and plans the next turn."""
        data, end, slices, frames = self._unparsed, 0, 0, 0
        limit = min(len(data), _BYTES_PER_TURN)
        while end < limit and frames < _FRAMES_PER_TURN and slices < _SLICES_PER_TURN:
            if self._message_waits or self._transport.is_closing():
                break
            piece = self._next_slice(data, end)
            if not piece:
                end = len(data)
                break
            frames += self._parse(piece)
            end += len(piece)
            slices += 1
        self._unparsed = data[end:]
        self._end_share()
        if self._transport.is_closing():
            self._unparsed = b""
            return
        now_s = self._loop.time()
        self._frames_until_s = max(self._frames_until_s, now_s) + frames / _FRAMES_PER_S
        over_s = self._frames_until_s - now_s - _BURST_FRAMES / _FRAMES_PER_S
        if over_s > 0:
            self._turn_is_due = True
            self._loop.call_later(over_s + _RATE_PAUSE_S, self._on_turn)
        self._plan_reading()

    def _on_turn(self) -> None:
        self._turn_is_due = False
        if self._lost or self._transport.is_closing():
            self._unparsed = b""
        elif not self._message_waits:
            self._parse_share()

    def _plan_reading(self) -> None:
        """Reads on, unless the application or a later turn comes first."""
        if self._unparsed and not self._message_waits and not self._turn_is_due:
            self._turn_is_due = True
            self._loop.call_soon(self._on_turn)
        pauses = self._message_waits or self._turn_is_due
        if pauses == self._reading_paused:
            return
        self._reading_paused = pauses
        if pauses:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()
