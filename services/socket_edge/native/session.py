"""The requests of a native socket that are about itself: `auth`, `refresh` and `ping`."""

from services.socket_edge.native.callers import NativeCaller, caller_of_token
from services.socket_edge.native.parts import Handled, Said
from services.socket_edge.native.refusals import Refusal
from services.socket_edge.native.socket import NativeSocket
from shared.model.channels import CloseReason
from shared.model.errors import QuotaExceeded
from shared.model.grants import Grant
from shared.model.quotas import Quota
from shared.runtime.http.responses import Problem
from shared.wire.native.frames import Auth, Refresh, Request
from shared.wire.native.replies import ErrorCode


def ping(_: NativeSocket, __: Request) -> Handled:
    return ("pong", {})


async def auth(socket: NativeSocket, request: Request) -> Said:
    """Authenticates the socket by a token, once. Raises TokenRefused, Refusal, StoreUnavailable."""
    assert isinstance(request.body, Auth)
    if socket.caller is not None:
        raise Refusal(ErrorCode.CONFLICT, "the socket is authenticated already: send refresh")
    try:
        caller = await caller_of_token(socket.edge, request.body.token, socket.source)
        await _count(socket, caller)
    except Problem:
        socket.close_soon(CloseReason.TOO_MANY_FAILURES)
        raise
    except QuotaExceeded as error:
        if error.quota is Quota.SOCKETS:
            socket.close_soon(CloseReason.OVER_QUOTA)
        raise
    socket.become(caller.right, caller.credential)
    socket.edge.limits.give_back_handshake(socket.source)
    return ("authenticated", socket.said_of_caller())


async def refresh(socket: NativeSocket, request: Request) -> Said:
    """Another token of the same account and subject. What it does not name ends; so does an older end.

    Raises TokenRefused, Refusal, Problem (429), StoreUnavailable.
    """
    assert isinstance(request.body, Refresh)
    present = socket.caller
    if not isinstance(present, Grant):
        raise Refusal(ErrorCode.CONFLICT, "the socket was opened by an API key, which needs no refresh")
    caller = await caller_of_token(socket.edge, request.body.token, socket.source)
    right = caller.right
    assert isinstance(right, Grant)
    if (right.account_id, right.subject) != (present.account_id, present.subject):
        raise Refusal(ErrorCode.FORBIDDEN, "the token is of another account, or its sub is another one")
    socket.become(right, caller.credential)
    return ("refreshed", {"expires_at": socket.said_of_caller()["expires_at"]})


async def _count(socket: NativeSocket, caller: NativeCaller) -> None:
    """Counts the socket in the quota of its account. Raises QuotaExceeded, StoreUnavailable."""
    quota = socket.edge.socket_quota
    await quota.admit(caller.account_id)
    socket.counted_for = caller.account_id
    if not socket.is_held:
        # It has ended meanwhile.
        quota.release(socket)
