"""Frames of RFC 6455, where `websockets` spends several times as much on one."""

import struct
from collections.abc import Sequence

try:
    from websockets.speedups import apply_mask
except ImportError:
    # A wheel without its compiled part.
    from websockets.utils import apply_mask

# First bytes of frames (RFC 6455, 5.2).
_TEXT = 0x81
_PING = 0x89
_PING_OF_8_BYTES = b"\x89\x08"
_PONG_OF_8_BYTES = b"\x8a\x88"
_MASK_BYTES = 4
_MASKED = 0x80


def encoded(texts: Sequence[bytes], ping: bytes | None) -> bytes:
    """A server's text frames, then a ping if one is given."""
    parts: list[bytes] = []
    for text in texts:
        parts += (_frame_head(_TEXT, len(text)), text)
    if ping is not None:
        parts += (_PING_OF_8_BYTES if len(ping) == 8 else _frame_head(_PING, len(ping)), ping)
    return b"".join(parts)


def _frame_head(first_byte: int, length: int) -> bytes:
    """What precedes the payload of a server's frame."""
    if length < 126:
        return bytes((first_byte, length))
    if length < 65_536:
        return struct.pack("!BBH", first_byte, 126, length)
    return struct.pack("!BBQ", first_byte, 127, length)


def frame_bytes(length: int) -> int:
    """The size of a client's frame, which is masked, with a payload of this length in the shortest form."""
    extended = 0 if length < 126 else 2 if length < 65_536 else 8
    return 2 + extended + _MASK_BYTES + length


def pong_of_8_bytes(data: bytes) -> bytes | None:
    """The payload, if these bytes are one client's pong with 8 bytes of it and nothing else."""
    if len(data) != 14 or data[:2] != _PONG_OF_8_BYTES:
        return None
    mask = int.from_bytes(data[2:6] * 2, "big")
    return (mask ^ int.from_bytes(data[6:], "big")).to_bytes(8, "big")


def frame_end(data: bytes, at: int, *, most_bytes: int) -> int:
    """Where the client's frame at this place ends; behind the end of `data` while it is not complete.

    All that is there of a frame that is not masked, or has more payload: it is wrong from its head on.
    """
    have = len(data) - at
    if have < 2:
        return at + 2
    length, start = data[at + 1] & 0x7F, at + 2
    if not data[at + 1] & _MASKED:
        return len(data)
    if length >= 126:
        start += 2 if length == 126 else 8
        if len(data) < start:
            return start
        length = int.from_bytes(data[at + 2 : start])
    return len(data) if length > most_bytes else start + _MASK_BYTES + length


def text_in(frame: bytes, *, most_bytes: int) -> bytes | None:
    """The payload, if these bytes are a client's whole text in one frame, and it is not too long."""
    if len(frame) < 6 or frame[0] != _TEXT or not frame[1] & _MASKED:
        return None
    length, start = frame[1] & 0x7F, 2
    if length >= 126:
        start = 4 if length == 126 else 10
        length = int.from_bytes(frame[2:start])
    payload = frame[start + _MASK_BYTES :]
    if len(payload) != length or length > most_bytes:
        return None
    return apply_mask(payload, frame[start : start + _MASK_BYTES])
