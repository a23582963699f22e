"""What a client of the native WebSocket is told of an error of its request."""

from typing import NamedTuple

from starlette.exceptions import HTTPException

from services.problems import problem_of
from shared.model.errors import GatewayError, HeldByAnother, KindConflict, NoSuchChannel, Unauthenticated
from shared.wire.native.replies import ErrorCode

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
        case KindConflict() | HeldByAnother():
            return Told(ErrorCode.CONFLICT, str(error))
        case NoSuchChannel():
            return Told(ErrorCode.NOT_FOUND, str(error))
        case Unauthenticated():
            return Told(ErrorCode.UNAUTHENTICATED, str(error))
    return _of_problem(problem_of(error))


def _of_problem(problem: HTTPException) -> Told:
    code = _OF_STATUS.get(problem.status_code)
    if code is None:
        return Told(ErrorCode.INTERNAL, "internal error; it was logged with the id of this session")
    after = (problem.headers or {}).get("retry-after")
    return Told(code, problem.detail, None if after is None else float(after))
