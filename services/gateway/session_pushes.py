"""POST /api/v1/websocket/session: data for one Cognism socket (docs/protocols/cognism.md, section 4).

A session's id is 128 random bits that only its client knows; knowing it is the permission to push.
Credentials are optional, but wrong ones are refused.
"""

from starlette.requests import Request

from services.gateway.bodies import BODY_S, BodyLimit, body_of
from services.gateway.context import context_of
from services.gateway.openapi import COGNISM_CREDENTIALS, in_query, request_body
from services.gateway.operations import Access, Operation
from shared.clock import now_ms
from shared.model.api_keys import ApiKey, is_id
from shared.model.errors import Invalid, TooLarge
from shared.model.sessions import Dialect, Pushed, Session
from shared.runtime.http.responses import Problem, unavailable
from shared.wire.cognism.credentials import credentials_offered, query_of
from shared.wire.cognism.frames import MAX_PUSHED_BYTES, parse_pushed
from shared.wire.models import Closed, Id

_LIMIT = BodyLimit(MAX_PUSHED_BYTES, BODY_S)


class PushedBody(Closed):
    session: Id
    delivered: bool


async def _key_if_given(request: Request) -> ApiKey | None:
    credentials = credentials_offered(request.headers, query_of(request.scope["query_string"]))
    if not credentials.given:
        return None
    context, secret = context_of(request), credentials.secret
    key = await context.authenticator.look_up(
        request, secret or "", lambda: context.stores.api_keys.authenticate(secret, now_ms=now_ms())
    )
    if key is None:
        fields = [("accessToken", "must be the id of an API key"), ("secretKey", "must be its secret")]
        raise Problem(401, "access token or secret key is missing or wrong", fields=fields)
    return key


@Operation(
    "POST /api/v1/websocket/session",
    Access(_key_if_given, errors=(401, 429, 503)),
    errors=(404, 406, 429),
    body=request_body({"description": "Any JSON, of at most 64 KiB."}),
    parameters=[
        {**in_query("session", "The id in the socket's first frame."), "required": True},
        *COGNISM_CREDENTIALS,
    ],
)
async def push_to_session(request: Request, key: ApiKey | None) -> PushedBody:
    """Sends the body to one socket, unchanged. Credentials are optional, but wrong ones are refused."""
    sessions = context_of(request).stores.sessions
    session_id = query_of(request.scope["query_string"]).get("session", "")
    if not session_id:
        raise Invalid("is missing; the socket's first frame contains it", field="session")
    session = await sessions.find(session_id) if is_id(session_id) else None
    if session is None or not _reaches(key, session):
        raise _no_session()
    # Not earlier: until its session is found, the client is a stranger.
    data = await _data_in(request)
    await context_of(request).stores.rates.spend(
        session.account_id, "" if key is None else key.id, events=1, size_bytes=len(data), copies=1
    )
    match await sessions.push(session_id, data):
        case Pushed.TAKEN:
            return PushedBody(session_id, delivered=True)
        case Pushed.GONE:
            raise _no_session()
        case Pushed.UNANSWERED:
            raise unavailable("the socket's edge did not respond in time; the data may have been sent")


async def _data_in(request: Request) -> bytes:
    """The body, unchanged. This dialect has the status 406 for a body that is not JSON."""
    body = await body_of(request, _LIMIT)
    try:
        return parse_pushed(body)
    except TooLarge:
        raise
    except Invalid as error:
        raise Problem(406, error.message) from None


def _reaches(key: ApiKey | None, session: Session) -> bool:
    # The existence of another account's session must not show.
    return session.dialect is Dialect.COGNISM and (key is None or key.account_id == session.account_id)


def _no_session() -> Problem:
    return Problem(404, "there is no such session")
