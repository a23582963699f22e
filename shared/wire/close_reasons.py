"""The one table of why a socket ends, and what its client sees.

The codes of Pelion clients are section 6 of docs/protocols/pelion.md, those of sessions are in kazoo.md and
cognism.md. The Pelion service changed its codes in 2020; NOTIFY_PELION_CLOSE_CODES chooses the year.
"""

from typing import Literal, NamedTuple

from shared.model.channels import CloseReason

# The close code of 2019 and that of 2020; None where no close frame is sent.
_Codes = tuple[int | None, int | None]
_NONE = (None, None)


class CloseRow(NamedTuple):
    """`reconnect`: a client that connects again may be served. `native` is of every year."""

    when: str
    pelion: _Codes
    session: _Codes
    reconnect: bool
    text: str = ""
    native: int | None = None


CLOSE_ROWS = {
    # Two clients that reconnect would take the lease from each other for ever.
    CloseReason.TAKEN_OVER: CloseRow(
        "a newer socket took over", (1001, 1001), _NONE, False, "another socket was opened on this channel"
    ),
    CloseReason.CHANNEL_DELETED: CloseRow(
        "the channel was deleted", (1001, 1000), _NONE, False, "the channel was deleted"
    ),
    CloseReason.KEY_REVOKED: CloseRow(
        "the API key was revoked", (1008, 1008), (1008, 1008), False, "the API key was revoked", native=4004
    ),
    # The API key expired, or a rotation ended the secret that opened the socket.
    CloseReason.KEY_EXPIRED: CloseRow(
        "the secret ended",
        (1008, 1008),
        (1008, 1008),
        False,
        "the API key or its secret is no longer valid",
        native=4004,
    ),
    # Pelion 2020 and sessions refuse with an HTTP status.
    CloseReason.BAD_KEY: CloseRow(
        "handshake without a valid secret", (1008, None), _NONE, False, "the API key is missing or not valid"
    ),
    # The client registers a channel, then connects.
    CloseReason.NO_CHANNEL: CloseRow(
        "handshake without a channel", (1011, 1011), _NONE, True, "no channel is registered for this API key"
    ),
    CloseReason.STOPPING: CloseRow(
        "the replica drains",
        (1001, 1012),
        (1001, 1012),
        True,
        "the server is going away; connect again",
        native=1012,
    ),
    CloseReason.REDIS_UNAVAILABLE: CloseRow(
        "Redis was away beyond the limit",
        (1011, 1011),
        (1011, 1011),
        True,
        "the service lost its store",
        native=1011,
    ),
    CloseReason.UNEXPECTED: CloseRow(
        "an error of ours, logged", (1011, 1011), (1011, 1011), True, "unexpected condition", native=1011
    ),
    CloseReason.IDLE: CloseRow("a Blackhole client sent nothing for too long", _NONE, (1000, 1000), True),
    # A stranger's socket. Later there may be room again.
    CloseReason.CROWDED_OUT: CloseRow(
        "unauthenticated, and the oldest of too many",
        _NONE,
        (1013, 1013),
        True,
        "too many sockets have not authenticated; connect again and authenticate at once",
        native=1013,
    ),
    CloseReason.OVER_BUDGET: CloseRow(
        "unauthenticated, and sent too much",
        _NONE,
        (1008, 1008),
        True,
        "too many messages or bytes before a valid credential",
        native=4009,
    ),
    CloseReason.TOO_MANY_FAILURES: CloseRow(
        "a credential that is not valid, from an address with too many",
        _NONE,
        (1013, 1013),
        True,
        "too many failed authentications from this address; connect again later",
        native=1013,
    ),
    CloseReason.OVER_QUOTA: CloseRow(
        "authenticated, and its account has too many sockets",
        _NONE,
        (1013, 1013),
        True,
        "the quota sockets of the account is used up; connect again later",
        native=1013,
    ),
    # Resumed it takes sockets again; what was queued meanwhile waits.
    CloseReason.PAUSED: CloseRow(
        "the channel is paused", (1013, 1013), _NONE, True, "the channel is paused; connect again later"
    ),
    # Readers of streams. SSE has no close frames: sse.md.
    CloseReason.TOO_SLOW: CloseRow(
        "a client that reads streams did not keep up",
        _NONE,
        _NONE,
        True,
        "too much waits to be read; connect again, and go on where you were",
        native=4008,
    ),
    CloseReason.UNBOUND: CloseRow(
        "a topic of a reader of streams is no longer bound to its API key",
        _NONE,
        _NONE,
        False,
        "a topic is no longer bound to the API key",
    ),
    # Channels of native sockets, which stay open without them: native.md.
    CloseReason.FORBIDDEN: CloseRow(
        "the socket's token no longer names the channel",
        _NONE,
        _NONE,
        False,
        "the token does not name the channel",
    ),
    CloseReason.LOST_WRITES: CloseRow(
        "Redis has lost what the channel was sent: an ack could mean another event",
        _NONE,
        _NONE,
        True,
        "the store has lost writes; open the channel again",
    ),
    # What a token has opened. With another token the client may come back.
    CloseReason.TOKEN_EXPIRED: CloseRow(
        "its token has expired",
        _NONE,
        _NONE,
        False,
        "the token has expired; come back with a new one",
        native=4001,
    ),
    CloseReason.TOKEN_KEY_DELETED: CloseRow(
        "the key of its token was deleted",
        _NONE,
        _NONE,
        False,
        "the key of the token was deleted",
        native=4002,
    ),
    CloseReason.SIGNED_OUT: CloseRow(
        "the subject of its token was signed out",
        _NONE,
        _NONE,
        False,
        "the subject of the token was signed out",
        native=4003,
    ),
    # Two clients of one ticket would take it from each other for ever.
    CloseReason.TICKET_TAKEN: CloseRow(
        "a newer reader has its ticket",
        _NONE,
        _NONE,
        False,
        "the ticket was used again, by a newer connection",
    ),
    CloseReason.STALLED: CloseRow("a pong is overdue: the connection is aborted", _NONE, _NONE, True),
    CloseReason.CLIENT_GONE: CloseRow("the client closed or lost its connection", _NONE, _NONE, True),
    # Only native sockets: others answer it, or ignore it.
    CloseReason.MALFORMED: CloseRow(
        "a frame is no request", _NONE, _NONE, False, "the frame is malformed", native=4000
    ),
    CloseReason.NOT_AUTHENTICATED: CloseRow(
        "did not authenticate in time",
        _NONE,
        _NONE,
        True,
        "authenticate within the time that the first frame names",
        native=4005,
    ),
}
if missing := set(CloseReason) - CLOSE_ROWS.keys():
    raise RuntimeError(f"close reasons without a row: {sorted(missing)}")


def close_frame(
    reason: CloseReason, *, dialect: Literal["pelion", "session", "native"], year: int
) -> tuple[int, str] | None:
    """The close code and its text; None for a socket that ends without a close frame."""
    row = CLOSE_ROWS[reason]
    if dialect == "native":
        code = row.native
    else:
        code = (row.pelion if dialect == "pelion" else row.session)[year >= 2020]
    return None if code is None else (code, row.text)
