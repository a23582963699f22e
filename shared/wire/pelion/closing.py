"""Our endings as WebSocket close codes (section 6). The service changed its table in 2020."""

from shared.model.channels import Ending

_2019 = {
    Ending.TAKEN_OVER: 1001,
    Ending.CHANNEL_DELETED: 1001,
    Ending.STOPPING: 1001,
    Ending.KEY_REVOKED: 1008,
    Ending.KEY_EXPIRED: 1008,
    Ending.BAD_KEY: 1008,
    Ending.NO_CHANNEL: 1011,
    Ending.REDIS_AWAY: 1011,
    Ending.UNEXPECTED: 1011,
}
_2020 = {**_2019, Ending.CHANNEL_DELETED: 1000, Ending.STOPPING: 1012}

_REASONS = {
    Ending.TAKEN_OVER: "another socket was opened on this channel",
    Ending.CHANNEL_DELETED: "the channel was deleted",
    Ending.STOPPING: "the server is going away; connect again",
    Ending.KEY_REVOKED: "the API key was revoked",
    Ending.KEY_EXPIRED: "the API key or its secret is no longer valid",
    Ending.BAD_KEY: "the API key is missing or not valid",
    Ending.NO_CHANNEL: "no channel is registered for this API key",
    Ending.REDIS_AWAY: "the service lost its store",
    Ending.UNEXPECTED: "unexpected condition",
}


def close_code(ending: Ending, codes: int) -> int:
    return (_2019 if codes == 2019 else _2020)[ending]


def close_reason(ending: Ending) -> str:
    return _REASONS[ending]


def refuses_at_handshake(codes: int) -> bool:
    """Is a bad key a 401 before the upgrade (2020), or a close with 1008 after it (2019)?"""
    return codes == 2020
