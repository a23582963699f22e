"""What a client of the native WebSocket is told of an error of its request."""

from typing import NamedTuple

from shared.model.errors import (
    DeadlinePassed,
    GatewayError,
    HeldByAnother,
    Invalid,
    KeyRevoked,
    KindConflict,
    MissingScope,
    NoSuchAccount,
    NoSuchChannel,
    NotGranted,
    QuotaExceeded,
    StoreUnavailable,
    Unauthenticated,
)
from shared.runtime.http.responses import Problem
from shared.wire.native.replies import ErrorCode

_RETRY_S = 1.0
_OF_STATUS = {
    400: ErrorCode.INVALID,
    401: ErrorCode.UNAUTHENTICATED,
    403: ErrorCode.FORBIDDEN,
    404: ErrorCode.NOT_FOUND,
    409: ErrorCode.CONFLICT,
    413: ErrorCode.INVALID,
    422: ErrorCode.CONFLICT,
    429: ErrorCode.TOO_MANY,
    503: ErrorCode.UNAVAILABLE,
}


class Refusal(GatewayError):
    """A request is refused, for a reason that only native sockets have."""

    def __init__(self, code: ErrorCode, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.retry_after_s = retry_after_s


class Told(NamedTuple):
    """What the client is told."""

    code: ErrorCode
    message: str
    retry_after_s: float | None = None


def told_of(error: Exception) -> Told:
    """`INTERNAL` for an error that is not expected: the caller logs it."""
    match error:
        case Refusal():
            return Told(error.code, str(error), error.retry_after_s)
        case Problem():
            return _of_problem(error)
        case Invalid():
            return Told(ErrorCode.INVALID, error.message)
        case Unauthenticated() | KeyRevoked():
            return Told(ErrorCode.UNAUTHENTICATED, str(error))
        case NotGranted() | MissingScope():
            return Told(ErrorCode.FORBIDDEN, str(error))
        case NoSuchAccount() | NoSuchChannel():
            return Told(ErrorCode.NOT_FOUND, str(error))
        case KindConflict() | HeldByAnother():
            return Told(ErrorCode.CONFLICT, str(error))
        case QuotaExceeded():
            return Told(ErrorCode.TOO_MANY, str(error), error.retry_after_s)
        case StoreUnavailable():
            return Told(ErrorCode.UNAVAILABLE, "the store cannot take this now; retry", _RETRY_S)
        case DeadlinePassed():
            message = "it took too long and may be done in part; repeat it with its idempotency_key"
            return Told(ErrorCode.UNAVAILABLE, message, _RETRY_S)
    return Told(ErrorCode.INTERNAL, "internal error; it was logged with this session's id")


def _of_problem(problem: Problem) -> Told:
    code = _OF_STATUS.get(problem.status_code, ErrorCode.INTERNAL)
    after = (problem.headers or {}).get("retry-after")
    return Told(code, problem.detail, None if after is None else float(after))
