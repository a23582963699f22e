"""What of all that was written to a connection the peer's machine has not confirmed."""

import asyncio
import contextlib
import fcntl
import socket
import struct
import termios

# Linux' numbers for a connection that carries data from us: open, or the peer has said that it sends no more.
_CARRIES = (1, 8)


def unread_bytes(transport: asyncio.Transport) -> int:
    """What waits in our buffer, and what the kernel has not been told that the peer's has got."""
    waiting = transport.get_write_buffer_size()
    with contextlib.suppress(OSError, ValueError, AttributeError):
        descriptor = transport.get_extra_info("socket").fileno()
        answer = fcntl.ioctl(descriptor, termios.TIOCOUTQ, b"\0" * 4)
        waiting += struct.unpack("i", answer)[0]
    return waiting


def is_broken(transport: asyncio.Transport) -> bool:
    """Was it reset, or is it gone in another way? Then it means nothing that nothing is unread."""
    try:
        info = transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
    except (OSError, ValueError, AttributeError):
        return True
    return info[0] not in _CARRIES
