"""The extension of ASGI by which an application uses its WebSocket."""

from collections.abc import Callable, Sequence
from typing import TypeAlias, TypedDict

OnMessage: TypeAlias = Callable[[bytes, bool], bool]
"""Gets a message, and whether it is a text. Returns whether it counts for the rate of the client's frames."""


class Control(TypedDict):
    """What an application can do with its WebSocket besides ASGI messages.

    `unread_bytes`: the written bytes that the peer's kernel has not acknowledged. `last_ping_s`: the loop's
    time of the client's last ping. `write` writes text frames, then a ping if one is given, in one write; it
    raises OSError when the socket is closed. `hear_pongs` registers a function that receives the payload of
    the pong to a ping in flight, once; it stands for all pings before it. `hear_control_frames` registers one
    that receives the size in bytes of each ping, and of each pong that no ping of ours asked for; None ends
    that. `hear_messages` registers one that gets each message at once, in place of `receive`, and the most
    bytes of one. It may be called again. `hold_messages` stops reading behind this message, or goes on.
    `write_encoded` writes frames that are encoded already, as `write` does. `buffered_bytes`: what the kernel
    has not taken. `hear_room` registers a function that is called whenever little is left of much that was
    buffered, and when the connection is lost.
    """

    unread_bytes: Callable[[], int]
    last_ping_s: Callable[[], float]
    write: Callable[[Sequence[bytes], bytes | None], None]
    hear_pongs: Callable[[Callable[[bytes], None]], None]
    hear_control_frames: Callable[[Callable[[int], None] | None], None]
    hear_messages: Callable[[OnMessage, int], None]
    hold_messages: Callable[[bool], None]
    write_encoded: Callable[[bytes], None]
    buffered_bytes: Callable[[], int]
    hear_room: Callable[[Callable[[], None]], None]
