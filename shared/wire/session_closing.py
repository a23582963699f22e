"""How sessions' sockets are closed (docs/protocols/kazoo.md and cognism.md tell it for each dialect)."""

from shared.model.channels import Ending

_CODES = {
    Ending.IDLE: 1000,
    Ending.STOPPING: 1001,
    Ending.KEY_REVOKED: 1008,
    Ending.KEY_EXPIRED: 1008,
    Ending.REDIS_AWAY: 1011,
    Ending.UNEXPECTED: 1011,
}
_REASONS = {
    Ending.IDLE: "",
    Ending.STOPPING: "the server is going away; connect again",
    Ending.KEY_REVOKED: "the API key was revoked",
    Ending.KEY_EXPIRED: "the API key or its secret is no longer valid",
    Ending.REDIS_AWAY: "the service lost its store",
    Ending.UNEXPECTED: "unexpected condition",
}
_RESTART = 1012


def close_code(ending: Ending, codes: int) -> int:
    """`codes` is the year of the Pelion table, which knows a code for restarts since 2020."""
    return _RESTART if ending is Ending.STOPPING and codes == 2020 else _CODES[ending]


def close_reason(ending: Ending) -> str:
    return _REASONS[ending]
