"""What of all that was written to a connection the peer's machine has not confirmed."""

import asyncio
import contextlib
import fcntl
import socket
import struct
import termios

# Linux' numbers for the states in which a connection carries what we write.
_ESTABLISHED = 1
_CLOSED_BY_PEER = 8


def unread_bytes(transport: asyncio.Transport) -> int:
    """What waits in our buffer, and what the kernel has not been told that the peer's has got."""
    waiting = transport.get_write_buffer_size()
    with contextlib.suppress(OSError, ValueError, AttributeError):
        descriptor = transport.get_extra_info("socket").fileno()
        answer = fcntl.ioctl(descriptor, termios.TIOCOUTQ, b"\0" * 4)
        waiting += struct.unpack("i", answer)[0]
    return waiting


def has_hung_up(transport: asyncio.Transport) -> bool:
    """Has the peer said that it sends no more, or reset it? The kernel knows before the event loop does."""
    return _state(transport) != _ESTABLISHED


def is_broken(transport: asyncio.Transport) -> bool:
    """Was it reset, or is it gone in another way? Then it means nothing that nothing is unread."""
    return _state(transport) not in (_ESTABLISHED, _CLOSED_BY_PEER)


def _state(transport: asyncio.Transport) -> int:
    with contextlib.suppress(OSError, ValueError, AttributeError):
        kernel_socket = transport.get_extra_info("socket")
        return int(kernel_socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0])
    return 0
