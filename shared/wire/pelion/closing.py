"""Our sockets_closed as WebSocket close codes (section 6). The service changed its table in 2020."""

from shared.model.channels import CloseReason

_2019 = {
    CloseReason.TAKEN_OVER: 1001,
    CloseReason.CHANNEL_DELETED: 1001,
    CloseReason.STOPPING: 1001,
    CloseReason.KEY_REVOKED: 1008,
    CloseReason.KEY_EXPIRED: 1008,
    CloseReason.BAD_KEY: 1008,
    CloseReason.NO_CHANNEL: 1011,
    CloseReason.REDIS_AWAY: 1011,
    CloseReason.UNEXPECTED: 1011,
}
_2020 = {**_2019, CloseReason.CHANNEL_DELETED: 1000, CloseReason.STOPPING: 1012}

_REASONS = {
    CloseReason.TAKEN_OVER: "another socket was opened on this channel",
    CloseReason.CHANNEL_DELETED: "the channel was deleted",
    CloseReason.STOPPING: "the server is going away; connect again",
    CloseReason.KEY_REVOKED: "the API key was revoked",
    CloseReason.KEY_EXPIRED: "the API key or its secret is no longer valid",
    CloseReason.BAD_KEY: "the API key is missing or not valid",
    CloseReason.NO_CHANNEL: "no channel is registered for this API key",
    CloseReason.REDIS_AWAY: "the service lost its store",
    CloseReason.UNEXPECTED: "unexpected condition",
}


def close_code(close_reason: CloseReason, codes: int) -> int:
    return (_2019 if codes == 2019 else _2020)[close_reason]


def close_text(close_reason: CloseReason) -> str:
    return _REASONS[close_reason]


def refuses_at_handshake(codes: int) -> bool:
    """Is a bad key a 401 before the upgrade (2020), or a close with 1008 after it (2019)?"""
    return codes == 2020
