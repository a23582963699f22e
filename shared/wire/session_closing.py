"""How sessions' sockets are closed (docs/protocols/kazoo.md and cognism.md tell it for each dialect)."""

from shared.model.channels import CloseReason

_CODES = {
    CloseReason.IDLE: 1000,
    CloseReason.STOPPING: 1001,
    CloseReason.KEY_REVOKED: 1008,
    CloseReason.KEY_EXPIRED: 1008,
    CloseReason.REDIS_AWAY: 1011,
    CloseReason.UNEXPECTED: 1011,
}
_REASONS = {
    CloseReason.IDLE: "",
    CloseReason.STOPPING: "the server is going away; connect again",
    CloseReason.KEY_REVOKED: "the API key was revoked",
    CloseReason.KEY_EXPIRED: "the API key or its secret is no longer valid",
    CloseReason.REDIS_AWAY: "the service lost its store",
    CloseReason.UNEXPECTED: "unexpected condition",
}
_RESTART = 1012


def close_code(close_reason: CloseReason, codes: int) -> int:
    """`codes` is the year of the Pelion table, which knows a code for restarts since 2020."""
    return _RESTART if close_reason is CloseReason.STOPPING and codes == 2020 else _CODES[close_reason]


def close_text(close_reason: CloseReason) -> str:
    return _REASONS[close_reason]
