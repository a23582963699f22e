"""Why a socket ends and what its client sees: one row per close reason.

The codes of Pelion clients are section 6 of docs/protocols/pelion.md, those of sessions are in kazoo.md and
cognism.md. The Pelion service changed its codes in 2020; `year` chooses the column.
"""

from typing import Literal, NamedTuple

from shared.model.channels import CloseReason

# The close code of 2019 and that of 2020. None: the dialect sends no close frame for this reason.
_Codes = tuple[int, int] | None


class CloseRow(NamedTuple):
    """`reconnect`: a client that connects again may be served."""

    pelion: _Codes
    session: _Codes
    reconnect: bool
    text: str


CLOSE_ROWS = {
    # A newer socket has the lease. Two clients that reconnect would take it from each other without end.
    CloseReason.TAKEN_OVER: CloseRow((1001, 1001), None, False, "another socket was opened on this channel"),
    CloseReason.CHANNEL_DELETED: CloseRow((1001, 1000), None, False, "the channel was deleted"),
    CloseReason.KEY_REVOKED: CloseRow((1008, 1008), (1008, 1008), False, "the API key was revoked"),
    # Or a rotation ended the secret that the socket was opened with.
    CloseReason.KEY_EXPIRED: CloseRow(
        (1008, 1008), (1008, 1008), False, "the API key or its secret is no longer valid"
    ),
    # At the handshake: no valid secret or no scope. Sessions and Pelion 2020 refuse it with an HTTP status.
    CloseReason.BAD_KEY: CloseRow((1008, 1008), None, False, "the API key is missing or not valid"),
    # At the handshake. The client registers a channel, then connects.
    CloseReason.NO_CHANNEL: CloseRow((1011, 1011), None, True, "no channel is registered for this API key"),
    CloseReason.STOPPING: CloseRow(
        (1001, 1012), (1001, 1012), True, "the server is going away; connect again"
    ),
    # For longer than NOTIFY_REDIS_OUTAGE_LIMIT_S.
    CloseReason.REDIS_UNAVAILABLE: CloseRow((1011, 1011), (1011, 1011), True, "the service lost its store"),
    # An error of ours; the log has its traceback.
    CloseReason.UNEXPECTED: CloseRow((1011, 1011), (1011, 1011), True, "unexpected condition"),
    # A Kazoo client sent nothing for an hour.
    CloseReason.IDLE: CloseRow(None, (1000, 1000), True, ""),
    # A pong is overdue: the connection is aborted.
    CloseReason.STALLED: CloseRow(None, None, True, ""),
    # The client closed, or its connection was lost.
    CloseReason.CLIENT_GONE: CloseRow(None, None, True, ""),
}
if missing := set(CloseReason) - CLOSE_ROWS.keys():
    raise RuntimeError(f"close reasons without a row: {sorted(missing)}")
_UNEXPECTED = (1011, "unexpected condition")


def close_frame(reason: CloseReason, *, dialect: Literal["pelion", "session"], year: int) -> tuple[int, str]:
    """The close code and its text.

    A reason for which the dialect sends no close frame gives the code of UNEXPECTED: a socket that ends must
    not fail to end.
    """
    row = CLOSE_ROWS[reason]
    codes = row.pelion if dialect == "pelion" else row.session
    if codes is None:
        return _UNEXPECTED
    return codes[year >= 2020], row.text


def close_text(reason: CloseReason) -> str:
    return CLOSE_ROWS[reason].text


def should_reconnect(reason: CloseReason) -> bool:
    return CLOSE_ROWS[reason].reconnect


def refuses_at_handshake(year: int) -> bool:
    """Pelion refuses a bad API key with a 401 before the upgrade (2020), or with a 1008 after it (2019)."""
    return year >= 2020
