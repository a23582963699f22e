"""The error response of each error, whichever service found it."""

from starlette.exceptions import HTTPException

from shared.model.errors import (
    DeadlinePassed,
    Invalid,
    KeyIsRunning,
    KeyOfAnother,
    KeyRevoked,
    KindConflict,
    MissingScope,
    NoSuchAccount,
    NotGranted,
    QuotaExceeded,
    StoreUnavailable,
    TokenRefused,
    TooLarge,
    TopicsOnly,
    Unauthenticated,
)
from shared.runtime.http import responses
from shared.runtime.http.responses import Problem
from shared.wire.idempotency import HEADER

EXPECTED = (
    *(HTTPException, Invalid, KindConflict, KeyRevoked, MissingScope, QuotaExceeded, StoreUnavailable),
    *(DeadlinePassed, KeyIsRunning, KeyOfAnother, NoSuchAccount, NotGranted, TopicsOnly, Unauthenticated),
)


def problem_of(error: Exception) -> HTTPException:
    """What the client is to know of the error; an internal error for what is not expected."""
    match error:
        case HTTPException():
            return error
        case TooLarge():
            return Problem(413, error.message, fields=error.fields)
        case Invalid():
            return Problem(400, error.message, fields=error.fields, kind="validation_error")
        case KindConflict():
            return Problem(400, str(error))
        case KeyIsRunning():
            fields = [(HEADER, "belongs to a request that is still running")]
            message = "the request with this Idempotency-Key is still running; retry to get its response"
            return Problem(409, message, fields=fields, headers={"retry-after": "1"})
        case KeyOfAnother():
            fields = [(HEADER, "was used with another body or Content-Type")]
            message = "this Idempotency-Key belongs to another request; use a new one"
            return Problem(422, message, fields=fields, kind="idempotency_mismatch")
        case KeyRevoked():
            return Problem(401, str(error))
        case NoSuchAccount():
            return Problem(404, str(error))
        case TokenRefused():
            fields = [("Authorization", "must be Bearer and a token that is valid now")]
            headers = {"www-authenticate": 'Bearer error="invalid_token"'}
            return Problem(401, str(error), fields=fields, headers=headers)
        case NotGranted():
            return Problem(403, str(error), fields=[(error.claim, "must name it")])
        case TopicsOnly():
            return Problem(403, str(error), fields=[(error.field, error.rule)])
        case Unauthenticated():
            message = "the secret in Authorization is missing or not valid"
            fields = [("Authorization", "must be Bearer and the secret of an API key, or the admin token")]
            return Problem(401, message, fields=fields, headers={"www-authenticate": "Bearer"})
        case MissingScope():
            return Problem(403, str(error), fields=[("scopes", f"must include {error.scope}")])
        case QuotaExceeded():
            return responses.quota_exceeded(error.quota, retry_after_s=error.retry_after_s)
        case StoreUnavailable():
            return responses.unavailable()
        case DeadlinePassed():
            message = (
                "the request took too long and may be queued in part; repeat it with its Idempotency-Key"
            )
            return responses.unavailable(message)
        case _:
            return responses.internal_error()
