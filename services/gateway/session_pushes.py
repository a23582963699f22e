"""POST /api/v1/websocket/session: data for one Cognism socket (docs/protocols/cognism.md, section 4).

A session's id is 128 random bits that only its client knows; knowing it is the permission to push.
Credentials are optional, but wrong ones are refused.
"""

from starlette.requests import Request

from services.gateway.bodies import body_of
from services.gateway.context import Context, context_of
from services.gateway.openapi import COGNISM_CREDENTIALS, in_query, request_body
from services.gateway.operations import ANYONE, Operation
from shared.model.api_keys import ApiKey, is_id
from shared.model.errors import Invalid, TooLarge
from shared.model.sessions import Dialect, Pushed
from shared.runtime.clock import now_ms
from shared.runtime.http.responses import Problem, unavailable
from shared.wire.cognism.credentials import credentials_offered, query_of
from shared.wire.cognism.frames import parse_pushed
from shared.wire.models import Closed, Id


class PushedBody(Closed):
    session: Id
    delivered: bool


@Operation(
    "POST /api/v1/websocket/session",
    ANYONE,
    errors=(401, 404, 406, 503),
    body=request_body({"description": "Any JSON, of at most 64 KiB."}),
    parameters=[
        {**in_query("session", "The id in the socket's first frame."), "required": True},
        *COGNISM_CREDENTIALS,
    ],
)
async def push_to_session(request: Request, _: None) -> PushedBody:
    """Sends the body to one socket, unchanged. Credentials are optional, but wrong ones are refused."""
    context = context_of(request)
    query = query_of(request.scope["query_string"])
    key = await _authenticate_if_given(context, request, query)
    session_id = query.get("session", "")
    if not session_id:
        raise Invalid("is missing; the socket's first frame contains it", field="session")
    data = await _data_in(request)
    await _check_reach(context, session_id, key)
    match await context.stores.sessions.push(session_id, data):
        case Pushed.TAKEN:
            return PushedBody(session_id, delivered=True)
        case Pushed.GONE:
            raise _no_session()
        case Pushed.UNANSWERED:
            raise unavailable("the socket's edge did not respond in time; the data may have been sent")


async def _authenticate_if_given(context: Context, request: Request, query: dict[str, str]) -> ApiKey | None:
    credentials = credentials_offered(request.headers, query)
    if not credentials.given:
        return None
    key = await context.stores.api_keys.authenticate(credentials.secret, now_ms=now_ms())
    if key is None:
        fields = [("accessToken", "must be the id of an API key"), ("secretKey", "must be its secret")]
        raise Problem(401, "access token or secret key is missing or wrong", fields=fields)
    return key


async def _data_in(request: Request) -> bytes:
    """The body, unchanged. This dialect has the status 406 for a body that is not JSON."""
    body = await body_of(request)
    try:
        return parse_pushed(body)
    except TooLarge:
        raise
    except Invalid as error:
        raise Problem(406, error.message) from None


async def _check_reach(context: Context, session_id: str, key: ApiKey | None) -> None:
    """Raises Problem(404), also for another account's session: its existence must not show."""
    session = await context.stores.sessions.find(session_id) if is_id(session_id) else None
    if session is None or session.dialect is not Dialect.COGNISM:
        raise _no_session()
    if key is not None and key.account_id != session.account_id:
        raise _no_session()


def _no_session() -> Problem:
    return Problem(404, "there is no such session")
