"""The handshake of a Pelion client's WebSocket (docs/protocols/pelion.md, sections 4 to 6)."""

import contextlib

from starlette.datastructures import Headers
from starlette.types import Message, Scope, Send

from services.socket_edge.claims import claim_channel, hold_claimed
from services.socket_edge.credential_watcher import authenticate
from services.socket_edge.edge import Edge
from services.socket_edge.handshakes import acceptance
from services.socket_edge.leased_socket import LeasedSocket
from shared import telemetry
from shared.authentication import require_scope
from shared.model.account_channels import id_shown, name_error
from shared.model.api_keys import ApiKey
from shared.model.api_keys import Scope as KeyScope
from shared.model.channels import CloseReason
from shared.model.errors import MissingScope, NoLongerOwner, Unauthenticated
from shared.runtime.http.responses import Problem, refuse_handshake, too_many
from shared.wire.close_reasons import CLOSE_ROWS, close_frame
from shared.wire.pelion.handshake import channel_in, secret_offered, subprotocol_response


async def open_pelion_socket(edge: Edge, scope: Scope, send: Send) -> tuple[LeasedSocket, Message] | None:
    """A socket with its lease, which is claimed before the upgrade, so that HTTP can still refuse it."""
    secret = secret_offered(Headers(scope=scope), scope["subprotocols"])
    if not secret:
        edge.limits.take_handshake(edge.limits.address_of(scope))
    accept = acceptance(scope, subprotocol=subprotocol_response(scope["subprotocols"]))
    wanted = channel_in(scope["query_string"])
    with edge.handshakes.begin(secret, wanted) as may_proceed:
        if not may_proceed:
            telemetry.handshakes.add(1, {"outcome": "busy"})
            problem = too_many("another handshake with this secret is in progress; try again")
            await refuse_handshake(scope, send, problem)
            return None
        try:
            key, credential = await authenticate(edge, scope, secret)
            channel, is_native = await _channel_of(edge, key, wanted)
            claim = await claim_channel(edge, key.account_id, channel, is_native=is_native)
        except (NoLongerOwner, Unauthenticated, MissingScope) as error:
            await _refuse(edge, error, accept, send)
            return None
        socket = LeasedSocket(edge, claim.claimed, scope=scope, send=send)
        hold_claimed(edge, socket, claim, credential)
        return socket, accept


async def _channel_of(edge: Edge, key: ApiKey, wanted: str) -> tuple[str, bool]:
    """The channel that a key opens, and whether it is native: its own, or one of its account by id or name.

    Raises MissingScope, NoLongerOwner(NO_CHANNEL).
    """
    channel = id_shown(wanted)
    if not wanted or channel == key.id:
        require_scope(key.scopes, KeyScope.RECEIVE)
        return key.id, False
    if key.scopes.isdisjoint((KeyScope.CHANNELS, KeyScope.ADMIN)):
        raise MissingScope(KeyScope.CHANNELS)
    channels, is_named = edge.stores.account_channels, channel is None
    if channel is None:
        channel = await channels.names.find(key.account_id, wanted) if name_error(wanted) is None else None
    record = None if channel is None else await channels.record(channel)
    if record is None or record.account_id != key.account_id or (is_named and record.name != wanted):
        raise NoLongerOwner(close_reason=CloseReason.NO_CHANNEL)
    return record.id, record.is_native


async def _refuse(
    edge: Edge, error: NoLongerOwner | Unauthenticated | MissingScope, accept: Message, send: Send
) -> None:
    """Accepts the handshake and closes the socket, where the year has a close code; else raises Problem."""
    reason = error.close_reason if isinstance(error, NoLongerOwner) else CloseReason.BAD_KEY
    frame = close_frame(reason, dialect="pelion", year=edge.settings.pelion_close_codes)
    if frame is None and isinstance(error, MissingScope):
        raise Problem(403, str(error)) from None
    if frame is None:
        raise Problem(401, CLOSE_ROWS[reason].text, headers={"www-authenticate": "Bearer"}) from None
    telemetry.handshakes.add(1, {"outcome": reason})
    with contextlib.suppress(OSError):
        await send(accept)
        await send({"type": "websocket.close", "code": frame[0], "reason": frame[1]})
