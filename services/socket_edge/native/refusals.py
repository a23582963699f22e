"""The error frame of a native socket for each error of a request."""

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


class NativeError(NamedTuple):
    """What an error frame says."""

    code: ErrorCode
    message: str
    retry_after_s: float | None = None


def native_error(error: Exception) -> NativeError:
    """`INTERNAL` for an error that is not expected: the caller logs it."""
    match error:
        case Refusal():
            return NativeError(error.code, str(error), error.retry_after_s)
        case KindConflict() | HeldByAnother():
            return NativeError(ErrorCode.CONFLICT, str(error))
        case NoSuchChannel():
            return NativeError(ErrorCode.NOT_FOUND, str(error))
        case Unauthenticated():
            return NativeError(ErrorCode.UNAUTHENTICATED, str(error))
    return _of_problem(problem_of(error))


def _of_problem(problem: HTTPException) -> NativeError:
    code = _OF_STATUS.get(problem.status_code)
    if code is None:
        return NativeError(ErrorCode.INTERNAL, "internal error; it was logged with the id of this session")
    after = (problem.headers or {}).get("retry-after")
    return NativeError(code, problem.detail, None if after is None else float(after))
