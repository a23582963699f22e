"""What the WebSockets of all dialects have in common, from the handshake to the end."""

import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias

from starlette.types import Message, Receive, Scope, Send

from services.socket_edge.held import HeldSocket
from shared import telemetry
from shared.model.api_keys import hash_of, id_in
from shared.model.errors import Invalid, QuotaExceeded, StoreUnavailable
from shared.runtime.http.responses import (
    REQUEST_ID,
    Problem,
    internal_error,
    quota_exceeded,
    refuse_handshake,
    request_id_of,
    unavailable,
)

if TYPE_CHECKING:
    from services.socket_edge.edge import Edge

logger = logging.getLogger(__name__)

OpenSocket: TypeAlias = Callable[["Edge", Scope, Send], Awaitable[tuple[HeldSocket, Message] | None]]
"""Opens a dialect's socket, which the edge holds, and returns it with the message that accepts the handshake.

None: it has sent a refusal itself. Raises Problem, Invalid, StoreUnavailable.
"""


async def serve_socket(
    open_socket: OpenSocket, edge: "Edge", scope: Scope, receive: Receive, send: Send
) -> None:
    """Serves one WebSocket. A refusal comes before the upgrade."""
    await receive()
    socket = await _accept(open_socket, edge, scope, send)
    # An idle socket must not keep its handshake in memory.
    del scope
    if socket is None:
        return
    try:
        while (message := await receive())["type"] != "websocket.disconnect":
            await socket.on_message(message.get("text", message.get("bytes", b"")))
        socket.client_code = int(message.get("code", 0))
    finally:
        await edge.drop(socket)
        telemetry.sockets_closed.add(1, {"reason": socket.facts["reason"]})
        logger.info(socket.closed_log, extra={"facts": socket.facts})


async def _accept(open_socket: OpenSocket, edge: "Edge", scope: Scope, send: Send) -> HeldSocket | None:
    """The accepted socket; None when the client was sent an HTTP response that says why it was refused."""
    try:
        edge.check_open()
        opened = await open_socket(edge, scope, send)
    except StoreUnavailable:
        problem, outcome = unavailable(), {"outcome": "unavailable"}
    except Invalid as error:
        problem = Problem(400, error.message, fields=error.fields, kind="validation_error")
        outcome = {"outcome": "refused"}
    except QuotaExceeded as error:
        problem = quota_exceeded(error.quota, retry_after_s=error.retry_after_s)
        outcome = {"outcome": "over-quota"}
    except Problem as error:
        problem, outcome = error, {"outcome": "refused"}
    except Exception:
        logger.exception("handshake.failed", extra={"facts": {"request_id": request_id_of(scope)}})
        problem, outcome = internal_error(), {"outcome": "failed"}
    else:
        if opened is None:
            return None
        socket, acceptance = opened
        telemetry.handshakes.add(1, {"outcome": "accepted"})
        try:
            # If the client has gone already, its next message says so.
            with contextlib.suppress(OSError):
                await send(acceptance)
                socket.on_accepted()
                await edge.close_if_stopping(socket)
        except BaseException:
            # Also after a bug or a cancellation: nothing else would drop it.
            await edge.drop(socket)
            raise
        return socket
    telemetry.handshakes.add(1, outcome)
    await refuse_handshake(scope, send, problem)
    return None


def acceptance(
    scope: Scope, *, subprotocol: str | None = None, headers: Sequence[tuple[bytes, bytes]] = ()
) -> Message:
    headers = [(REQUEST_ID.encode(), request_id_of(scope).encode()), *headers]
    return {"type": "websocket.accept", "subprotocol": subprotocol, "headers": headers}


class Handshakes:
    """Lets one handshake with each secret proceed at a time, for each channel that is named in its URL
    (docs/protocols/pelion.md, section 4).

    By the secret and not by the id in it: more people know the id, and could keep the key's owner out.
    """

    def __init__(self) -> None:
        self._in_progress: set[str] = set()

    @contextlib.contextmanager
    def begin(self, secret: str | None, channel: str = "") -> Iterator[bool]:
        """Whether this handshake may proceed; False while another with the same secret does."""
        # Without a secret of ours it will be refused for that.
        name = hash_of(f"{secret} {channel}") if secret is not None and id_in(secret) is not None else ""
        if name in self._in_progress:
            yield False
            return
        if name:
            self._in_progress.add(name)
        try:
            yield True
        finally:
            self._in_progress.discard(name)
