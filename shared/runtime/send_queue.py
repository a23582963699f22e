"""The state of a TCP connection as the kernel knows it: unacknowledged bytes, and whether it is closed."""

import asyncio
import contextlib
import fcntl
import socket
import struct
import sys
import termios

_NUMBER = bytes(4)
# Linux's numbers of the TCP states in which data we write still reaches the peer.
_ESTABLISHED = 1
_CLOSED_BY_PEER = 8
# Of tcpi_bytes_acked in Linux's struct tcp_info.
_ACKED_AT = 120


def unread_bytes(transport: asyncio.Transport) -> int:
    """The bytes in our buffer, and those that the peer's kernel has not acknowledged."""
    buffered = transport.get_write_buffer_size()
    try:
        descriptor = transport.get_extra_info("socket").fileno()
        queued = fcntl.ioctl(descriptor, termios.TIOCOUTQ, _NUMBER)
    except (OSError, ValueError, AttributeError):
        return buffered
    return buffered + int.from_bytes(queued, sys.byteorder)


def has_unread(transport: asyncio.Transport) -> bool:
    """Has the peer sent something that we have not read yet?"""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        descriptor = transport.get_extra_info("socket").fileno()
        return any(fcntl.ioctl(descriptor, termios.FIONREAD, _NUMBER))
    return False


def acked_bytes(transport: asyncio.Transport) -> int | None:
    """The bytes of the whole connection that the peer's kernel has acknowledged; None if that is unknown.

    Linux still knows it after a reset, when the send queue is gone.
    """
    with contextlib.suppress(OSError, ValueError, AttributeError, struct.error):
        kernel_socket = transport.get_extra_info("socket")
        info = kernel_socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _ACKED_AT + 8)
        return int(struct.unpack_from("=Q", info, _ACKED_AT)[0])
    return None


def has_hung_up(transport: asyncio.Transport) -> bool:
    """Has the peer closed or reset the connection? The kernel knows before the event loop does."""
    return _state(transport) != _ESTABLISHED


def is_broken(transport: asyncio.Transport) -> bool:
    """Was the connection reset or otherwise lost? Then `unread_bytes` means nothing."""
    return _state(transport) not in (_ESTABLISHED, _CLOSED_BY_PEER)


def _state(transport: asyncio.Transport) -> int:
    with contextlib.suppress(OSError, ValueError, AttributeError):
        kernel_socket = transport.get_extra_info("socket")
        return int(kernel_socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0])
    return 0
