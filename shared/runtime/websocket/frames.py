"""Frames of RFC 6455, where `websockets` spends several times as much on one."""

import struct
from collections.abc import Sequence

# First bytes of frames (RFC 6455, 5.2).
_TEXT = 0x81
_PING = 0x89
_PING_OF_8_BYTES = b"\x89\x08"
_PONG_OF_8_BYTES = b"\x8a\x88"
_MASK_BYTES = 4


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
